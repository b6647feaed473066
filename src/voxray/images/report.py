"""What went in, what was assumed and what came out, as JSON."""

import hashlib
import math
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, JsonValue
from torch import Tensor

from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.images.atomic import refuse_existing, write_text_atomic
from voxray.images.disclaimer import DISCLAIMER
from voxray.images.quality import Quality, Strict
from voxray.images.types import Kind, Radiograph
from voxray.images.xray import ReadOptions

Sha256 = str

_ENDING = r"\.(dcm|dicom|png|jpe?g|tiff?|nii(\.gz)?|mha|mhd|nrrd|zip|json|csv)$"
# What may stand in quotes; an apostrophe inside a word (or escaped there) does not end it. The closing quote is only
# looked at, for it may open the next, and no two branches take the same character: the time is linear in the text.
_QUOTED = re.compile(r"""(?<![\w\\])(?:'((?:[^'\n]|(?<=[\w\\])'(?=\w))*)(?='(?!\w))|"([^"\n]*)(?="(?!\w)))""")
# With a slash or an ending.
_PATH = re.compile(r"[/\\]|\.\w{2,5}$")
# Base names of files that say nothing of a patient, but stand in voxray's messages: views, options, plain words.
_PLAIN_STEMS = {
    "pa", "ap", "lateral", "left_lateral", "right_lateral", "left", "right", "frontal", "front",
    "views", "view", "geometry", "image", "x-ray", "xray", "chest", "body",
    *(field.name for field in fields(ReadOptions)), *(field.name.replace("_", "-") for field in fields(ReadOptions)),
}  # fmt: skip


class Software(Strict):
    """What the result was computed with; filled in by itself."""

    voxray: str = Field(default_factory=lambda: version("voxray"))
    python: str = Field(default_factory=platform.python_version)
    torch: str = Field(default_factory=lambda: str(torch.__version__))
    numpy: str = Field(default_factory=lambda: version("numpy"))
    platform: str = Field(default_factory=lambda: f"{platform.system()} {platform.machine()}")


class InputImage(Strict):
    """One X-ray image and the view that it was taken for."""

    view: str
    file: str | None = Field(description="base name, or the first 16 digits of its SHA-256 and the ending")
    sha256: Sha256 | None = Field(description="of the file's content, or of the zip that it lies in")
    kind: Kind
    shape: tuple[int, int] = Field(description="rows, columns")
    pixel_mm: tuple[float, float] = Field(description="distance of neighbouring rows and columns")
    patient_id: str | None = Field(default=None, description="only where the user asked for it")
    patient_name: str | None = Field(default=None, description="only where the user asked for it")


class Grid(Strict):
    """The grid of the result."""

    shape: tuple[int, int, int] = Field(description="voxels along z, y, x")
    spacing_mm: tuple[float, float, float] = Field(description="along x, y, z")
    affine: list[list[float]] = Field(description="from (i, j, k, 1) to patient LPS, mm")

    @classmethod
    def of(cls, grid: VolumeGrid) -> "Grid":
        """Describe a `VolumeGrid`."""
        x_mm, y_mm, z_mm = (float(spacing) for spacing in grid.spacing_mm)
        return cls(shape=grid.shape, spacing_mm=(x_mm, y_mm, z_mm), affine=grid.affine.tolist())


class Residual(Strict):
    """How far the re-projection of the result is from one X-ray, in the unit of the X-ray."""

    view: str
    rms: float = Field(ge=0, description="root of the mean squared difference")
    relative: float = Field(ge=0, description="rms over the root mean square of the X-ray")


class Model(Strict):
    """What reconstructed."""

    name: str
    recipe: dict[str, JsonValue]
    weights_sha256: Sha256 | None


class Report(Strict):
    """Everything that is needed to understand a result, and to repeat it.

    Nothing in it tells who the patient is, unless the user asked for that: `describe_inputs` sees to inputs,
    `hide_names` to warnings and other text.
    """

    schema_version: Literal[1] = 1
    disclaimer: str = DISCLAIMER
    software: Software = Field(default_factory=Software)
    model: Model
    inputs: list[InputImage]
    geometry: dict[str, JsonValue] = Field(description="as `ViewGeometry.to_json` writes it")
    grid: Grid
    seed: int | None
    device: str
    seconds: dict[str, float] = Field(default_factory=dict, description="wall time of each phase")
    peak_memory_mb: dict[str, float] = Field(default_factory=dict, description="of each device")
    warnings: list[str] = Field(default_factory=list, description="what was assumed on the user's behalf")
    residuals: list[Residual] = Field(default_factory=list)
    quality: Quality | None = Field(default=None, description="of chests: whether the result can be trusted")
    method: dict[str, JsonValue] = Field(default_factory=dict, description="what the method has to say")

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the report as JSON: whole, or not at all.

        Raises:
            InputError: if `path` exists and may not be overwritten, or cannot be written.
            ResourceError: if the disk is full.
        """
        refuse_existing(path, overwrite)
        write_text_atomic(path, self.model_dump_json(indent=1) + "\n")


def describe_inputs(radiograph: Radiograph, keep_phi: bool = False) -> list[InputImage]:
    """Describe each X-ray and the file that it came from; who the patient is only with `keep_phi`.

    Raises:
        InputError: if a file that was read cannot be read any more.
    """
    origins = radiograph.origins or (None,) * len(radiograph.images)
    views, described = radiograph.views, []
    for i, (origin, name) in enumerate(zip(origins, views.names, strict=True)):
        described.append(
            InputImage(
                view=name,
                file=None if origin is None else origin.path.name if keep_phi else hashed_name(origin.path),
                sha256=_content_hash(origin.path) if origin is not None else None,
                kind=radiograph.kind,
                shape=views.shapes[i],
                pixel_mm=(math.hypot(*views.v_mm[i]), math.hypot(*views.u_mm[i])),
                patient_id=origin.patient_id if origin is not None and keep_phi else None,
                patient_name=origin.patient_name if origin is not None and keep_phi else None,
            )
        )
    return described


def _content_hash(path: Path) -> Sha256 | None:
    """Return the hash of a file, or of the zip that holds it."""
    file = next((place for place in (path, path.parent) if place.is_file()), None)
    return sha256_file(file) if file is not None else None


def on_xray_scale(radiograph: Radiograph, reprojections: Sequence[Float[Tensor, "_ _"]]) -> list[Tensor]:
    """Return the re-projections of a result in the unit of the X-rays.

    They are returned as they are, but for X-rays of the kind `display`, whose scale is unknown: those are
    matched to the X-ray by a straight line (least squares; our choice, a curve would hide differences).

    Raises:
        InputError: if the number of images or a shape is another, or the X-rays are photon counts.
    """
    if radiograph.kind == "counts":
        raise InputError("Photon counts are not compared with re-projections: turn them into line integrals first.")
    if len(reprojections) != len(radiograph.images):
        raise InputError(f"{len(radiograph.images)} X-rays, but {len(reprojections)} re-projections.")
    scaled = []
    for name, xray, again in zip(radiograph.views.names, radiograph.images, reprojections, strict=True):
        if xray.shape != again.shape:
            raise InputError(
                f"The X-ray of view {name!r} has {tuple(xray.shape)} pixels (rows, columns), but its "
                f"re-projection {tuple(again.shape)}."
            )
        if radiograph.kind == "display":
            spread, xray = again - again.mean(), xray.to(again)
            slope = (spread * xray).sum() / spread.square().sum().clamp_min(1e-12)
            again = xray.mean() + slope * spread
        scaled.append(again)
    return scaled


def measure_residuals(radiograph: Radiograph, reprojections: Sequence[Float[Tensor, "_ _"]]) -> list[Residual]:
    """Compare the re-projection of a result with each X-ray, on the scale of the X-ray (`on_xray_scale`).

    Raises:
        InputError: if the number of images or a shape is another.
    """
    residuals = []
    scaled = on_xray_scale(radiograph, reprojections)
    for name, image, again in zip(radiograph.views.names, radiograph.images, scaled, strict=True):
        xray = image.detach().cpu().double()
        rms = float((again.detach().cpu().double() - xray).square().mean().sqrt())
        scale = float(xray.square().mean().sqrt())
        residuals.append(Residual(view=name, rms=rms, relative=rms / scale if scale > 0 else 0.0))
    return residuals


def hashed_name(path: Path) -> str:
    """Return 16 digits of the SHA-256 of a file's base name, and its ending, as in `9f86d081884c7d65.dcm`.

    Equal names have equal hashes, so that whoever has the files can tell which is which; a name that can be
    guessed can be found out.
    """
    ending = re.search(_ENDING, path.name.lower())
    digest = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:16]
    return digest + (ending[0] if ending else "")


def hide_names(text: str, radiograph: Radiograph) -> str:
    """Replace what may tell who the patient is in a message that is to be reported.

    Replaced by their hashes are the paths and base names of the X-rays (without their ending only where they are no
    view, such as `lateral`, option, or plain word), name and ID of the patient (where they are three characters or
    longer: a shorter one would stand everywhere), and whatever looks like a path in quotes, as voxray's messages write
    them. A name or ID counts where no letter or digit goes on before or after it, in capitals or not.
    """
    text = _QUOTED.sub(_hide_path, text)
    secrets: set[str] = set()
    for origin in radiograph.origins:
        stems = {origin.path.stem, origin.path.name.split(".")[0]}
        secrets |= {stem for stem in stems if stem.lower() not in _PLAIN_STEMS}
        secrets |= {str(origin.path), origin.path.name, origin.patient_name, origin.patient_id}
        secrets |= set(re.split(r"[\^= ]+", origin.patient_name))
    words = "|".join(re.escape(word) for word in sorted(secrets, key=len, reverse=True) if len(word) >= 3)
    if not words:
        return text
    whole = rf"(?<![^\W_])(?:{words})(?![^\W_])"
    return re.sub(whole, lambda match: hashed_name(Path(match[0])), text, flags=re.IGNORECASE)


def _hide_path(match: re.Match[str]) -> str:
    """Return a path in quotes as its hash; the closing quote is not part of the match."""
    quote, inner = match[0][0], match[1] or match[2] or ""
    return quote + (hashed_name(Path(inner)) if _PATH.search(inner) else inner)


def sha256_file(path: Path) -> Sha256:
    """Return the SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def peak_memory_mb() -> dict[str, float]:
    """Return the most memory that this process has held so far: `cpu`, and each CUDA device that it used."""
    peaks = {}
    if sys.platform != "win32":
        import resource

        # ru_maxrss counts KiB on Linux, and bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peaks["cpu"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            peaks[f"cuda:{device}"] = torch.cuda.max_memory_allocated(device) / 1e6
    return peaks
