"""One X-ray and what is looked for in it: the chest, and the tones of it."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage

from voxray.errors import VoxrayWarning
from voxray.geometry import FloatArray, ViewGeometry
from voxray.images.types import Known
from voxray.intake.canvas import Canvas, checked_family, lay_out
from voxray.intake.locate import Place, find_chest
from voxray.intake.statistics import SHAPE, STEP_MM, chest_statistics
from voxray.intake.tone import ToneCurve, match_tones

# The longer side of an image while the chest is looked for, in pixels; and a blur, in such pixels, without which ribs
# would alias on the grid of the statistics. Ours.
_PIXELS, _BLUR = 110, 1.3
# A size of pixels that tags say is believed if the chest is then as large as chests are, within this factor.
_BELIEVED = 1.33
# How much more an inverted image, and one that is mirrored, must look like a chest than the image itself.
_INVERTED, _MIRRORED = 0.05, 0.03
# The other family of views is asked only about images that look less like a chest than this.
_SURE = 0.65


@dataclass(frozen=True)
class Sighting:
    """Where the chest is in an X-ray, and how much that looks like one.

    Attributes:
        place: on the canvas of the geometry that the image was read with.
        sized: the size of its pixels is taken from the chest.
        faces_other_way: the image is shown from the other side than that geometry says.
        likeness: how much it looks like a chest in such a view, -1 to 1 (`Place.score`).
        inverted, mirrored, other_side: the same if it is inverted, if it is mirrored, and for the other family of views
            (None where nobody asked).
    """

    place: Place
    sized: bool
    faces_other_way: bool
    likeness: float
    inverted: float
    mirrored: float
    other_side: float | None

    @property
    def looks_inverted(self) -> bool:
        """Whether bone seems to be dark."""
        return self.inverted - _INVERTED > max(self.likeness, self.mirrored)

    @property
    def looks_mirrored(self) -> bool:
        """Whether left and right seem to be exchanged."""
        return not self.looks_inverted and self.mirrored - _MIRRORED > self.likeness

    @property
    def best(self) -> float:
        """How much the image looks like a chest, turned as it may be."""
        return max(self.likeness, self.mirrored, self.inverted - _INVERTED)


class Look:
    """An X-ray, made small.

    Args:
        image: bone high, without borders and letters.
        valid: where it is a measurement.
        views: the geometry of all views, as they were read.
        view: the number of this one; frontal or lateral.
        known: what is known of it.
        label: the file, for messages.
    """

    def __init__(
        self,
        image: Float[np.ndarray, "_ _"],
        valid: Bool[np.ndarray, "_ _"],
        views: ViewGeometry,
        view: int,
        known: Known,
        label: str,
    ) -> None:
        self._factors = [(-(-max(shape) // _PIXELS),) * 2 for shape in views.shapes]
        self._image = ndimage.gaussian_filter(_pooled(image, self._factors[view]), _BLUR)
        self._valid = _pooled(valid.astype(np.float64), self._factors[view]) > 0.5
        self._views, self._view, self._known, self.label = views.binned(self._factors), view, known, label
        self.family = checked_family(views, view)

    def find(self) -> Sighting:
        """Find the chest; says so (`VoxrayWarning`) where that overrules what was assumed, or said by tags."""
        known = self._known
        fixed = [1.0] if known.size == "user" or known.centre else None
        upright, mirrored = self._both(fixed)
        found, sized = max(upright[0], mirrored[0], key=lambda place: place.score), fixed is None
        if known.size == "tags" and sized:
            if 1 / _BELIEVED < found.scale < _BELIEVED:
                sized = False
                upright, mirrored = self._both([1.0])
            else:
                self._say(
                    f"the tags would make the chest in it {1 / found.scale:.2g} times as large as chests are; the "
                    "size of its pixels is taken from the chest instead"
                )
        turned = self.family == "lateral" and not known.facing and mirrored[0].score > upright[0].score + _MIRRORED
        if turned:
            upright, mirrored = mirrored, upright
            self._say("the front of the patient seems to be at the left of the image, and is taken to be there",
                      "--lateral-anterior")  # fmt: skip
        # Of the four ways to look at it the likeliest says where it is; a mirrored chest is mirrored where it stands.
        ways = (
            upright[0],
            mirrored[0],
            *(replace(way[1], score=way[1].score - _INVERTED) for way in (upright, mirrored)),
        )
        place = max(ways, key=lambda one: one.score)
        other = self._other_side() if place.score < _SURE else None
        inverted = max(upright[1].score, mirrored[1].score)
        return Sighting(place, sized, turned, upright[0].score, inverted, mirrored[0].score, other)

    def canvas(self, views: ViewGeometry, step_mm: tuple[float, float], shape: tuple[int, int]) -> Canvas:
        """Lay the image out about the isocentre, where `views` says that it is."""
        return lay_out(self._image, self._valid, views.binned(self._factors), self._view, step_mm, shape)

    def tones(self, views: ViewGeometry, line_integrals: FloatArray) -> ToneCurve:
        """Return the tone curve of the image, where `views` says that the chest is about the isocentre.

        Args:
            views: the geometry.
            line_integrals: at `LEVELS` of the pixels in the body.
        """
        canvas = self.canvas(views, (STEP_MM, STEP_MM), SHAPE)
        pixels = self._image[self._valid] if self._valid.any() else self._image.ravel()
        body = canvas.picture[canvas.seen & chest_statistics()[self.family].inside]
        return match_tones(body if len(body) else pixels, pixels, line_integrals)

    def _both(self, scales: list[float] | None) -> tuple[tuple[Place, Place], tuple[Place, Place]]:
        """Return the best places (as it is, inverted) as the image is shown, and mirrored."""
        contrast = chest_statistics()[self.family].contrast
        return self._found(contrast, scales), self._found(contrast[:, ::-1], scales)

    def _other_side(self) -> float:
        """Return the likeness to the other family of views."""
        contrast = chest_statistics()["lateral" if self.family == "frontal" else "frontal"].contrast
        return max(self._found(one, None)[0].score for one in (contrast, contrast[:, ::-1]))

    def _found(self, contrast: np.ndarray, scales: list[float] | None) -> tuple[Place, Place]:
        return find_chest(self._image, self._valid, self._views, self._view, contrast, scales)

    def _say(self, what: str, option: str = "--pixel-mm") -> None:
        warnings.warn(f"{self.label}: {what} ({option}).", VoxrayWarning, stacklevel=6)


def _pooled(image: np.ndarray, factor: tuple[int, int]) -> np.ndarray:
    return F.avg_pool2d(torch.from_numpy(image)[None], factor)[0].numpy()
