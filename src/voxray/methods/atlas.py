"""The mean anatomy of many scans, made consistent with the X-rays. No network.

Voxray's own baseline. The atlas is a linear Gaussian model of attenuation: the mean of the training scans, and how
they differ from it: their deviations from the mean, weighted by smooth fields (`Variation`); a smooth shift of the
mean anatomy (its gradients); and what no pattern explains (the standard deviation of every voxel). A reconstruction
is the posterior mean of that model, given the X-rays (`make_consistent`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from voxray.data.store import Case
from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.anatomy import fine_variations, mean_scene, relative_to_water, smooth, support_of, where
from voxray.methods.base import (
    Estimate,
    Method,
    MethodConfig,
    Outside,
    Progress,
    Stage,
    about_isocentre,
    as_volume,
    estimate_of,
    line_integrals_of,
    noise_of,
)  # fmt: skip
from voxray.physics.attenuation import MU_WATER_PER_MM, hu_to_mu
from voxray.physics.consistency import Scene, make_consistent
from voxray.physics.variation import Variation


class AtlasConfig(MethodConfig):
    """What the atlas learns and how it is made consistent. All numbers are our choice.

    They were chosen on the training scans, each left out of the atlas in turn.
    """

    scans: int = Field(default=17, gt=1, le=100_000, description="number of training scans")
    support_mm: float = Field(default=400.0, gt=0, le=2000, description="side of the cube in which the body may change")
    spacing_mm: float = Field(default=5.0, ge=0.5, description="voxels of that cube")
    member_length_mm: float = Field(
        default=40.0, gt=0, description="blur of the fields that weight the scans' deviations"
    )
    shift_mm: float = Field(default=8.0, ge=0, description="standard deviation of a local shift of the mean anatomy")
    fine_length_mm: tuple[float, ...] = Field(
        default=(5.0, 10.0), strict=False, description="blurs of what no scan's deviation explains"
    )
    floor: float = Field(default=0.02, ge=0, description="least standard deviation of a voxel, as a part of water")
    noise: float = Field(
        default=0.05, gt=0, description="standard deviation of a line integral, mostly the model's error"
    )
    display_noise: float = Field(default=0.15, gt=0, description="the same for display values, whose scale is a guess")
    iterations: int = Field(default=20, ge=0, description="of conjugate gradients, for everything that may change")
    detail_iterations: int = Field(default=10, ge=0, description="after that, for what no scan's deviation explains")


class Atlas(Method):
    """The atlas; its weights are relative to water, so 1 for 0 HU and 0 for -1000 HU."""

    name = "atlas"
    Config = AtlasConfig

    mean: Float[Tensor, "z y x"]
    around: Float[Tensor, "Z Y X"]
    deviations: Float[Tensor, "scans Z Y X"]

    def __init__(self, config: AtlasConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        self.support = support_of(config.support_mm, config.spacing_mm)
        self.register_buffer("mean", torch.zeros(grid.shape))
        self.register_buffer("around", torch.zeros(self.support.shape))
        self.register_buffer("deviations", torch.zeros(config.scans, *self.support.shape))

    def stages(self) -> Sequence[Stage]:
        """Return the one stage: mean and deviations of the training scans."""
        return [Stage("mean and deviations", self._fit)]

    def _fit(self, cases: Sequence[Case], progress: Progress | None) -> None:
        if len(cases) != self.settings.scans:
            raise InputError(
                f"The recipe is for {self.settings.scans} scans, but {len(cases)} were given: "
                f"--set config.scans={len(cases)}."
            )
        self.mean.zero_()
        for i, case in enumerate(cases):
            self.mean += hu_to_mu(case.volume.hu, 1.0) / len(cases)
            self.deviations[i] = relative_to_water(case, self.support)
            if progress is not None:
                progress(i + 1, len(cases))
        self.around.copy_(self.deviations.mean(0))
        self.deviations -= self.around

    @torch.no_grad()
    def plain_mean(self, views: ViewGeometry, outside: Outside = "body") -> Estimate:
        """Return the mean anatomy, and what the views see of it."""
        centre_mm = views.isocentre()
        return estimate_of(self._scene(outside), views.shifted(-centre_mm), centre_mm)

    @torch.no_grad()
    def reconstruct(
        self,
        radiograph: Radiograph,
        *,
        rng: torch.Generator,
        samples: int = 1,
        outside: Outside = "body",
        progress: Progress | None = None,
    ) -> Estimate:
        """Return nearly the posterior mean, and nearly draws from the posterior (the solver is stopped early)."""
        radiograph, centre_mm = about_isocentre(radiograph)
        scene, variations = self._scene(outside), self._variations(outside)
        measured = line_integrals_of(radiograph, scene)
        noise = noise_of(radiograph, self.settings.display_noise, self.settings.noise) or self.settings.noise
        runs = 1 + (samples if samples > 1 else 0)

        steps = (self.settings.iterations, self.settings.detail_iterations)

        def solve(run: int, generator: torch.Generator | None) -> tuple[Scene, list[float]]:
            # The first run stops long before it converges, while the patterns of whole scans still rule. A second
            # one, without them, then explains more of the X-rays than the first would by going on, and better.
            def count(before: int) -> Progress | None:
                return progress and (lambda done, _: progress(run * sum(steps) + before + done, runs * sum(steps)))

            rough = make_consistent(
                scene, measured, radiograph.views, variations, noise=noise, iterations=steps[0],
                rng=generator, progress=count(0),
            )  # fmt: skip
            fine = make_consistent(
                rough.scene, measured, radiograph.views, variations[1:], noise=noise, iterations=steps[1],
                progress=count(steps[0]),
            )  # fmt: skip
            return fine.scene, [*rough.residual, *fine.residual[1:]]

        best, residual = solve(0, None)
        grid = self.grid.shifted(centre_mm)
        drawn = tuple(as_volume(solve(run, rng)[0], grid) for run in range(1, runs))
        spread = torch.stack([sample.hu for sample in drawn]).std(0) if drawn else None
        return estimate_of(
            best, radiograph.views, centre_mm,
            samples=drawn,
            std=None if spread is None else CTVolume(spread, grid),
            details={"iterations": len(residual) - 1, "outside": outside,
                     "noise": self.settings.display_noise if radiograph.rough else self.settings.noise,
                     "residual_by_iteration": [round(value, 5) for value in residual]},
        )  # fmt: skip

    def _scene(self, outside: Outside) -> Scene:
        """Return the mean anatomy, per mm."""
        return mean_scene(self.mean, self.grid, self.around, self.support, outside)

    def _variations(self, outside: Outside) -> list[Variation]:
        """Return how the mean anatomy may change, per mm."""
        settings, support = self.settings, self.support
        somewhere = where(outside, support, self.grid).to(self.mean.device)
        deviations = MU_WATER_PER_MM * self.deviations
        slopes = torch.stack(torch.gradient(smooth(MU_WATER_PER_MM * self.around, support)))
        shifts = slopes * (settings.shift_mm / settings.spacing_mm)
        members = torch.cat([deviations / (len(deviations) - 1) ** 0.5, shifts]) * somewhere
        floor = settings.floor * MU_WATER_PER_MM
        return [
            Variation(members, support, settings.member_length_mm, knot_mm=settings.member_length_mm),
            *fine_variations(deviations.std(0), support, somewhere, settings.fine_length_mm, floor),
        ]
