"""Read where source and detector stood."""

from pathlib import Path

from voxray.errors import GeometryError
from voxray.geometry import ViewGeometry
from voxray.images.reading import check_file, reading


def read_geometry(path: Path) -> ViewGeometry:
    """Read a geometry file, as `ViewGeometry.to_json` writes it.

    Raises:
        InputError: if it cannot be read, or is none; the message names the file.
    """
    check_file(path)
    with reading(path):
        text = path.read_bytes()
    try:
        return ViewGeometry.from_json(text)
    except GeometryError as error:
        raise GeometryError(f"{str(path)!r}: {error}") from error
