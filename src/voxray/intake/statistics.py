"""What chests look like in X-rays: statistics of the training scans, stored with the package."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Bool, Float

# The region that chests are compared in: a square about the isocentre. Ours.
SIDE_MM, STEP_MM = 300.0, 10.0
SHAPE = (round(SIDE_MM / STEP_MM),) * 2
# Quantiles of the line integrals that a tone curve goes through.
LEVELS = (0.03, 0.5, 0.97)
FILE = "chests.json"


@dataclass(frozen=True, eq=False)
class FamilyStatistics:
    """Frontal or lateral projections of the training scans about their isocentres, in the preset `chest`.

    Attributes:
        contrast: mean local contrast (`intake.contrast`), on `SHAPE` places.
        inside: where every scan has some of the body.
    """

    contrast: Float[np.ndarray, "rows columns"]
    inside: Bool[np.ndarray, "rows columns"]


@cache
def chest_statistics() -> dict[str, FamilyStatistics]:
    """Return the statistics of `frontal` and `lateral` views; `intake.measure` made the file that they come from."""
    text = resources.files("voxray.intake").joinpath(FILE).read_text(encoding="utf-8")
    return {
        family: FamilyStatistics(
            np.array(values["contrast"]) / 100,
            np.array(values["inside"], dtype=bool),
        )
        for family, values in json.loads(text)["views"].items()
    }
