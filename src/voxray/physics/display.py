"""From what a detector or a screen shows to line integrals."""

import warnings
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from voxray.errors import InputError, VoxrayWarning
from voxray.physics.attenuation import line_integrals_from_counts


def as_line_integrals(
    images: Sequence[Float[Tensor, "_ _"]], kind: str, expected: Sequence[Float[Tensor, "_ _"]]
) -> list[Float[Tensor, "_ _"]]:
    """Bring X-ray images to line integrals; says so (`VoxrayWarning`) where the scale is a guess.

    Line integrals stay as they are, and so do those that `voxray.intake` has estimated, of chests from front or side.
    The scale of other display values is unknown: it is taken to be linear, and the straight line is chosen by which the
    image's 5th and 95th percentiles become those of the line integrals of an average patient in the same view (our
    choice, and a rough one: it fixes neither thickness nor a vendor's look-up table).

    Args:
        images: one image (rows, columns) a view, bone high.
        kind: `line_integral`, `estimated` or `display`.
        expected: line integrals of an average patient in the same views.

    Raises:
        InputError: if the kind is another.
    """
    if kind in ("line_integral", "estimated"):
        return list(images)
    if kind != "display":
        raise InputError(f"Line integrals or display values are needed, not {kind!r}; see `counts_as_line_integrals`.")
    _warn(
        "The X-rays are grey values of unknown scale; each is matched by a straight line to what an average patient "
        "would show. HU are as rough as that."
    )
    return [_matched(image, guess) for image, guess in zip(images, expected, strict=True)]


def counts_as_line_integrals(counts: Sequence[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "_ _"]]:
    """Bring photon counts to line integrals; the brightest pixels (99.9th percentile) of each image are taken for air.

    That is said (`VoxrayWarning`).

    Raises:
        InputError: if an image shows no photons.
    """
    _warn("The X-rays are photon counts; the brightest pixels of each are taken to show air alone.")
    air = [float(_percentile(image, 0.999)) for image in counts]
    for number, photons in enumerate(air, start=1):
        if not photons > 0:
            raise InputError(f"X-ray {number} of {len(air)} shows no photons: counts are positive, air is bright.")
    return [line_integrals_from_counts(image, photons) for image, photons in zip(counts, air, strict=True)]


def _matched(image: Float[Tensor, "_ _"], expected: Float[Tensor, "_ _"]) -> Float[Tensor, "_ _"]:
    low, high = _percentile(image, 0.05), _percentile(image, 0.95)
    expected_low, expected_high = _percentile(expected, 0.05), _percentile(expected, 0.95)
    if not high > low:  # an image of one grey says nothing
        return expected_low.expand_as(image)
    return (expected_low + (image - low) * ((expected_high - expected_low) / (high - low))).clamp_min(0)


def _percentile(image: Float[Tensor, "_ _"], at: float) -> Float[Tensor, ""]:
    ordered = image.flatten().sort().values  # torch.quantile refuses large images
    return ordered[round(at * (len(ordered) - 1))]


def _warn(message: str) -> None:
    warnings.warn(message, VoxrayWarning, stacklevel=3)
