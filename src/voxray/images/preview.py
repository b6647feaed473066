"""One picture of a result: three planes, and every X-ray beside the re-projection of the result."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from voxray.images.atomic import atomic_path, refuse_existing
from voxray.images.disclaimer import SYNTHETIC, made_by
from voxray.images.report import measure_residuals, on_xray_scale
from voxray.images.types import CTVolume, Radiograph

# Grey value over HU: lung vessels, fat beside muscle, and bone in one picture; our choice.
TONES_HU = ([-1000.0, -700.0, -160.0, 160.0, 1000.0], [0.0, 0.2, 0.38, 0.72, 1.0])
MAX_VIEWS = 4
# Of the grey range of the X-ray; where the map of differences ends.
DIFFERENCE_LIMIT = 0.25

Image = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]

_DIFFERENCE = LinearSegmentedColormap.from_list(
    "difference", ["#a8dcff", "#2f7fc4", "#12395c", "#0b0b0d", "#6b2014", "#d9573a", "#ffd0b0"]
)
_TILE_IN, _GAP_IN, _CAPTION_IN, _MARGIN_IN, _LINE_IN = 2.4, 0.06, 0.22, 0.12, 0.14
# Characters of a line of the verdict.
_VERDICT_COLUMNS = 125


@dataclass(frozen=True)
class Picture:
    """A 2D image with its place in the patient.

    Attributes:
        pixels: (rows, columns), the first row at the top.
        right, down: steps from a pixel to the next in LPS, mm.
        caption: what stands above it.
        style: how `Axes.imshow` colours it.
    """

    pixels: Image
    right: Vector
    down: Vector
    caption: str
    style: dict[str, Any]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        rows, columns = self.pixels.shape
        return columns * float(np.linalg.norm(self.right)), rows * float(np.linalg.norm(self.down))


def write_preview(
    path: Path,
    volume: CTVolume,
    radiograph: Radiograph,
    reprojections: Sequence[Float[Tensor, "_ _"]],
    *,
    truth: CTVolume | None = None,
    std: CTVolume | None = None,
    title: str = "",
    verdict: str = "",
    overwrite: bool = False,
) -> None:
    """Write one PNG that shows a result beside what it was made from.

    On top the axial, coronal and sagittal plane through the middle of the volume, as radiologists look at them
    (the patient's right at the left; the front at the left of the sagittal plane), then the truth and the
    standard deviation where they are given; an oblique grid is shown along its own axes. Beneath, each X-ray
    (as it is; of more than four, four of them) with bone bright, the re-projection on the same grey scale,
    and their difference. The letters say where right, left, front (A), back (P), head and feet are.

    Args:
        path: the PNG file.
        volume: the result.
        radiograph: the X-rays; line integrals or display values.
        reprojections: the re-projection of the result for each view, in the unit of the X-rays; for the kind
            `display`, whose scale is unknown, it is matched to the X-ray by a straight line (least squares).
        truth: the true CT, if it is known.
        std: standard deviation of the result, in HU.
        title: stands on top.
        verdict: stands beneath it, in as many lines as it takes.
        overwrite: replace a file that exists already.

    Raises:
        InputError: if re-projections and X-rays do not fit, the file exists, or its folder cannot be used.
        ResourceError: if the disk is full.
    """
    refuse_existing(path, overwrite)
    rows = [anatomy(volume, "Reconstruction")]
    if truth is not None:
        rows.append(anatomy(truth, "Truth"))
    if std is not None:
        highest = max(float(np.percentile(std.hu.detach().cpu().numpy(), 99.5)), 1.0)
        label = f"Standard deviation, 0 to {highest:.0f} HU"
        rows.append(planes(std, label, {"cmap": "inferno", "vmin": 0.0, "vmax": highest}))
    rows += comparisons(radiograph, reprojections)
    figure = _draw(rows, title, wrap(verdict, _VERDICT_COLUMNS))
    with atomic_path(path) as temporary:
        metadata = {"Software": made_by(), "Description": SYNTHETIC}
        figure.savefig(temporary, format="png", dpi=150, metadata=metadata)


def anatomy(volume: CTVolume, label: str) -> list[Picture]:
    """Show the planes of a CT in grey, by `TONES_HU`."""
    pictures = planes(volume, label, {"cmap": "gray", "vmin": 0.0, "vmax": 1.0})
    return [replace(picture, pixels=np.interp(picture.pixels, *TONES_HU).astype(np.float32)) for picture in pictures]


def planes(volume: CTVolume, label: str, style: dict[str, Any]) -> list[Picture]:
    """Cut the axial, coronal and sagittal plane through the middle, turned as radiologists look at them."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(volume.grid.direction.ravel().tolist())
    axes = [next(axis for axis in range(3) if code[axis] in ends) for ends in ("LR", "PA", "SI")]
    signs = [1 if code[axis] in "LPS" else -1 for axis in axes]
    left, back, head = (volume.grid.affine[:3, axis] * sign for axis, sign in zip(axes, signs, strict=True))
    hu = volume.hu.detach().cpu().numpy().transpose([2 - axis for axis in reversed(axes)])
    hu = hu[:: signs[2], :: signs[1], :: signs[0]]
    k, j, i = (n // 2 for n in hu.shape)
    return [
        Picture(hu[k], left, back, f"{label}: axial", style),
        Picture(hu[::-1, j], left, -head, "coronal", style),
        Picture(hu[::-1, :, i], back, -head, "sagittal", style),
    ]


def comparisons(radiograph: Radiograph, reprojections: Sequence[Float[Tensor, "_ _"]]) -> Iterator[list[Picture]]:
    """Show X-ray, re-projection and difference of each view, of at most `MAX_VIEWS` spread over all views."""
    residuals = measure_residuals(radiograph, reprojections)
    scaled, views = on_xray_scale(radiograph, reprojections), radiograph.views
    for view in np.linspace(0, len(views) - 1, min(len(views), MAX_VIEWS)).round().astype(int):
        xray, again = (image.detach().cpu().numpy() for image in (radiograph.images[view], scaled[view]))
        low, high = np.percentile(xray, (0.5, 99.5))
        high = max(high, low + 1e-6)
        style: dict[str, Any] = {"cmap": "gray", "norm": Normalize(low, high)}
        limit = DIFFERENCE_LIMIT * (high - low)
        signed = {"cmap": _DIFFERENCE, "vmin": -limit, "vmax": limit}
        residual = residuals[view]
        number = f"X-ray {view + 1} of {len(views)}: " if len(views) > MAX_VIEWS else "X-ray: "
        again_label = "re-projection (matched)" if radiograph.kind == "display" else "re-projection"
        difference = f"difference, ±{limit:.2g} (RMS {residual.rms:.2g} = {100 * residual.relative:.1f} %)"
        right, down = views.u_mm[view], views.v_mm[view]
        yield [
            Picture(xray, right, down, number + views.names[view], style),
            Picture(again, right, down, again_label, style),
            Picture(again - xray, right, down, difference, signed),
        ]


def _draw(rows: Sequence[Sequence[Picture]], title: str, verdict: Sequence[str]) -> Figure:
    top = (0.32 if title else 0.04) + _LINE_IN * len(verdict)
    width = 2 * _MARGIN_IN + 3 * _TILE_IN + 2 * _GAP_IN
    height = top + len(rows) * (_TILE_IN + _CAPTION_IN) + 0.3
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    for r, row in enumerate(rows):
        half_mm = max(max(picture.size_mm) for picture in row) / 2
        for c, picture in enumerate(row):
            left = _MARGIN_IN + c * (_TILE_IN + _GAP_IN)
            bottom = height - top - (r + 1) * (_TILE_IN + _CAPTION_IN)
            box = (left / width, bottom / height, _TILE_IN / width, _TILE_IN / height)
            _draw_tile(figure.add_axes(box), picture, half_mm)
    left, bottom = _MARGIN_IN / width, 0.1 / height
    figure.text(left, 1 - 0.1 / height, title, fontsize=10, weight="bold", va="top", color="#1c1c22")
    below = (1 - (0.3 if title else 0.04) / height) if verdict else 0.0
    figure.text(left, below, "\n".join(verdict), fontsize=7.5, va="top", color="#33333c")
    footer = f"{SYNTHETIC}. Made by {made_by()}."
    figure.text(left, bottom, footer, fontsize=7, weight="bold", va="bottom", color="#a02020")
    legend = "Difference: red where the re-projection is higher, blue where it is lower"
    figure.text(1 - left, bottom, legend, fontsize=7, ha="right", va="bottom", color="#33333c")
    return figure


def _draw_tile(axes: Axes, picture: Picture, half_mm: float) -> None:
    width, height = picture.size_mm
    extent = (-width / 2, width / 2, height / 2, -height / 2)
    axes.imshow(picture.pixels, extent=extent, interpolation="bicubic", **picture.style)
    axes.set(xlim=(-half_mm, half_mm), ylim=(half_mm, -half_mm), xticks=[], yticks=[], facecolor="black")
    axes.spines[:].set_visible(False)
    axes.set_title(picture.caption, fontsize=7.5, loc="left", pad=2.5, color="#33333c")
    outline = [withStroke(linewidth=1.8, foreground="black")]
    style: dict[str, Any] = {
        "fontsize": 7.5, "color": "#ffd98a", "transform": axes.transAxes, "path_effects": outline,
    }  # fmt: skip
    right, down = picture.right, picture.down
    axes.text(0.015, 0.5, letters(-right), ha="left", va="center", **style)
    axes.text(0.985, 0.5, letters(right), ha="right", va="center", **style)
    axes.text(0.5, 0.985, letters(-down), ha="center", va="top", **style)
    axes.text(0.5, 0.015, letters(down), ha="center", va="bottom", **style)


def letters(direction: Vector) -> str:
    """Name a direction in the patient by R, L, A, P, H, F; two or three letters (largest first) if it is oblique.

    A part under sin 20 degrees is not named (our choice: DICOM's PatientOrientation, PS3.3 C.7.6.1.1.1, leaves
    open where an axis begins to be oblique).
    """
    unit = direction / np.linalg.norm(direction)
    ends = ("RL", "AP", "FH")
    return "".join(
        ends[axis][int(unit[axis] > 0)] for axis in np.argsort(-abs(unit)) if abs(unit[axis]) > np.sin(np.deg2rad(20))
    )
