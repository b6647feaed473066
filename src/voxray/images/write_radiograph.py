"""Write X-rays as files that `voxray reconstruct` reads: line integrals, their geometry, and a picture."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from voxray.errors import InputError, ResourceError
from voxray.images.atomic import atomic_path, make_folder, refuse_existing, write_text_atomic
from voxray.images.disclaimer import SYNTHETIC, made_by
from voxray.images.preview import letters
from voxray.images.read_geometry import read_geometry
from voxray.images.types import Radiograph

_FILE_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")


def write_radiograph(radiograph: Radiograph, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write `<view>.nii.gz` for each view, then preview.png, then geometry.json.

    An image is float32 with the array [1, row, column] and the size of its pixels; direction and origin say nothing,
    the pose stands in geometry.json (`ViewGeometry.to_json`).

    With `overwrite`, the X-rays that an old geometry.json names are removed, after the geometry itself.

    Returns:
        The files.

    Raises:
        InputError: if the X-rays are not line integrals, the name of a view is none for a file, or the folder is not
            empty (unless `overwrite`), cannot be made, or holds a geometry.json that is none.
        ResourceError: if the disk is full.
    """
    if radiograph.kind != "line_integral":
        raise InputError(f"Only line integrals are written as NIfTI, not X-rays of the kind {radiograph.kind!r}.")
    for name in radiograph.views.names:
        if not _FILE_NAME.fullmatch(name):
            raise InputError(f"The view {name!r} cannot name a file: letters, digits and _ . + - can.")
    refuse_existing(folder, overwrite)
    make_folder(folder)
    _remove_former(folder, radiograph.views.names)
    images = [folder / f"{name}.nii.gz" for name in radiograph.views.names]
    for view, path in enumerate(images):
        _write_image(radiograph, view, path)
    preview, geometry = folder / "preview.png", folder / "geometry.json"
    with atomic_path(preview) as temporary:
        metadata = {"Software": made_by(), "Description": SYNTHETIC}
        _figure(radiograph).savefig(temporary, format="png", dpi=100, metadata=metadata)
    write_text_atomic(geometry, radiograph.views.to_json() + "\n")
    return [*images, preview, geometry]


def _remove_former(folder: Path, names: Sequence[str]) -> None:
    """Remove an old geometry, which would vouch for a mixture, and its X-rays but for the views `names`."""
    geometry = folder / "geometry.json"
    if not geometry.is_file():
        return
    former = [name for name in read_geometry(geometry).names if _FILE_NAME.fullmatch(name) and name not in names]
    try:
        for path in (geometry, *(folder / f"{name}.nii.gz" for name in former)):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"'{path}' cannot be removed: {error.strerror}. Choose another folder.") from error


def _write_image(radiograph: Radiograph, view: int, path: Path) -> None:
    """Write one view; ITK does not notice a full disk, so the file is read back before it takes its name."""
    pixels = radiograph.images[view].detach().cpu().numpy()[None]
    image = sitk.GetImageFromArray(pixels)
    column_mm, row_mm = (float(np.linalg.norm(step[view])) for step in (radiograph.views.u_mm, radiograph.views.v_mm))
    image.SetSpacing((column_mm, row_mm, 1.0))
    image.SetMetaData("ITK_FileNotes", f"Line integrals. Made by {made_by()}")
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            whole = np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(temporary))), pixels)
        except RuntimeError:
            whole = False
        if not whole:
            raise ResourceError(f"'{path}' could not be written whole: is the disk full? Nothing was changed.")


def _figure(radiograph: Radiograph) -> Figure:
    """Draw all views in rows of at most four, bone bright, with the sides of the patient."""
    columns = min(4, len(radiograph.views))
    rows = -(-len(radiograph.views) // columns)
    figure = Figure(figsize=(3 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for view, (image, axis) in enumerate(zip(radiograph.images, axes, strict=False)):
        u_mm, v_mm = radiograph.views.u_mm[view], radiograph.views.v_mm[view]
        aspect = float(np.linalg.norm(v_mm) / np.linalg.norm(u_mm))
        axis.imshow(image.detach().cpu().numpy(), cmap="gray", aspect=aspect)
        axis.set_title(radiograph.views.names[view], fontsize=9)
        for side, x, y, across, along in (
            (-u_mm, 0.01, 0.5, "left", "center"), (u_mm, 0.99, 0.5, "right", "center"),
            (-v_mm, 0.5, 0.99, "center", "top"), (v_mm, 0.5, 0.01, "center", "bottom"),
        ):  # fmt: skip
            style = {"color": "#ffd98a", "fontsize": 9, "transform": axis.transAxes}
            axis.text(x, y, letters(side), ha=across, va=along, **style)
    return figure
