"""What a reconstruction takes: wall time and memory."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

# Linux: writing 5 sets the peak of the resident memory back to what is resident now (proc(5), since 4.0).
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Cost:
    """Wall time, and the most memory that was held meanwhile.

    Attributes:
        seconds: of wall time.
        memory_mb: of the GPU where the work is done on one, what voxray holds of it; else of the whole process,
            libraries and weights included. None where the system does not tell (only Linux does).
    """

    seconds: float = 0.0
    memory_mb: float | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Lend a `Cost`, which is filled in when the block ends well.

    Args:
        device: where the work is done.
    """
    cost, on_gpu = Cost(), device.type == "cuda"
    known = True
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        known = _reset_peak()
    start = time.perf_counter()
    yield cost
    if on_gpu:
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - start
    if on_gpu:
        cost.memory_mb = torch.cuda.max_memory_allocated(device) / 1e6
    elif known:
        cost.memory_mb = _peak_mb()


def _reset_peak() -> bool:
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _peak_mb() -> float | None:
    found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else None
