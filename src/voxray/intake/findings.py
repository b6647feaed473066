"""What was found in each X-ray before anything was reconstructed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

from voxray.errors import InputError
from voxray.intake.align import Correction
from voxray.intake.canvas import Family
from voxray.intake.look import Sighting
from voxray.intake.tone import ToneCurve

# Calibrated on 35 frontal CC BY radiographs of chests (0.58 to 0.77) and on projections of the training scans (frontal
# 0.84 and more; lateral 0.70 and more, but for a scan of 218 mm), against projections of abdomens (frontal up to 0.48,
# lateral up to 0.62) and pictures of other things (up to 0.48); see docs/real-xrays.md.
NO_CHEST = 0.52
UNUSUAL_CHEST: dict[Family, float] = {"frontal": 0.56, "lateral": 0.64}


class NoChestError(InputError):
    """An X-ray that does not look like one of the chest."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found in one X-ray.

    Attributes:
        view: its name.
        family: whether it is from front or back, or from a side.
        sighting: the chest.
        curve: from display values to line integrals.
        masked: part of the image that is border or letters.
        correction: by the other view and the result, in geometry and curve already; None where nobody asked.
    """

    view: str
    family: Family
    sighting: Sighting
    curve: ToneCurve
    masked: float
    correction: Correction | None = None

    def times(self, factor: float) -> "Finding":
        """Return the finding with all line integrals multiplied."""
        so = self.correction or Correction()
        corrected = replace(so, factor=so.factor + log(factor))
        return replace(self, curve=self.curve.times(factor), correction=corrected)


def refuse_others(findings: Sequence[Finding], files: Sequence[str]) -> None:
    """Refuse X-rays that show no chest.

    Raises:
        NoChestError: naming the first of them.
    """
    for finding, file in zip(findings, files, strict=True):
        best = finding.sighting.best
        if best < NO_CHEST:
            raise NoChestError(
                f"{file!r} does not look like a chest X-ray ({finding.view}): its likeness to the scans that the model "
                f"was trained on is {best:.2f}, that of chests is {NO_CHEST:g} or more. "
                "It must stand upright. If it is a chest all the same, say --force-chest."
            )
