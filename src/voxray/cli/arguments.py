"""Arguments that several commands share, and how their text is read."""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from typer import Option

from voxray.errors import InputError

if TYPE_CHECKING:
    from voxray.geometry import ViewGeometry
    from voxray.images import CTVolume
    from voxray.images.xray import ReadOptions

Device = Annotated[str, Option(help="auto, cpu, cuda, or cuda:N.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace results that are there already.")]
Seed = Annotated[int, Option(min=0, help="Of all that is random; the same seed gives the same result.")]
Overrides = Annotated[
    list[str] | None,
    Option("--set", metavar="A.B=VALUE", help="Change a setting of the recipe; give it again for more."),
]
GeometryFile = Annotated[
    Path | None, Option("--geometry", help="JSON with source and detector of each view (docs/geometry.md).")
]


@dataclass(frozen=True)
class XrayArguments:
    """How X-rays are read; the fields of `ReadOptions`."""

    setup: Annotated[
        str, Option(help="What to take where tags say nothing: the preset chest, x2ct, perx2ct or xraysyn.")
    ] = "chest"
    pixel_mm: Annotated[float | None, Option(help="Distance of neighbouring pixels on the detector, mm.")] = None
    sdd_mm: Annotated[float | None, Option(help="Distance from source to detector, mm.")] = None
    sid_mm: Annotated[float | None, Option(help="Distance from source to the middle of the body, mm.")] = None
    lateral_anterior: Annotated[
        Literal["right", "left"] | None, Option(help="Side of a lateral image that shows the front of the patient.")
    ] = None
    strict: Annotated[bool, Option("--strict", help="Refuse instead of assuming anything.")] = False
    invert: Annotated[bool, Option("--invert", help="Turn grey values round: bone must be bright.")] = False
    frame: Annotated[int | None, Option(help="Which frame of a multi-frame DICOM file, from 1.")] = None
    allow_mixed: Annotated[
        bool, Option("--allow-mixed", help="Accept images of different patients, studies or dates.")
    ] = False
    force_modality: Annotated[
        bool, Option("--force-modality", help="Accept DICOM files of another modality than CR, DX, RF, XA.")
    ] = False
    force_chest: Annotated[bool, Option("--force-chest", help="Accept images that do not look like chest X-rays.")] = (
        False
    )
    align: Annotated[
        bool, Option("--align/--no-align", help="Correct estimates of size, place and tones by what views share.")
    ] = True

    def options(self) -> "ReadOptions":
        """Return the checked options."""
        from voxray.geometry.presets import setup_named
        from voxray.images.xray import ReadOptions

        setup_named(self.setup)  # refused even where the tags say everything
        return ReadOptions(**vars(self))


@dataclass(frozen=True)
class CTArguments:
    """How a CT is read; the keywords of `read_ct`."""

    series: Annotated[str | None, Option(help="SeriesInstanceUID, where a DICOM folder holds several.")] = None
    assume_ras: Annotated[
        bool, Option("--assume-ras", help="Read files without orientation as right, front, head.")
    ] = False
    resample_tilt: Annotated[bool, Option("--resample-tilt", help="Accept a tilted gantry; the scan is resampled.")] = (
        False
    )
    force_modality: Annotated[
        bool, Option("--force-modality", help="Accept a DICOM series of another modality than CT.")
    ] = False

    def read(self, path: Path) -> "CTVolume":
        """Read the CT at `path`."""
        from voxray.images.read_ct import read_ct

        return read_ct(path, **vars(self))


def flattened(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn every argument of a command that is a dataclass into one option a field, which is how Typer wants them."""
    signature = inspect.signature(command)
    groups: dict[str, type[Any]] = {
        p.name: p.annotation
        for p in signature.parameters.values()
        if isinstance(p.annotation, type) and is_dataclass(p.annotation)
    }
    flat = [p for p in signature.parameters.values() if p.name not in groups]
    for group in groups.values():
        hints = get_type_hints(group, include_extras=True)
        flat += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields(group)
        ]

    def run(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        return command(**values)

    flat = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in flat]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in flat}
    run.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    return run


def split_names(text: str, option: str) -> tuple[str, ...]:
    """Read `pa,lateral` as names.

    Raises:
        InputError: if one of them is empty.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"{option} takes names with commas between them, for instance pa,lateral; not {text!r}.")
    return names


def split_numbers(text: str, count: int, option: str) -> tuple[float, ...]:
    """Read `1,2.5,-3` as `count` numbers.

    Raises:
        InputError: if there are more or fewer, or one is no number.
    """
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise InputError(f"{option} takes {count} numbers with commas between them, not {text!r}.")
    return numbers


def views_or_count(text: str) -> tuple[str, ...] | int:
    """Read `pa,lateral` as names, and a whole number as so many views, spread evenly over 180 degrees from PA.

    Raises:
        InputError: if a name is empty.
    """
    return int(text) if text.isascii() and text.isdigit() else split_names(text, "--views")


def read_geometry(path: Path) -> "ViewGeometry":
    """Read a geometry file (`images.read_geometry`, which loads torch: not for --help)."""
    from voxray.images import read_geometry as file

    return file.read_geometry(path)


def check_output(path: Path, overwrite: bool, kind: Literal["folder", "file"] = "folder") -> None:
    """Refuse an output before anything is computed, where it exists or could not be written.

    Raises:
        InputError: if it exists and may not be overwritten or is of the other kind, or its nearest folder cannot be
            written to.
    """
    from voxray.images.atomic import refuse_existing

    try:
        refuse_existing(path, overwrite)
    except InputError as error:
        raise InputError(f"'{path}' exists already: choose another name, or say --overwrite.") from error
    if path.exists() and path.is_dir() != (kind == "folder"):
        raise InputError(f"'{path}' is no {kind}; choose another name.")
    nearest = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"'{path}' cannot be written: '{nearest}' is no folder that you may write to.")


def make_folder(path: Path) -> None:
    """Make a folder and those above it (`images.atomic`, which loads torch: not for --help)."""
    from voxray.images import atomic

    atomic.make_folder(path)


def need_one(options: Sequence[str], given: Sequence[bool]) -> None:
    """Refuse options that exclude each other.

    Raises:
        InputError: if more than one is given.
    """
    if sum(given) > 1:
        raise InputError(f"Give only one of {', '.join(options)}.")
