"""`voxray train` and `voxray models`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from voxray.cli.arguments import (
    Device,
    Overrides,
    check_output,
    flattened,
    make_folder,
)
from voxray.cli.output import note, show, show_table
from voxray.cli.training_progress import training_progress
from voxray.errors import InputError

if TYPE_CHECKING:
    from voxray.training import TrainOptions


@dataclass(frozen=True)
class TrainArguments:
    """The fields of `TrainOptions`, as they are typed."""

    max_time: Annotated[
        str | None, Option(metavar="H:MM:SS or MINUTES", help="Stop after this time, with a checkpoint to go on from.")
    ] = None
    device: Device = "auto"
    devices: Annotated[int, Option(min=1, help="Processes on each machine, one a GPU.")] = 1
    num_nodes: Annotated[int, Option(min=1, help="Machines.")] = 1
    workers: Annotated[
        int | None, Option(min=0, help="Processes that make samples; without it, one fewer than there are cores.")
    ] = None
    cache: Annotated[
        Path | None,
        Option(help="Folder of prepared samples, which runs can share; without it, in the folder of the run."),
    ] = None

    def options(self) -> "TrainOptions":
        """Return the checked options."""
        from voxray.api import TrainOptions

        return TrainOptions(
            max_seconds=_seconds(self.max_time) if self.max_time is not None else None,
            device=self.device, devices=self.devices, nodes=self.num_nodes,
            workers=min(16, (os.cpu_count() or 1) - 1) if self.workers is None else self.workers, cache=self.cache,
        )  # fmt: skip


@flattened
def train(
    recipe: Annotated[str, Argument(help="Name of a recipe that comes with voxray, or a YAML file.")],
    data: Annotated[Path, Option("--data", "--synthetic", metavar="STORE", help="Made by `voxray prepare`.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder of the run; the model is in it.")],
    arguments: TrainArguments,
    real: Annotated[
        Path | None, Option(metavar="FOLDER", help="Radiographs to learn a style from (recipes style, style-lateral).")
    ] = None,
    split: Annotated[str, Option(help="Train on these cases of the store.")] = "train",
    overrides: Overrides = None,
    precision: Annotated[
        Literal["bf16", "fp32"] | None, Option(help="Of the networks' arithmetic; without it, the recipe's.")
    ] = None,
    seed: Annotated[
        int | None, Option(min=0, help="Of first weights, order and noise; without it, the recipe's.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, Option("--force", help="Go on even with another recipe or other data.")] = False,
) -> None:
    """Train a model on prepared CTs."""
    from voxray.api import train as run

    changes = [*(overrides or ()), *([f"training.precision={precision}"] if precision is not None else [])]
    changes += [f"training.seed={seed}"] if seed is not None else []
    check_output(out, overwrite=True)  # whether it may be there, training itself looks
    make_folder(out.parent)
    go_on = f"The same command with --resume goes on where it was stopped ('{out}')."
    try:
        with training_progress() as draw:
            summary = run(
                recipe, data, out, split=split, real=real, overrides=changes, resume=resume, force=force,
                options=arguments.options(), progress=draw,
            )  # fmt: skip
    except KeyboardInterrupt:
        note(go_on)
        raise
    if summary.model is not None:
        show(str(summary.model))
    elif summary.stopped:
        show(go_on)


def _seconds(text: str) -> float:
    """Read `1:30:00`, `90:00` or `90` (minutes) as seconds."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"--max-time takes hours:minutes:seconds, or a whole number of minutes; not {text!r}.")
    numbers = [int(part) for part in parts]
    return float(numbers[0] * 60 if len(numbers) == 1 else sum(n * 60**i for i, n in enumerate(reversed(numbers))))


def models() -> None:
    """List the models that can be used by name."""
    from voxray.api import list_models

    found = list_models()
    if not found:
        raise InputError("There is no model: this installation of voxray lacks its embedded ones.")
    rows = []
    for info in found:
        grid = info.recipe.grid
        size = " x ".join(str(n) for n in grid.shape)
        rows.append((info.name, info.recipe.method, f"{size} of {grid.spacing_mm:g} mm", info.recipe.description))
    show_table(("name", "method", "grid", "about"), rows)
