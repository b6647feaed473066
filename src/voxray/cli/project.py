"""`voxray project`: X-rays of a CT."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from voxray.cli.arguments import (
    CTArguments,
    GeometryFile,
    Overwrite,
    Seed,
    check_output,
    flattened,
    need_one,
    read_geometry,
    split_numbers,
    views_or_count,
)
from voxray.cli.output import show

if TYPE_CHECKING:
    from voxray.geometry import ViewGeometry, VolumeGrid

_DEFAULT_VIEWS = "pa,lateral"


@dataclass(frozen=True)
class ViewArguments:
    """Where source and detector stand."""

    views: Annotated[
        str | None,
        Option(
            help="pa, ap, lateral, right_lateral or angles in degrees, with commas; or a number: so many views, "
            f"spread evenly over 180 degrees from PA. Without it: {_DEFAULT_VIEWS}."
        ),
    ] = None
    geometry: GeometryFile = None
    setup: Annotated[str | None, Option(help="Preset: chest (if nothing is given), x2ct, perx2ct or xraysyn.")] = None
    isocentre: Annotated[str | None, Option(metavar="X,Y,Z", help="LPS, mm; without it the middle of the volume.")] = (
        None
    )
    lateral_anterior: Annotated[
        Literal["right", "left"] | None, Option(help="Side of a lateral image that shows the front of the patient.")
    ] = None

    def geometry_of(self, grid: "VolumeGrid") -> "ViewGeometry":
        """Return the views for a volume on `grid`."""
        from voxray.geometry import ViewGeometry

        if self.geometry is not None:
            others = {"--views": self.views, "--setup": self.setup, "--isocentre": self.isocentre,
                      "--lateral-anterior": self.lateral_anterior}  # fmt: skip
            for option, value in others.items():
                need_one(("--geometry", option), (True, value is not None))
            return read_geometry(self.geometry)
        centre = split_numbers(self.isocentre, 3, "--isocentre") if self.isocentre is not None else grid.centre_mm
        setup, views = self.setup or "chest", views_or_count(self.views or _DEFAULT_VIEWS)
        if isinstance(views, int):
            return ViewGeometry.circular(views, setup=setup, isocentre_mm=centre)
        anterior = self.lateral_anterior or "right"
        return ViewGeometry.from_names(views, setup=setup, isocentre_mm=centre, lateral_anterior=anterior)


@flattened
def project(
    ct: Annotated[Path, Argument(help="DICOM folder or zip, NIfTI, NRRD, MHA.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder for the X-rays.")],
    views: ViewArguments,
    reading: CTArguments,
    photons: Annotated[
        float | None, Option(min=1, help="Poisson noise of so many photons a pixel, for instance 2e5.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make X-rays from a CT, couch and all: line integrals as NIfTI, one file a view, with their geometry."""
    from voxray.api import project as run
    from voxray.images.write_radiograph import write_radiograph

    check_output(out, overwrite)
    volume = reading.read(ct)
    radiograph = run(volume, views.geometry_of(volume.grid), photons=photons, seed=seed)
    for path in write_radiograph(radiograph, out, overwrite=overwrite):
        show(str(path))
