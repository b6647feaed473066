"""What a stage leaves for people to look at: scalars as CSV and for TensorBoard, and pictures."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from voxray.images.atomic import atomic_path, write_text_atomic

LOG = "log.csv"
_COLUMNS = ["stage", "step", "name", "value"]


class StageLog:
    """Logs of one stage: `log.csv`, `logs/STAGE` for TensorBoard, and `previews/STAGE-STEP-NAME.png`.

    What a killed run has logged after its last checkpoint is taken off, so that nothing stands there twice.

    Args:
        run: folder of the run.
        stages: names of the stages up to this one, which is the last.
        start: steps that are done already.
    """

    def __init__(self, run: Path, stages: Sequence[str], start: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.run, self.stage = run, stages[-1]
        _truncate(run / LOG, stages, start)
        self._file = (run / LOG).open("a", encoding="utf-8", buffering=1, newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        board: Any = SummaryWriter  # has no types
        self._board = board(str(run / "logs" / _plain(self.stage)), purge_step=start)

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Log scalars of a step (from 0), and how long it took; TensorBoard alone is told the time."""
        self._rows.writerows((self.stage, step, name, repr(value)) for name, value in values.items())
        for name, value in (*values.items(), ("seconds a step", seconds)):
            self._board.add_scalar(name, value, step)

    def pictures(self, step: int, images: Mapping[str, Tensor]) -> None:
        """Keep pictures of values in 0..1."""
        (self.run / "previews").mkdir(exist_ok=True)
        for name, image in images.items():
            grey = (image.detach().float().cpu().clamp(0, 1) * 255).round().numpy().astype(np.uint8)
            self._board.add_image(name, grey, step, dataformats="HW")
            path = self.run / "previews" / f"{_plain(self.stage)}-{step:08d}-{_plain(name)}.png"
            with atomic_path(path) as temporary:
                Image.fromarray(grey).save(temporary)

    def flush(self) -> None:
        """Bring the scalars to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self.flush()
        self._file.close()
        self._board.close()


def _truncate(path: Path, stages: Sequence[str], start: int) -> None:
    """Keep the rows of the stages before the last one of `stages`, and its own before step `start`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in csv.reader(lines[1:]) if len(row) == len(_COLUMNS)]
    kept = [row for row in rows if row[0] in stages[:-1] or (row[0] == stages[-1] and int(row[1]) < start)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *kept])
    write_text_atomic(path, text.getvalue())


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name)
