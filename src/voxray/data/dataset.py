"""Training samples: a cube, and X-rays of the whole patient, projected on the fly."""

import hashlib
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from voxray.data.augment import AugmentOptions, Deformation, mix, pull
from voxray.data.phantom import thorax_phantom
from voxray.data.randomise import Randomisation
from voxray.data.shape import ShapeModel
from voxray.data.store import Store
from voxray.errors import GeometryError, InputError
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.geometry._frozen import FloatArray
from voxray.images import Radiograph
from voxray.physics.attenuation import add_photon_noise, hu_to_mu
from voxray.physics.projector import Projector

# What X-rays pass through beside the volume: the rest of the body, as in life, or air (X-rays of the very volume).
Outside = Literal["body", "air"]

# Holds the largest phantom thorax, arms left out; (x, y, z).
_PHANTOM_BOX_MM = np.array([[-220.0, -160.0, -190.0], [220.0, 160.0, 190.0]])


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """One case or a batch of them, in coordinates about the isocentre.

    Attributes:
        ids: of the cases.
        hu: the cubes.
        images: line integrals, one tensor a view.
        views: one geometry a case; the isocentre is the origin.
        grid: of the cubes; its middle is the origin.
        outside: whether the X-rays saw the body around the cubes, or the cubes alone.
        valid: of estimated line integrals (`Randomisation`), the pixels of each view that are measurements; empty if
            the line integrals are exact.
    """

    ids: tuple[str, ...]
    hu: Float[Tensor, "batch z y x"]
    images: tuple[Float[Tensor, "batch _ _"], ...]
    views: tuple[ViewGeometry, ...]
    grid: VolumeGrid
    outside: Outside = "body"
    valid: tuple[Bool[Tensor, "batch _ _"], ...] = ()

    def to(self, device: torch.device | str) -> "TrainingSample":
        """Return the same sample on another device."""
        images, valid = (tuple(one.to(device) for one in each) for each in (self.images, self.valid))
        return replace(self, hu=self.hu.to(device), images=images, valid=valid)

    def radiograph(self, index: int = 0) -> Radiograph:
        """Return the X-rays of one case of the batch, as a method is given them."""
        return Radiograph(
            tuple(image[index] for image in self.images),
            self.views[index],
            "estimated" if self.valid else "line_integral",
            valid=tuple(mask[index] for mask in self.valid),
        )


def collate(samples: Sequence[TrainingSample]) -> TrainingSample:
    """Join samples into a batch; for `torch.utils.data.DataLoader(..., collate_fn=collate)`.

    Raises:
        GeometryError: if their grids or detectors differ, or what lies outside their cubes.
    """
    first = samples[0]
    for sample in samples[1:]:
        if not first.grid.is_close(sample.grid) or sample.views[0].shapes != first.views[0].shapes:
            raise GeometryError("Only samples with the same grid and the same detectors can share a batch.")
        if sample.outside != first.outside:
            raise GeometryError("Samples with the body around their cubes cannot share a batch with those without.")
        if len(sample.valid) != len(first.valid):
            raise InputError("Samples of estimated line integrals cannot share a batch with those of exact ones.")
    return TrainingSample(
        ids=tuple(name for sample in samples for name in sample.ids),
        hu=torch.cat([sample.hu for sample in samples]),
        images=tuple(torch.cat(view) for view in zip(*(sample.images for sample in samples), strict=True)),
        views=tuple(views for sample in samples for views in sample.views),
        grid=first.grid,
        outside=first.outside,
        valid=tuple(torch.cat(view) for view in zip(*(sample.valid for sample in samples), strict=True)),
    )


@dataclass(frozen=True)
class RandomViews:
    """New views for every sample: angles uniform in these ranges (`ViewGeometry.from_angles`).

    Attributes:
        count: of views; a range for a new number in every sample, both ends included.
        primary_deg, secondary_deg: ranges.
        setup: a preset's name, or a `Setup`.
    """

    count: int | tuple[int, int] = 2
    primary_deg: tuple[float, float] = (-180.0, 180.0)
    secondary_deg: tuple[float, float] = (0.0, 0.0)
    setup: str | Setup = "chest"

    def draw(self, rng: torch.Generator) -> ViewGeometry:
        """Draw the views of one sample."""
        count = self.count
        if isinstance(count, tuple):
            count = int(torch.randint(count[0], count[1] + 1, (), generator=rng))
        places = torch.rand(2, count, generator=rng, dtype=torch.float64).numpy()
        ranges = np.array([self.primary_deg, self.secondary_deg])
        primary, secondary = ranges[:, :1] + places * np.diff(ranges)
        return ViewGeometry.from_angles(primary.tolist(), secondary.tolist(), setup=self.setup)


@dataclass(frozen=True)
class MixedViews:
    """One of several choices for every sample.

    Attributes:
        choices: fixed views about the origin, or random ones.
        shares: how often each is drawn, in any unit.

    Raises:
        InputError: if there is not one share above 0 for each choice.
    """

    choices: tuple[ViewGeometry | RandomViews, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.choices or len(self.shares) != len(self.choices) or not min(self.shares) > 0:
            raise InputError(f"{len(self.choices)} choices of views need as many shares above 0, not {self.shares}.")

    def draw(self, rng: torch.Generator) -> ViewGeometry:
        """Draw a choice, and its views."""
        chosen = self.choices[int(torch.multinomial(torch.tensor(self.shares), 1, generator=rng))]
        return chosen.draw(rng) if isinstance(chosen, RandomViews) else chosen


class DrawsViews(Protocol):
    """What draws new views for every sample."""

    def draw(self, rng: torch.Generator) -> ViewGeometry:
        """Draw the views of one sample."""


Views = ViewGeometry | DrawsViews
Images = tuple[Float[Tensor, "1 _ _"], ...]
Masks = tuple[Bool[Tensor, "1 _ _"], ...]


class _Samples(Dataset[TrainingSample]):
    """Sample `index` of epoch `epoch` is a pure function of (seed, epoch, index): resuming needs no other state."""

    def __init__(self, views: Views, seed: int, photons: float | None, closed: float, estimated: float) -> None:
        for fixed in views.choices if isinstance(views, MixedViews) else [views]:
            if isinstance(fixed, ViewGeometry) and np.abs(fixed.isocentre()).max() > 1.0:
                raise GeometryError(
                    f"The views of a dataset stand about the isocentre (0, 0, 0), not {fixed.isocentre().tolist()}."
                )
        for share, what in ((closed, "closed samples"), (estimated, "samples of estimated line integrals")):
            if not 0 <= share <= 1:
                raise InputError(f"The share of {what} is from 0 to 1, not {share}.")
        self.views, self.seed, self.photons, self.closed, self.estimated = views, seed, photons, closed, estimated
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; call it before a `DataLoader` starts its workers."""
        self.epoch = epoch

    def _rng(self, index: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed} {self.epoch} {index}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def _draw_views(self, rng: torch.Generator) -> ViewGeometry:
        return self.views if isinstance(self.views, ViewGeometry) else self.views.draw(rng)

    def _draw_outside(self, rng: torch.Generator) -> Outside:
        return "air" if float(torch.rand((), generator=rng)) < self.closed else "body"

    def _project(
        self, hu: Float[Tensor, "z y x"], grid: VolumeGrid, views: ViewGeometry, rng: torch.Generator
    ) -> tuple[Images, Masks]:
        """Return line integrals, exact or estimated, and for the latter which of them are measurements."""
        estimated = self.estimated > 0 and float(torch.rand((), generator=rng)) < self.estimated
        unknown = Randomisation()
        images = Projector(grid, unknown.placed(views, rng) if estimated else views).forward(hu_to_mu(hu))
        if self.photons is not None:
            images = [add_photon_noise(image, self.photons, rng=rng) for image in images]
        valid: Sequence[Tensor] = ()
        if estimated:
            images, valid = unknown.developed(images, rng)
        return tuple(image[None] for image in images), tuple(mask[None] for mask in valid)


class XrayDataset(_Samples):
    """Cases of a store, varied, with X-rays of the whole scan.

    The scan is resampled once, through one deformation, onto the cube's lattice extended over the whole body; the
    cube is cut out of it, and the X-rays are projected from all of it. Without augmentation the cube is the
    store's own.

    Args:
        store: prepared cases.
        split: which of them.
        views: fixed ones, or what draws them (`RandomViews`, `MixedViews`); about the origin.
        augment: None for none.
        seed: of all randomness.
        photons: a pixel, for Poisson noise; None for none.
        closed: share of the samples whose X-rays are projected from the cube alone, drawn anew in every epoch.
        estimated: share of the samples whose line integrals are as estimated from a radiograph (`Randomisation`).
        coarser: voxels are cubes of so many voxels of the store's, which takes a fraction of the time.

    Raises:
        InputError: if the store has no such split.
        GeometryError: if fixed views do not stand about the origin.
    """

    def __init__(
        self, store: Store, split: str, views: Views, *,
        augment: AugmentOptions | None = None, seed: int = 0, photons: float | None = None, closed: float = 0.0,
        estimated: float = 0.0, coarser: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(views, seed, photons, closed, estimated)
        self.store, self.ids, self.augment, self.coarser = store, store.cases(split), augment, coarser
        self.shapes = ShapeModel.of(store, self.ids) if augment is not None and augment.shape > 0 else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TrainingSample:
        rng = self._rng(index)
        case = self.store.load(self.ids[index])
        grid = case.volume.grid.shifted(-case.isocentre_mm).coarser(self.coarser)
        views, outside = self._draw_views(rng), self._draw_outside(rng)
        deformation = Deformation.none()
        if self.augment is not None:
            shape = None
            if self.shapes is not None:
                shape = self.shapes.towards_another(case.id, self.augment.shape, rng)
            deformation = Deformation.draw(self.augment, case.scan.grid.size_mm, rng, shape)
        box = deformation.box_mm(case.scan.grid.corners_mm() - case.isocentre_mm)
        body, start = extended(grid, box, views) if outside == "body" else (grid, (0, 0, 0))
        hu = pull(case.scan, case.isocentre_mm, body, deformation)
        if self.shapes is not None and self.augment is not None and self.augment.mixed > 0:
            hu = self._mixed(hu, case.id, body, deformation, self.augment.mixed, rng)
        cube = _cut(hu, start, grid.shape)
        if self.augment is None:
            cube = F.avg_pool3d(case.volume.hu[None], self.coarser)[0]
        images, valid = self._project(cube if outside == "air" else hu, body, views, rng)
        return TrainingSample((case.id,), cube[None], images, (views,), grid, outside, valid)

    def _mixed(
        self,
        hu: Float[Tensor, "z y x"],
        name: str,
        body: VolumeGrid,
        deformation: Deformation,
        chance: float,
        rng: torch.Generator,
    ) -> Float[Tensor, "z y x"]:
        """Draw whether parts of another patient take the place of this one's, and put them there."""
        assert self.shapes is not None
        if float(torch.rand((), generator=rng)) >= chance:
            return hu
        other = self.store.load(self.shapes.another(name, rng))
        there = replace(deformation, splines=(*deformation.splines, self.shapes.between(name, other.id)))
        return mix(hu, pull(other.scan, other.isocentre_mm, body, there), body, rng)


class PhantomDataset(_Samples):
    """Random thoraxes (`thorax_phantom`) in place of cases; as many as wanted.

    Args:
        size: samples an epoch; every epoch has new ones.
        grid: of the cubes, about the origin.
        views, seed, photons, closed, estimated: as for `XrayDataset`.

    Raises:
        GeometryError: if grid or views do not lie about the origin.
    """

    def __init__(
        self, size: int, grid: VolumeGrid, views: Views, *,
        seed: int = 0, photons: float | None = None, closed: float = 0.0, estimated: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(views, seed, photons, closed, estimated)
        if np.abs(grid.centre_mm).max() > 1e-3:
            raise GeometryError(f"The grid's middle must be the origin, not {grid.centre_mm.tolist()}.")
        if size < 1:
            raise InputError(f"A dataset needs at least one sample, not {size}.")
        self.size, self.grid = size, grid

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TrainingSample:
        if not 0 <= index < self.size:
            raise IndexError(index)
        rng = self._rng(index)
        views, outside = self._draw_views(rng), self._draw_outside(rng)
        body, start = self.grid, (0, 0, 0)
        if outside == "body":
            body, start = extended(self.grid, _PHANTOM_BOX_MM, views, symmetric=True)
        hu = thorax_phantom(body, rng=rng).volume.hu
        cube, (images, valid) = _cut(hu, start, self.grid.shape)[None], self._project(hu, body, views, rng)
        name = f"phantom-{self.epoch}-{index}"
        return TrainingSample((name,), cube, images, (views,), self.grid, outside, valid)


def make_loader(
    dataset: Dataset[TrainingSample],
    batch_size: int,
    *,
    workers: int = 0,
    sampler: Sampler[Any] | Sequence[Any] | None = None,
) -> "DataLoader[TrainingSample]":
    """Return a loader of batches, in the order of `sampler` or of the cases.

    Workers come from a fork server: forked from this process they would die in the projector (GNU OpenMP bears no
    fork once it has run). They live for one epoch, so that `set_epoch` reaches them. As always with processes in
    Python, a script of your own must iterate under `if __name__ == "__main__":`.

    Args:
        dataset: the samples.
        batch_size: samples a batch; the last one may be smaller.
        workers: processes; 0 for none.
        sampler: the order of an epoch: a sampler, or simply the indices.
    """
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=workers, collate_fn=collate,
        multiprocessing_context=context, worker_init_fn=_start_worker, generator=torch.Generator(),
    )  # fmt: skip


def _start_worker(_: int) -> None:
    """Keep the projector to one core, as torch keeps itself, and leave Ctrl-C to the process that started this one."""
    import numba

    numba.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def extended(
    grid: VolumeGrid, box_mm: FloatArray, views: ViewGeometry, *, symmetric: bool = False
) -> tuple[VolumeGrid, tuple[int, int, int]]:
    """Extend an upright grid by whole voxels until it holds a box, as far as X-rays go.

    Args:
        grid: the cube's.
        box_mm: (2, 3), low and high corner.
        views: beyond the box about all sources and detectors there is no X-ray.
        symmetric: extend both sides alike.

    Returns:
        The larger grid, and where the cube begins in it (z, y, x).
    """
    ends = [views.source_mm] + [views.pixels_mm(i)[[0, 0, -1, -1], [0, -1, 0, -1]] for i in range(len(views))]
    beam = np.concatenate(ends)
    low, high = np.clip(box_mm, beam.min(0), beam.max(0))
    edges = grid.corners_mm()
    before = np.maximum(0, np.ceil((edges.min(0) - low) / grid.spacing_mm)).astype(int)
    after = np.maximum(0, np.ceil((high - edges.max(0)) / grid.spacing_mm)).astype(int)
    if symmetric:
        before = after = np.maximum(before, after)
    nz, ny, nx = (np.array(grid.shape) + (before + after)[::-1]).tolist()
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.index_to_mm(-before)
    return VolumeGrid((nz, ny, nx), affine), (int(before[2]), int(before[1]), int(before[0]))


def _cut(hu: Float[Tensor, "z y x"], start: tuple[int, int, int], shape: tuple[int, int, int]) -> Tensor:
    (z, y, x), (nz, ny, nx) = start, shape
    return hu[z : z + nz, y : y + ny, x : x + nx].clone()
