"""Makes the statistics of chests that come with voxray, from a store of CT scans.

    python -m voxray.intake.measure STORE src/voxray/intake/chests.json

STORE is made by `voxray prepare` of scans whose licence allows it; its split `train` is used, and nothing else.
"""

import json
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Bool, Float

from voxray.data.store import Case, Store
from voxray.geometry import ViewGeometry
from voxray.images.atomic import write_text_atomic
from voxray.intake.canvas import Canvas, lay_out
from voxray.intake.contrast import local_contrast
from voxray.intake.statistics import SHAPE, STEP_MM
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

# Rays near the end of a scan miss a part of the body.
_END_MM = 20.0
# As wide as the detector's field of view; local contrast needs what is around, too.
_WIDE = (40, 40)
# Line integrals from here on are body: 26 mm of water.
_BODY = 0.5

Picture = Float[np.ndarray, "rows columns"]


def measure(cases: list[Case]) -> dict[str, object]:
    """Return what is stored of some scans: numbers with the digits that they are good for.

    Args:
        cases: chests, without couch.
    """
    views = ViewGeometry.biplanar("pa", "left").resized([(128, 128)] * 2)
    families: dict[str, list[Canvas]] = {"frontal": [], "lateral": []}
    for case in cases:
        grid = case.scan.grid.shifted(-case.isocentre_mm)
        images = Projector(grid, views).forward(hu_to_mu(case.scan.hu))
        low, high = grid.corners_mm()[:, 2].min(), grid.corners_mm()[:, 2].max()
        for view, (image, canvases) in enumerate(zip(images, families.values(), strict=True)):
            heights = (views.isocentre()[2] - views.pixels_mm(view)[..., 2]) * -1550 / 1800
            valid = (heights > low + _END_MM) & (heights < high - _END_MM)
            canvases.append(lay_out(image.numpy(), valid, views, view, (STEP_MM, STEP_MM), _WIDE))
    return {"views": {family: _numbers(canvases) for family, canvases in families.items()}}


def _numbers(canvases: list[Canvas]) -> dict[str, object]:
    seen = np.array([_middle(canvas.seen) for canvas in canvases])
    pictures = np.array([_middle(canvas.picture) for canvas in canvases])
    contrast = np.array([_middle(local_contrast(canvas)) for canvas in canvases])
    inside = ~(seen & (pictures < _BODY)).any(0) & seen.any(0)
    mean = (contrast * seen).sum(0) / np.maximum(seen.sum(0), 1)
    return {
        "contrast": (100 * mean).round().astype(int).tolist(),
        "inside": inside.astype(int).tolist(),
    }


def _middle(values: Picture | Bool[np.ndarray, "rows columns"]) -> np.ndarray:
    rows, columns = ((wide - narrow) // 2 for wide, narrow in zip(_WIDE, SHAPE, strict=True))
    return np.asarray(values[rows : rows + SHAPE[0], columns : columns + SHAPE[1]])


def main(
    store: Annotated[Path, typer.Argument(help="Made by `voxray prepare`.")],
    out: Annotated[Path, typer.Argument(help="The JSON file to write.")],
) -> None:
    """Measure the scans of the split `train`."""
    scans = Store.open(store)
    names = scans.cases("train")
    with warnings.catch_warnings():
        numbers = {"scans": names, **measure([scans.load(name) for name in names])}
    write_text_atomic(out, json.dumps(numbers, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    typer.run(main)
