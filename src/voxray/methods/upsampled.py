"""The results of one model, brought onto finer voxels by another."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate, Method, Outside, Progress
from voxray.methods.stages import AnyStage
from voxray.nets.upsampling import doubled
from voxray.physics.attenuation import VACUUM_HU, hu_to_mu
from voxray.physics.projector import Projector


class Upsampled(Method):
    """A method whose results are on voxels half as large as its own.

    Volume and samples are made finer by another model (`Method.finer`), or interpolated. The standard deviation is
    interpolated: how unsure the finer voxels are beyond that, no model knows. Re-projections are those of the finer
    volume, with the body around it as it was.

    Args:
        method: what reconstructs.
        finer: what makes volumes finer; None for interpolation.
        about: of `finer`, for the report.
    """

    name = "upsampled"

    def __init__(self, method: Method, finer: Method | None, about: dict[str, Any] | None = None) -> None:
        super().__init__(method.config, method.grid.finer(2))
        self.method, self.upsampler, self.about = method, finer, about or {}

    def stages(self) -> Sequence[AnyStage]:
        """Return the stages of the method: the other model is trained apart."""
        return self.method.stages()

    def reconstruct(
        self,
        radiograph: Radiograph,
        *,
        rng: torch.Generator,
        samples: int = 1,
        outside: Outside = "body",
        progress: Progress | None = None,
    ) -> Estimate:
        """Return what the method reconstructs, finer."""
        estimate = self.method.reconstruct(radiograph, rng=rng, samples=samples, outside=outside, progress=progress)
        return self._finer(estimate, radiograph.views)

    def plain_mean(self, views: ViewGeometry, outside: Outside = "body") -> Estimate | None:
        """Return the method's, finer."""
        estimate = self.method.plain_mean(views, outside)
        return None if estimate is None else self._finer(estimate, views)

    def _finer(self, estimate: Estimate, views: ViewGeometry) -> Estimate:
        one = interpolated if self.upsampler is None else self.upsampler.finer
        fine = one(estimate.volume)
        before, after = (Projector(v.grid, views).forward(hu_to_mu(v.hu)) for v in (estimate.volume, fine))
        again = estimate.reprojections

        def end(coarse: CTVolume) -> CTVolume:
            side = interpolated(CTVolume(coarse.hu - estimate.volume.hu, coarse.grid))
            return CTVolume((fine.hu + side.hu).clamp_min(VACUUM_HU), fine.grid)

        return replace(
            estimate,
            volume=fine,
            samples=tuple(one(sample) for sample in estimate.samples),
            std=None if estimate.std is None else interpolated(estimate.std),
            interval=None if estimate.interval is None else (end(estimate.interval[0]), end(estimate.interval[1])),
            reprojections=tuple(p + a - b for p, a, b in zip(again, after, before, strict=True)) if again else (),
            details={**estimate.details, "upsample": {"factor": 2, **self.about}},
        )


def interpolated(volume: CTVolume) -> CTVolume:
    """Return a volume on voxels half as large, interpolated."""
    return CTVolume(doubled(volume.hu[None, None])[0, 0], volume.grid.finer(2))
