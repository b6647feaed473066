"""How patients differ in shape, and how one takes the shape of another."""

from functools import cache
from pathlib import Path

import pytest
import torch
from small_models import SETUP, patient, rng, write_store

from voxray.data.augment import AugmentOptions, Deformation, mix, pull
from voxray.data.dataset import XrayDataset
from voxray.data.shape import ShapeModel
from voxray.data.store import Store
from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid

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


def test_a_patient_is_brought_to_the_shape_of_another_one_to_be_mixed_with(store: Store) -> None:
    model = _model(store.path)
    own, other = (patient(seed) for seed in SEEDS)
    grid, still = own.volume.grid.shifted(-own.isocentre_mm), Deformation.none()
    assert {model.another(own.id, rng(seed)) for seed in range(9)} == {other.id}
    moved = Deformation(still.matrix, still.shift_mm, (model.between(own.id, other.id),))
    apart = [difference(pull(other.scan, other.isocentre_mm, grid, d), own.volume.hu) for d in (still, moved)]
    assert apart[1] < 0.4 * apart[0]


def test_parts_of_about_half_a_patient_are_another_one() -> None:
    grid = VolumeGrid.centred(shape=(40, 44, 48), spacing_mm=8.0)
    own, other = (torch.full(grid.shape, hu) for hu in (0.0, 100.0))
    own[:4], other[-4:] = -1024.0, -1024.0  # outside
    shares = torch.stack([mix(own, other, grid, rng(seed)) for seed in range(20)])
    assert torch.equal(shares[0], mix(own, other, grid, rng(0)))
    assert not torch.equal(shares[0], shares[1])
    assert (shares[:, :4] == -1024).all()
    assert (shares[:, -4:] == 0).all()
    inside = shares[:, 4:-4] / 100
    assert 0.4 < inside.mean() < 0.6
    assert (inside - 0.5).abs().gt(0.45).float().mean() > 0.6, "parts, rather than a mixture everywhere"
    jump = inside.diff(dim=-1).abs()
    assert jump.gt(0.5).float().mean() < 0.01, "they pass into each other"
    assert jump.gt(0.1).float().mean() < 0.2, "of the size of organs"


def test_parts_are_another_patient_s_in_all_of_a_grid_that_lies_aside() -> None:
    grid = VolumeGrid.centred(shape=(40, 44, 48), spacing_mm=8.0).shifted([0.0, 150.0, 300.0])
    own, other = (torch.full(grid.shape, hu) for hu in (0.0, 100.0))
    far = torch.stack([mix(own, other, grid, rng(seed)) for seed in range(20)])[:, -8:, -8:] / 100
    assert (far - 0.5).abs().gt(0.45).float().mean() > 0.6


def test_samples_are_mixed_as_often_as_asked(store: Store) -> None:
    def samples(mixed: float) -> list[torch.Tensor]:
        data = XrayDataset(store, "train", VIEWS, augment=AugmentOptions(shape=0.5, mixed=mixed))
        found = []
        for epoch in range(8):
            data.set_epoch(epoch)
            found.append(data[0].hu)
        return found

    plain = samples(0)
    changed = [[not torch.equal(a, b) for a, b in zip(plain, samples(chance), strict=True)] for chance in (0.5, 1)]
    assert 0 < sum(changed[0]) < 8
    assert all(changed[1])


@pytest.mark.parametrize(("mixed", "shape"), [(-0.1, 0.5), (1.1, 0.5), (0.5, 0.0)])
def test_patients_are_mixed_in_one_shape_by_chance(mixed: float, shape: float) -> None:
    with pytest.raises(InputError, match="needs shape above 0"):
        AugmentOptions(mixed=mixed, shape=shape)


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
