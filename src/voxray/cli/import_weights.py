"""`voxray import-weights`: a model from weights that others published."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from voxray.cli.arguments import Overwrite, check_output, make_folder
from voxray.cli.output import note, show


def import_weights(
    checkpoints: Annotated[
        list[Path],
        Argument(help="Checkpoints of DVG-Diffusion, called as in its release, or a folder of them. They are pickles: "
                 "import only what you trust."),
    ],
    out: Annotated[Path, Option("--out", "-o", help="Folder of the model.")],
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Make a model of the weights that the authors of DVG-Diffusion released."""
    from voxray.models.import_dvg import import_dvg

    check_output(out, overwrite)
    make_folder(out.parent)
    import_dvg(checkpoints, out, overwrite=overwrite)
    note(
        "X-rays are lifted as in the code that these weights were trained with. voxray's authors had no released "
        "weights to try: make sure with a case that you know that left is left and up is up."
    )
    show(str(out))
