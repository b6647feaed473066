"""What a method is: a configuration, stages of training, and `reconstruct`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.data.dataset import Outside
from voxray.data.store import Case
from voxray.errors import InputError, ModelError, NumericalError
from voxray.geometry import FloatArray, ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.stages import AnyStage, MethodConfig, Progress, Stage
from voxray.physics.attenuation import mu_to_hu
from voxray.physics.consistency import Noise, Scene
from voxray.physics.display import as_line_integrals

__all__ = [
    "Estimate", "Method", "MethodConfig", "Outside", "Progress", "Stage", "Steps", "about_isocentre", "as_volume",
    "check_case", "check_grid", "estimate_of", "estimate_of_samples", "in_bf16", "line_integrals_of",
    "noise_of",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method makes of one examination.

    Attributes:
        volume: the best single volume (for a probabilistic method, the mean).
        samples: equally plausible volumes, where more than one was asked for.
        std: standard deviation of each voxel in HU, where the method knows it.
        interval: lower and upper end of the 90 % interval of each voxel in HU, where the method knows it better than as
            that of a Gaussian; what share of the truth lies beyond which end is the method's choice.
        reprojections: line integrals of the result in the views of the input, the body outside the volume included.
        details: what the method has to say, for the report; JSON values.
    """

    volume: CTVolume
    samples: tuple[CTVolume, ...] = ()
    std: CTVolume | None = None
    interval: tuple[CTVolume, CTVolume] | None = None
    reprojections: tuple[Tensor, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """A way to reconstruct a CT from X-rays.

    A new method is one file in this folder with one subclass, and one recipe; nothing else is edited. Weights are
    parameters and buffers, so that `state_dict` is all there is to save; what a constructor makes is made with torch,
    on the default device (a model's weights are compared with it on the device `meta`, which costs no memory).

    Args:
        config: an instance of the class's own `Config`.
        grid: of the result, about the isocentre at (0, 0, 0).
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    # Names of weights, or how they begin, that training alone uses: models are saved and loaded without them.
    training_only: tuple[str, ...] = ()

    def __init__(self, config: MethodConfig, grid: VolumeGrid) -> None:
        super().__init__()
        self.config, self.grid = config, grid

    @abstractmethod
    def stages(self) -> Sequence[AnyStage]:
        """Return the stages of training, in order; called once a training."""

    @abstractmethod
    def reconstruct(
        self,
        radiograph: Radiograph,
        *,
        rng: torch.Generator,
        samples: int = 1,
        outside: Outside = "body",
        progress: Progress | None = None,
    ) -> Estimate:
        """Reconstruct the CT of one examination.

        Args:
            radiograph: line integrals or display values (`api` turns counts into line integrals), with their geometry,
                on the CPU; the work is done where the weights are.
            rng: of the CPU; all randomness comes from here.
            samples: more than one for `Estimate.samples` and `Estimate.std`.
            outside: whether the body goes on outside the volume, as in life, or there is air (X-rays projected from
                the very volume, as the papers do).
            progress: called with (steps done, steps).

        Returns:
            Volumes on the method's grid, moved to the isocentre of the views; on the CPU.

        Raises:
            GeometryError: if the method cannot serve these views.
            NumericalError: if a number is not finite.
        """

    def plain_mean(self, views: ViewGeometry, outside: Outside = "body") -> Estimate | None:
        """Return what the method would answer without any X-ray, where that makes sense: a baseline.

        Args:
            views: of the re-projections; the volume is about their isocentre.
            outside: as for `reconstruct`.
        """
        return None

    def finer(self, volume: CTVolume) -> CTVolume:
        """Return a volume, of this method or any other, on voxels half as large (super-resolution).

        Raises:
            ModelError: if the method is not for that, as most are not.
        """
        raise ModelError(
            f"A model of the method {self.name!r} makes no volume finer: take one that is for that "
            "(`voxray train upsample`)."
        )


def check_case(case: Case, grid: VolumeGrid) -> None:
    """Check that a prepared case is on a method's grid.

    Raises:
        InputError: if it is on another one.
    """
    check_grid(case.id, case.volume.grid.shifted(-case.isocentre_mm), grid)


def check_grid(name: str, own: VolumeGrid, grid: VolumeGrid) -> None:
    """Check that a prepared case, of which only the grid is at hand, is on a method's grid.

    Args:
        name: of the case.
        own: its grid, about the isocentre at (0, 0, 0).
        grid: the method's.

    Raises:
        InputError: if it is on another one.
    """
    if not own.is_close(grid, tolerance_mm=0.1):
        raise InputError(
            f"The case {name!r} is on a grid of {own.shape} voxels of {own.spacing_mm.round(3).tolist()} mm, but "
            f"the model works on {grid.shape} of {grid.spacing_mm.round(3).tolist()} mm: prepare a store with the "
            "model's shape and spacing."
        )


def about_isocentre(radiograph: Radiograph) -> tuple[Radiograph, FloatArray]:
    """Return the radiograph with its isocentre moved to the origin, and where it was."""
    centre = radiograph.views.isocentre()
    return replace(radiograph, views=radiograph.views.shifted(-centre)), centre


def line_integrals_of(radiograph: Radiograph, expected: Scene) -> list[Float[Tensor, "_ _"]]:
    """Return what the X-rays say, where the scene is; what unknown grey values mean is judged by what it would show.

    Args:
        radiograph: about the origin.
        expected: an average patient, about the origin.
    """
    images = [image.to(expected.mu.device) for image in radiograph.images]
    return as_line_integrals(images, radiograph.kind, expected.project(radiograph.views))


def noise_of(radiograph: Radiograph, rough: float, usual: float) -> Noise | None:
    """Return the standard deviation of what the X-rays say, of each pixel where some say nothing; None for the usual.

    Args:
        radiograph: the X-rays.
        rough: noise of line integrals that come from grey values.
        usual: noise of others.
    """
    noise = rough if radiograph.rough else usual
    if not radiograph.valid:
        return noise if radiograph.rough else None
    return [torch.full(mask.shape, noise, device=mask.device).where(mask, math.inf) for mask in radiograph.valid]


def estimate_of(scene: Scene, views: ViewGeometry, centre_mm: FloatArray, **more: Any) -> Estimate:
    """Return a scene about the origin as a result about the isocentre, with its re-projections.

    Args:
        scene: the result.
        views: about the origin.
        centre_mm: where the isocentre was.
        more: further attributes of the estimate.
    """
    grid = scene.grid.shifted(centre_mm)
    return Estimate(as_volume(scene, grid), reprojections=tuple(i.cpu() for i in scene.project(views)), **more)


def estimate_of_samples(
    scenes: Sequence[Scene], views: ViewGeometry, centre_mm: FloatArray, samples: int, details: dict[str, Any]
) -> Estimate:
    """Return the mean of sampled scenes as a result, with the standard deviation of its voxels.

    Args:
        scenes: about the origin; in pairs of opposite noise (`diffusion.antithetic_noise`), whose standard deviation
            needs no correction for the mean.
        views: about the origin.
        centre_mm: where the isocentre was.
        samples: how many of the scenes the result holds.
        details: for the report.

    Raises:
        NumericalError: if a number is not finite.
    """
    first = scenes[0]
    grid = first.grid.shifted(centre_mm)
    mean = replace(
        first,
        mu=torch.stack([scene.mu for scene in scenes]).mean(0),
        around=torch.stack([scene.around for scene in scenes]).mean(0),
    )
    if not bool(torch.isfinite(mean.mu).all()):
        raise NumericalError("The reconstruction is not finite: are the X-rays line integrals of a usual size?")
    volumes = [as_volume(scene, grid) for scene in scenes]
    std = torch.stack([volume.hu for volume in volumes]).std(0, correction=0) if len(volumes) > 1 else None
    return estimate_of(
        mean,
        views,
        centre_mm,
        samples=tuple(volumes[:samples]) if min(samples, len(volumes)) > 1 else (),
        std=None if std is None else CTVolume(std, grid),
        details=details,
    )


def in_bf16(where: Tensor) -> torch.autocast:
    """Run networks in bfloat16 where this tensor is, which takes less than half the time, also on a CPU."""
    return torch.autocast(where.device.type, dtype=torch.bfloat16)


def as_volume(scene: Scene, grid: VolumeGrid) -> CTVolume:
    """Return the volume of a scene, on the CPU, with its grid put elsewhere."""
    return CTVolume(mu_to_hu(scene.mu).cpu(), grid)


class Steps:
    """Counts what is done, for the progress bar."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.count = progress, total, 0

    def done(self, steps: int) -> None:
        """Count so many more."""
        self.count += steps
        if self.progress is not None:
            self.progress(self.count, self.total)
