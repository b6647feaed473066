"""All commands of `voxray`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from voxray.cli.demo import demo
from voxray.cli.doctor import doctor
from voxray.cli.evaluating import bench, compare, evaluate, report
from voxray.cli.import_weights import import_weights
from voxray.cli.info import info
from voxray.cli.learning import models, train
from voxray.cli.nodules import nodules
from voxray.cli.output import notes_shown, show
from voxray.cli.prepare import prepare
from voxray.cli.project import project
from voxray.cli.reconstruct import reconstruct

app = typer.Typer(
    name="voxray",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From X-ray images to a CT volume. Research software, not a medical device.",
)
for _command in (
    reconstruct, project, prepare, train, evaluate, compare, nodules, report, models, import_weights, demo, info,
    doctor,
):  # fmt: skip
    app.command()(_command)
app.add_typer(bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        from voxray.images.disclaimer import made_by

        show(made_by())
        raise typer.Exit


@app.callback()
def _voxray(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (any command).")] = False,
) -> None:
    """Take the options that stand before a command; `main` looks after --debug by itself."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return 0, or the code that it ended with; errors are raised."""
    with notes_shown():
        code = app(list(arguments) or ["--help"], prog_name="voxray", standalone_mode=False)
    return code if isinstance(code, int) else 0
