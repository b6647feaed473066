"""One reconstruction under test, and what a metric is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from voxray.data.store import Case
from voxray.evaluation.protocols import Protocol
from voxray.geometry import VolumeGrid
from voxray.images import Radiograph
from voxray.methods.base import Estimate, Outside
from voxray.physics.attenuation import to_unit_range


@dataclass(frozen=True, eq=False)
class Trial:
    """A reconstruction of a case, and all that it can be held against.

    Attributes:
        case: the truth, as the store holds it, in patient coordinates.
        protocol: how its X-rays were made.
        radiograph: the X-rays that the method was given, about the origin.
        outside: what the method was told about the surroundings of the volume.
        estimate: what it answered, about the origin.
        device: where networks of metrics (LPIPS) work, as the method did; the volumes are on the CPU.
    """

    case: Case
    protocol: Protocol
    radiograph: Radiograph
    outside: Outside
    estimate: Estimate
    device: str = "cpu"

    @property
    def grid(self) -> VolumeGrid:
        """Return the grid of both volumes, about the origin."""
        return self.estimate.volume.grid

    @property
    def hu(self) -> Float[Tensor, "z y x"]:
        """Return the reconstruction."""
        return self.estimate.volume.hu

    @property
    def truth(self) -> Float[Tensor, "z y x"]:
        """Return the true volume in HU."""
        return self.case.volume.hu

    @cached_property
    def unit(self) -> Float[Tensor, "z y x"]:
        """Return the reconstruction with -1024..1476 HU as 0..1, clipped."""
        return to_unit_range(self.hu)

    @cached_property
    def unit_truth(self) -> Float[Tensor, "z y x"]:
        """Return the truth with -1024..1476 HU as 0..1, clipped."""
        return to_unit_range(self.truth)


@dataclass(frozen=True)
class Metric:
    """A number about a trial.

    Attributes:
        name: of the column in CSV files.
        heading: in tables for people.
        unit: "dB", "HU", "%", "ml" or "".
        better: which way is better; None where neither is.
        about: one sentence: what it is, in which convention, and where that comes from.
        of: computes it; None where a trial does not have it (a standard deviation of a single sample).
        digits: after the point, in tables.
    """

    name: str
    heading: str
    unit: str
    better: Literal["higher", "lower"] | None
    about: str
    of: Callable[[Trial], float | None]
    digits: int = 2
