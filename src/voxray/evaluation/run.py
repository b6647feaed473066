"""A model on the cases of a store, under named protocols."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from math import nan
from pathlib import Path
from statistics import mean, stdev

import torch

from voxray.data.body_mask import AIR_HU
from voxray.data.store import Case, Store
from voxray.evaluation.metrics import mae_hu, psnr, rank_correlation, residual_rms, slice_ssim, to_unit_range
from voxray.evaluation.protocols import Protocol, make_xrays
from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.images.atomic import refuse_existing, write_text_atomic
from voxray.methods.base import Estimate, Method, Outside, check_case

METRICS = ("psnr3d", "ssim", "mae_hu", "residual", "uncertainty")


@dataclass(frozen=True)
class Row:
    """What one volume scored.

    Attributes:
        case, protocol: of the store; see `protocols.make_xrays`.
        model: the model's name, or "mean" for its plain mean volume.
        psnr3d: dB over the whole cube, HU -1024..1476 as unit range.
        ssim: `metrics.slice_ssim` on the same range.
        mae_hu: mean absolute difference.
        residual: root mean square difference between X-rays and re-projections (line integrals, no unit).
        uncertainty: rank correlation of the standard deviation with the absolute error, over the body; None where the
            model tells none.
    """

    case: str
    protocol: Protocol
    model: str
    psnr3d: float
    ssim: float
    mae_hu: float
    residual: float
    uncertainty: float | None


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of every metric over the cases of one protocol and model; NaN for those without."""

    protocol: Protocol
    model: str
    cases: int
    means: dict[str, float]
    stds: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """All rows of an evaluation."""

    rows: tuple[Row, ...]

    def summary(self) -> list[Summary]:
        """Return one line for each protocol and model, in the order of the rows."""
        groups = dict.fromkeys((row.protocol, row.model) for row in self.rows)
        lines = []
        for protocol, model in groups:
            rows = [asdict(row) for row in self.rows if (row.protocol, row.model) == (protocol, model)]
            values = {metric: [row[metric] for row in rows if row[metric] is not None] for metric in METRICS}
            values = {metric: v or [nan] for metric, v in values.items()}
            stds = {metric: stdev(v) if len(v) > 1 else 0.0 for metric, v in values.items()}
            lines.append(Summary(protocol, model, len(rows), {m: mean(v) for m, v in values.items()}, stds))
        return lines

    def write_csv(self, path: Path, *, overwrite: bool = False) -> None:
        """Write one line a row.

        Raises:
            InputError: if the file exists and may not be overwritten.
        """
        refuse_existing(path, overwrite)
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        write_text_atomic(path, text.getvalue())


def evaluate_method(
    method: Method,
    name: str,
    store: Store,
    cases: Sequence[str],
    views: ViewGeometry,
    protocols: Sequence[Protocol],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Reconstruct every case from X-rays made by each protocol, and score it beside the plain mean.

    Args:
        method: with its weights.
        name: of the model, for the rows.
        store: prepared cases, on the method's grid.
        cases: ids.
        views: about the origin, which becomes the isocentre of every case.
        protocols: see `protocols.make_xrays`.
        seed: of the noise and of the method.
        progress: called with (reconstructions done, reconstructions).

    Raises:
        InputError: if the store's grid is not the method's.
    """
    rows: list[Row] = []
    means: dict[Outside, Estimate | None] = {}  # the same for every case
    done, total = 0, len(cases) * len(protocols)
    for case_name in cases:
        case = store.load(case_name)
        check_case(case, method.grid)
        for protocol in protocols:
            radiograph, outside = make_xrays(case, views, protocol, seed)
            rng = torch.Generator().manual_seed(seed)
            estimate = method.reconstruct(radiograph, rng=rng, outside=outside)
            rows.append(_score(case, protocol, name, estimate, radiograph))
            if outside not in means:
                means[outside] = method.plain_mean(views, outside)
            baseline = means[outside]
            if baseline is not None:
                rows.append(_score(case, protocol, "mean", baseline, radiograph))
            done += 1
            if progress is not None:
                progress(done, total)
    return Evaluation(tuple(rows))


def _score(case: Case, protocol: Protocol, model: str, estimate: Estimate, radiograph: Radiograph) -> Row:
    hu, again = estimate.volume.hu, list(estimate.reprojections)
    image, truth = to_unit_range(hu), to_unit_range(case.volume.hu)
    uncertainty = None
    if estimate.std is not None:
        uncertainty = rank_correlation(estimate.std.hu, hu - case.volume.hu, case.volume.hu > AIR_HU)
    return Row(
        case.id, protocol, model,
        psnr3d=psnr(image, truth, data_range=1.0), ssim=slice_ssim(image, truth, data_range=1.0),
        mae_hu=mae_hu(hu, case.volume.hu), residual=residual_rms(again, list(radiograph.images)),
        uncertainty=uncertainty,
    )  # fmt: skip
