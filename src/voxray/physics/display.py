"""From what a detector or a screen shows to line integrals."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from voxray.physics.attenuation import line_integrals_from_counts


def as_line_integrals(
    image: Float[Tensor, "rows columns"], kind: str, expected: Float[Tensor, "rows columns"]
) -> Float[Tensor, "rows columns"]:
    """Bring an X-ray image to line integrals.

    Line integrals stay as they are. Of photon counts, the brightest pixels (99.9th percentile) are taken to be air.
    The scale of display values is unknown: it is taken to be linear, and the straight line is chosen by which the
    image's 5th and 95th percentiles become those of the line integrals of an average patient in the same view (our
    choice, and a rough one: it fixes neither thickness nor a vendor's look-up table).

    Args:
        image: one view, of the kind `line_integral`, `counts` or `display` (bone high).
        kind: see there.
        expected: line integrals of an average patient in this view.
    """
    if kind == "line_integral":
        return image
    if kind == "counts":
        return line_integrals_from_counts(image, float(_percentiles(image, [0.999])[0]))
    low, high = _percentiles(image, [0.05, 0.95])
    expected_low, expected_high = _percentiles(expected, [0.05, 0.95])
    scale = (expected_high - expected_low) / (high - low).clamp_min(1e-6)
    return (expected_low + (image - low) * scale).clamp_min(0)


def _percentiles(image: Float[Tensor, "rows columns"], at: Sequence[float]) -> Float[Tensor, " at"]:
    ordered = image.flatten().sort().values  # torch.quantile refuses large images
    places = [round(q * (len(ordered) - 1)) for q in at]
    return torch.stack([ordered[place] for place in places])
