"""How patients differ in shape, and how one takes the shape of another."""

from functools import cache
from pathlib import Path

import pytest
import torch
from small_models import SETUP, patient, rng, write_store

from voxray.data.augment import AugmentOptions, Deformation, pull
from voxray.data.dataset import XrayDataset
from voxray.data.shape import ShapeModel
from voxray.data.store import Store
from voxray.errors import InputError
from voxray.geometry import ViewGeometry

VIEWS = ViewGeometry.biplanar(setup=SETUP)
SEEDS = [0, 3]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("shapes") / "store", {"train": SEEDS, "one": [5]}))


@cache
def _model(path: Path) -> ShapeModel:
    opened = Store.open(path)
    return ShapeModel.of(opened, opened.cases("train"))


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.clamp(-1000, 200) - b.clamp(-1000, 200)).square().mean())


def test_a_patient_takes_the_shape_of_another(store: Store) -> None:
    model = _model(store.path)
    cases = [patient(seed) for seed in SEEDS]
    for own, other in (cases, cases[::-1]):
        grid = own.volume.grid.shifted(-own.isocentre_mm)
        i, j = (model.ids.index(case.id) for case in (own, other))
        spline = model.towards_another(own.id, 1.0, rng())
        way = spline.knots / (model.knots[i] - model.knots[j])
        share = float(way.nanmedian())
        assert 0 < share < 1
        assert torch.allclose(spline.knots, share * (model.knots[i] - model.knots[j]), atol=1e-4)
        whole = type(spline)(model.knots[i] - model.knots[j], model.knots_mm)
        apart = [
            difference(pull(own.scan, own.isocentre_mm, grid, found), other.volume.hu)
            for found in (Deformation.none(), Deformation(Deformation.none().matrix, torch.zeros(3).numpy(), (whole,)))
        ]
        assert apart[1] < 0.4 * apart[0]


def test_D1_shapes_are_the_same_again(store: Store) -> None:
    again = ShapeModel.of(store, store.cases("train"))
    assert torch.equal(again.knots, _model(store.path).knots)
    assert torch.equal(again.towards_another("phantom00", 0.5, rng(3)).knots,
                       again.towards_another("phantom00", 0.5, rng(3)).knots)  # fmt: skip


def test_samples_of_other_shapes_differ_and_do_not_touch_the_seed(store: Store) -> None:
    state = torch.random.get_rng_state()
    still = AugmentOptions(0, 0, 0, 0)
    plain, shaped = (
        XrayDataset(store, "train", VIEWS, augment=options)[0].hu
        for options in (still, AugmentOptions(0, 0, 0, 0, shape=1))
    )
    assert difference(plain, shaped) > 1000
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_patient_alone_has_no_other_shape(store: Store) -> None:
    with pytest.raises(InputError, match="two cases"):
        XrayDataset(store, "one", VIEWS, augment=AugmentOptions(shape=0.5))
