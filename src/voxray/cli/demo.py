"""`voxray demo`: the main job on the embedded example."""

from pathlib import Path
from typing import Annotated

from typer import Option

from voxray.cli.arguments import Overwrite, check_output, read_geometry
from voxray.cli.output import progress, show
from voxray.cli.reconstruct import show_result


def demo(
    out: Annotated[Path, Option("--out", "-o", help="Folder for the results.")] = Path("demo-out"),
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct the example that comes with voxray, and compare it with the true CT."""
    from voxray.api import reconstruct
    from voxray.evaluation.metrics import psnr, to_unit_range
    from voxray.examples import example_folder
    from voxray.images.read_ct import read_ct

    check_output(out, overwrite)
    case = example_folder()
    geometry = read_geometry(case / "geometry.json")
    with progress("Reconstructing") as draw:
        result = reconstruct([case / "pa.nii.gz", case / "lateral.nii.gz"], geometry=geometry, progress=draw)
    truth = read_ct(case / "ct.nii.gz")
    show_result(result, result.save(out, overwrite=overwrite, truth=truth))
    decibels = psnr(to_unit_range(result.volume.hu), to_unit_range(truth.hu), data_range=1.0)
    show(f"3D PSNR against the true CT: {decibels:.1f} dB")
    show(f"Look at {out / 'preview.png'} first.")
