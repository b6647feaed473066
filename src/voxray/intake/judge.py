"""Whether a reconstructed chest can be trusted, in plain words."""

from collections.abc import Sequence
from math import exp

import numpy as np
from jaxtyping import Float
from torch import Tensor

from voxray.images import CTVolume, Radiograph
from voxray.images.quality import Quality, ViewCorrection, ViewQuality
from voxray.intake.align import Correction
from voxray.intake.anatomy import ChestAnatomy, chest_anatomy
from voxray.intake.canvas import family_of
from voxray.intake.findings import UNUSUAL_CHEST, Finding
from voxray.intake.masses import agreement, row_masses

# Ours: what a result must do, and what adults are like.
_CORRELATION, _LUNGS_LITRES = 0.9, (1.5, 8.5)
# Masses of projections of one CT correlate by 0.79 or more, of two different ones by less than 0.7 in 86 of 100 pairs.
# With a random tone curve, and framing that is off by 10 mm and 5 %, those of one CT fall below 0 in 10 of 100, of
# two in 52.
_AGREEMENT, _ROUGH_AGREEMENT = 0.7, 0.0


def judge(
    xrays: Radiograph,
    volume: CTVolume,
    reprojections: Sequence[Float[Tensor, "_ _"]],
    findings: Sequence[Finding] = (),
) -> Quality:
    """Judge a result by what was found in the X-rays, by how it explains them, and by its anatomy.

    Args:
        xrays: line integrals, as the model saw them.
        volume: the result, of a chest.
        reprojections: of the result.
        findings: where the X-rays were grey values.
    """
    views = xrays.views
    correlations = {
        name: _correlation(image.numpy(), again.numpy(), xrays.valid[n].numpy() if xrays.valid else None)
        for n, (name, image, again) in enumerate(zip(views.names, xrays.images, reprojections, strict=True))
    }
    agreed, anatomy = _agreement(xrays), chest_anatomy(volume)
    reasons = [reason for finding in findings for reason in _doubts(finding)]
    reasons += [
        f"the result explains the X-ray {name!r} poorly (correlation {value:.2f})"
        for name, value in correlations.items()
        if value < _CORRELATION
    ]
    if agreed is not None and agreed < (_ROUGH_AGREEMENT if xrays.rough else _AGREEMENT):
        reasons.append(f"the two views do not look like the same chest (their masses correlate by {agreed:.2f})")
    reasons += _implausible(anatomy)
    by_view = {finding.view: finding for finding in findings}
    return Quality(
        verdict="doubtful" if reasons else "plausible",
        reasons=reasons,
        views=[_view(name, value, by_view.get(name)) for name, value in correlations.items()],
        mass_agreement=agreed,
        lungs_litres=round(anatomy.lungs_litres, 2),
        heart_left=anatomy.heart_left,
        liver_right=anatomy.liver_right,
    )


def _view(name: str, correlation: float, finding: Finding | None) -> ViewQuality:
    if finding is None:
        return ViewQuality(view=name, correlation=correlation)
    return ViewQuality(
        view=name,
        correlation=correlation,
        likeness=finding.sighting.likeness,
        masked=finding.masked,
        curve=finding.curve.points(),
        correction=_correction(finding.correction) if finding.correction is not None else None,
    )


def _correction(found: Correction) -> ViewCorrection:
    return ViewCorrection(size=exp(found.size), up_mm=found.up_mm, factor=exp(found.factor), bend=found.bend)


def _doubts(finding: Finding) -> list[str]:
    """Say what is odd about an X-ray."""
    seen, name = finding.sighting, finding.view
    if seen.looks_inverted:
        return [f"the X-ray {name!r} looks inverted: bone should be bright (--invert turns it round)"]
    doubts = []
    if seen.other_side is not None and seen.other_side > seen.best + 0.1:
        doubts.append(f"the X-ray {name!r} looks as if it were taken from another side (--views)")
    elif seen.best < UNUSUAL_CHEST[finding.family]:
        doubts.append(f"the X-ray {name!r} looks little like a chest (likeness {seen.best:.2f})")
    if seen.looks_mirrored:
        doubts.append(f"left and right seem to be exchanged in the X-ray {name!r}")
    return doubts


def _implausible(anatomy: ChestAnatomy) -> list[str]:
    """Say what is odd about a result."""
    low, high = _LUNGS_LITRES
    odd = []
    if not low <= anatomy.lungs_litres <= high:
        odd.append(f"the lungs of the result hold {anatomy.lungs_litres:.1f} litres")
    if anatomy.heart_left is False:
        odd.append("the heart of the result is on the right")
    if anatomy.liver_right is False:
        odd.append("the liver of the result is on the left")
    return odd


def _agreement(xrays: Radiograph) -> float | None:
    """Return how well the masses in the rows of a frontal and a lateral view agree."""
    views = xrays.views
    families = [family_of(views, n) for n in range(len(views))]
    if "frontal" not in families or "lateral" not in families:
        return None
    first, second = (
        row_masses(xrays.images[n].numpy().astype(np.float64), views, n)
        for n in (families.index("frontal"), families.index("lateral"))
    )
    return agreement(first, second)


def _correlation(xray: np.ndarray, again: np.ndarray, valid: np.ndarray | None) -> float:
    """Return the normalised correlation of two images over what is valid; 0 where either is even."""
    one, other = (image[valid] if valid is not None else image.ravel() for image in (xray, again))
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / norm) if norm > 0 else 0.0
