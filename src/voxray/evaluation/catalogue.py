"""All metrics, by name and by group."""

from collections.abc import Sequence

from voxray.errors import InputError
from voxray.evaluation import (
    calibration,
    conventions,
    fid,
    lpips,
    metrics,
    organs,
    perceptual,
    regions,
    reprojection,
    view_synthesis,
)
from voxray.evaluation.trial import Metric

GROUPS: dict[str, tuple[Metric, ...]] = {
    "main": metrics.METRICS,
    "conventions": conventions.METRICS,
    "lpips": lpips.METRICS,
    "perceptual": perceptual.METRICS,
    "regions": regions.METRICS,
    "calibration": calibration.METRICS,
    "reprojection": reprojection.METRICS,
    "views": view_synthesis.METRICS,
    "organs": organs.METRICS,
    fid.NAME: (),  # of a set of cases, no column; for this group alone it has to be asked for by its name
}

# Groups that are computed only where they are asked for: another network of minutes a case, which must be installed.
ON_REQUEST = ("organs",)

# The figures that tables begin with.
HEADLINE = ("psnr3d", "ssim", "mae_hu", "residual", "uncertainty")


def select(names: Sequence[str] = ()) -> tuple[Metric, ...]:
    """Return metrics, the headline first, then in the order of the catalogue, each once.

    Args:
        names: of metrics, or of groups of them; none for all metrics but those of `ON_REQUEST`.

    Raises:
        InputError: if there is no metric or group of a name, or one needs what is not installed.
    """
    known = {metric.name: metric for group in GROUPS.values() for metric in group}
    chosen: set[str] = set()
    for name in names or (group for group in GROUPS if group not in ON_REQUEST):
        if name not in known and name not in GROUPS:
            raise InputError(
                f"There is no metric {name!r}; the groups of metrics are {', '.join(GROUPS)}, the metrics "
                f"{', '.join(known)}."
            )
        chosen |= {metric.name for metric in GROUPS[name]} if name in GROUPS else {name}
    if any(metric.name in chosen for metric in organs.METRICS):
        organs.structure_names()
    order = [*HEADLINE, *(name for name in known if name not in HEADLINE)]
    return tuple(known[name] for name in order if name in chosen)


def metric_named(name: str) -> Metric | None:
    """Return a metric, or None where there is none of that name (results of another version)."""
    return next((metric for group in GROUPS.values() for metric in group if metric.name == name), None)
