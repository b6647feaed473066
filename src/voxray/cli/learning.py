"""`voxray train`, `voxray evaluate` and `voxray models`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from voxray.cli.arguments import Device, Overwrite, Seed, check_output, make_folder, views_or_count
from voxray.cli.output import progress, show, show_table
from voxray.errors import InputError


class Protocol(StrEnum):
    """How the X-rays of an evaluation are made (Typer takes a list of an enumeration, not of literals)."""

    CLOSED = "closed"
    CLINICAL = "clinical"


_HEADINGS = {"psnr3d": "3D PSNR, dB", "ssim": "SSIM", "mae_hu": "MAE, HU", "residual": "residual RMS"}


def train(
    recipe: Annotated[str, Argument(help="Name of a recipe that comes with voxray, or a YAML file.")],
    store: Annotated[Path, Argument(help="Made by `voxray prepare`.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder of the model.")],
    split: Annotated[str, Option(help="Train on these cases of the store.")] = "train",
    overrides: Annotated[
        list[str] | None, Option("--set", metavar="A.B=VALUE", help="Change the recipe; give it again for more.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on prepared CTs."""
    from voxray.api import train as run

    check_output(out, overwrite)
    make_folder(out.parent)
    with progress("Training") as draw:
        folder = run(recipe, store, out, split=split, overrides=overrides or (), overwrite=overwrite, progress=draw)
    show(str(folder))


def evaluate(
    model: Annotated[str, Argument(help="Name (see `voxray models`) or folder of a model.")],
    store: Annotated[Path, Argument(help="Made by `voxray prepare`.")],
    split: Annotated[str, Option(help="Evaluate on these cases of the store; `all` for all.")] = "val",
    protocol: Annotated[
        list[Protocol] | None,
        Option(
            help="closed: X-rays of the very cube that is scored, without noise; clinical: of the whole scan, with "
            "noise. Give it again for both; without it: both."
        ),
    ] = None,
    views: Annotated[
        str, Option(help="Names with commas, or a number: so many, spread evenly over 180 degrees from PA.")
    ] = "pa,lateral",
    setup: Annotated[str, Option(help="Preset of the views: chest, x2ct, perx2ct or xraysyn.")] = "chest",
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[Path | None, Option("--out", "-o", help="CSV with a line for each case and protocol.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure a model on prepared CTs, beside the plain mean volume."""
    from voxray.api import evaluate as run

    if out is not None:
        check_output(out, overwrite, "file")
    with progress("Evaluating") as draw:
        evaluation = run(
            model,
            store,
            split=None if split == "all" else split,
            protocols=[name.value for name in protocol or Protocol],
            views=views_or_count(views),
            setup=setup,
            seed=seed,
            device=device,
            progress=draw,
        )
    rows = [
        (line.protocol, line.model, line.cases, *(f"{line.means[m]:.4g} ± {line.stds[m]:.2g}" for m in line.means))
        for line in evaluation.summary()
    ]
    columns = [_HEADINGS.get(metric, metric) for metric in evaluation.summary()[0].means] if rows else []
    show_table(("protocol", "model", "cases", *columns), rows)
    if out is not None:
        make_folder(out.parent)
        evaluation.write_csv(out, overwrite=overwrite)
        show(str(out))


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
