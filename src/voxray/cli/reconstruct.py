"""`voxray reconstruct`: from X-rays to a CT volume."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from voxray.cli.arguments import GeometryFile, XrayArguments, check_output, flattened, need_one, split_names
from voxray.cli.output import progress, show, show_table
from voxray.cli.request import MethodArguments, Request, ResultArguments

if TYPE_CHECKING:
    from voxray.api import Reconstruction


@flattened
def reconstruct(
    xrays: Annotated[
        list[Path],
        Argument(help="The X-ray files of a patient; or one folder of patients, or a CSV of them (docs/cli.md)."),
    ],
    out: Annotated[Path, Option("--out", "-o", help="Folder for the results; of several patients, a folder each.")],
    method: MethodArguments,
    reading: XrayArguments,
    result: ResultArguments,
    views: Annotated[
        str | None, Option(help="The view of each file, in their order: pa, ap, lateral, right_lateral or an angle.")
    ] = None,
    geometry: GeometryFile = None,
) -> None:
    """Reconstruct a CT volume from the X-rays of a patient, or of many."""
    from voxray.cli.batch import reconstruct_many  # loads torch: not for --help
    from voxray.cli.patients import find_patients

    need_one(("--views", "--geometry"), (views is not None, geometry is not None))
    names = split_names(views, "--views") if views is not None else None
    request = Request(names, geometry, method, reading, result)
    patients = find_patients(xrays)
    request.refuse_inputs_in(out, patients)
    if [patient.id for patient in patients] != [""]:
        reconstruct_many(patients, request, out)
        return
    check_output(out, result.overwrite)
    with progress("Reconstructing") as draw:
        reconstruction = request.reconstruct(patients[0], draw)
    show_result(reconstruction, request.save(reconstruction, out, overwrite=result.overwrite))


def show_result(result: "Reconstruction", files: Sequence[Path]) -> None:
    """Show which file became which view, how well the result explains it, the verdict, and where the result is."""
    from voxray.images.disclaimer import DISCLAIMER
    from voxray.images.read_xray import view_files

    sources = view_files(result.radiograph)
    rows = [
        (residual.view, sources.get(residual.view, ""), 100 * residual.relative) for residual in result.report.residuals
    ]
    show_table(("view", "X-ray", "residual, %"), rows)
    if result.report.quality is not None:
        show(result.report.quality.summary)
    show()
    for file in files:
        show(str(file))
    show(DISCLAIMER)
