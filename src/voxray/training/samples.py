"""The training samples of a recipe: the cases of a split, and phantoms."""

from copy import copy

import torch
from torch.utils.data import Dataset

from voxray.data.augment import AugmentOptions
from voxray.data.dataset import PhantomDataset, TrainingSample, XrayDataset
from voxray.data.store import Store
from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.methods.base import check_case
from voxray.recipes import Recipe
from voxray.training.order import Key


class Samples(Dataset[TrainingSample]):
    """Samples by (epoch, index): the cases of the split first, then the phantoms.

    Raises:
        InputError: if there is no such split, or its cases are on another grid than the recipe's.
    """

    def __init__(self, recipe: Recipe, store: Store, split: str) -> None:
        data, views = recipe.data, recipe.data.mixed_views()
        grid = VolumeGrid.centred(shape=recipe.grid.shape, spacing_mm=recipe.grid.spacing_mm)
        augment = AugmentOptions(shape=data.shape, mixed=data.mixed) if data.augment else None
        self.cases = XrayDataset(
            store, split, views, augment=augment, seed=data.seed, photons=data.photons, closed=data.closed,
            estimated=data.estimated,
        )  # fmt: skip
        if not self.cases.ids:
            raise InputError(f"The split {split!r} of '{store.path}' has no cases to train on.")
        check_case(store.load(self.cases.ids[0]), grid)
        self.phantoms = None
        if data.phantoms:
            self.phantoms = PhantomDataset(
                data.phantoms, grid, views, seed=data.seed, photons=data.photons, closed=data.closed,
                estimated=data.estimated,
            )  # fmt: skip

    def coarser(self, factor: int) -> "Samples":
        """Return the same samples on voxels that are cubes of `factor` of these."""
        samples = copy(self)
        samples.cases = copy(self.cases)
        samples.cases.coarser *= factor
        if self.phantoms is not None:
            samples.phantoms = copy(self.phantoms)
            samples.phantoms.grid = self.phantoms.grid.coarser(factor)
        return samples

    def __len__(self) -> int:
        return len(self.cases) + (len(self.phantoms) if self.phantoms is not None else 0)

    def __getitem__(self, key: Key) -> TrainingSample:
        epoch, index = key
        dataset: XrayDataset | PhantomDataset = self.cases
        if index >= len(self.cases):
            assert self.phantoms is not None
            dataset, index = self.phantoms, index - len(self.cases)
        dataset.set_epoch(epoch)
        with torch.no_grad():
            return dataset[index]
