"""How a training runs, which changes nothing about its result."""

from dataclasses import dataclass
from pathlib import Path

from voxray.errors import InputError


@dataclass(frozen=True)
class TrainOptions:
    """Settings that are no part of the recipe.

    Attributes:
        max_seconds: stop after this time, with a checkpoint; None for no limit.
        device: `cpu`, `cuda`, or `auto`: GPUs where there are some.
        devices: processes on each machine, one a GPU.
        nodes: machines.
        workers: processes that make samples, for each process that trains; 0 for none.
        cache: folder of prepared items; None for `cache` in the folder of the run. Runs can share one.
        checkpoint_seconds: time between checkpoints.
        preview_seconds: time between previews.

    Raises:
        InputError: if a number is out of range.
    """

    max_seconds: float | None = None
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 0
    cache: Path | None = None
    checkpoint_seconds: float = 300.0
    preview_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"The longest time of a training must be above 0 seconds, not {self.max_seconds:g}.")
        if min(self.devices, self.nodes) < 1 or self.workers < 0:
            raise InputError(
                f"At least one device and one node are needed, and no fewer than 0 workers; not {self.devices}, "
                f"{self.nodes} and {self.workers}."
            )
