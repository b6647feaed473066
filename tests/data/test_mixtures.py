"""Samples of a mixture: views drawn from several choices, with the body around the cube or without."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_models import SETUP, write_store

from voxray.data.augment import AugmentOptions
from voxray.data.dataset import MixedViews, PhantomDataset, RandomViews, XrayDataset, collate
from voxray.data.store import Store
from voxray.errors import GeometryError, InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

PA, BOTH = ViewGeometry.from_names(["pa"], setup=SETUP), ViewGeometry.biplanar(setup=SETUP)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("mixtures") / "store", {"train": [0, 1]}))


def test_choices_are_drawn_as_often_as_their_shares_say() -> None:
    views = MixedViews((PA, BOTH, RandomViews((3, 5), setup=SETUP)), (1.0, 2.0, 1.0))
    generator = rng()
    counts = Counter(len(views.draw(generator)) for _ in range(2000))
    assert counts[1] == pytest.approx(500, abs=80)
    assert counts[2] == pytest.approx(1000, abs=80)
    for count in (3, 4, 5):
        assert counts[count] == pytest.approx(500 / 3, abs=50)
    assert set(counts) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("shares", [(), (1.0,), (1.0, 0.0), (1.0, -1.0)])
def test_a_share_is_missing_or_nothing(shares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="as many shares above 0"):
        MixedViews((PA, BOTH), shares)


def test_choices_away_from_the_origin_are_refused(store: Store) -> None:
    away = ViewGeometry.biplanar(isocentre_mm=(0, 50, 0))
    with pytest.raises(GeometryError, match="about the isocentre"):
        XrayDataset(store, "train", MixedViews((PA, away), (1.0, 1.0)))


@pytest.mark.parametrize("augment", [None, AugmentOptions()])
def test_closed_x_rays_are_those_of_the_very_cube(store: Store, augment: AugmentOptions | None) -> None:
    sample = XrayDataset(store, "train", BOTH, augment=augment, closed=1.0)[0]
    assert sample.outside == "air"
    for image, expected in zip(
        sample.images, Projector(sample.grid, BOTH).forward(hu_to_mu(sample.hu[0])), strict=True
    ):
        assert torch.allclose(image[0], expected, atol=1e-5)
    body = XrayDataset(store, "train", BOTH, augment=augment)[0]
    assert body.outside == "body"
    assert torch.allclose(body.hu, sample.hu, atol=0.1), "the same patient"
    assert float(body.images[1].sum()) > 1.02 * float(sample.images[1].sum()), "more of him is seen"


def test_closed_phantoms_are_those_of_the_very_cube() -> None:
    grid = VolumeGrid.centred((0, 0, 0), (16, 16, 16), 20.0)
    sample = PhantomDataset(1, grid, BOTH, closed=1.0)[0]
    assert sample.outside == "air"
    for image, expected in zip(sample.images, Projector(grid, BOTH).forward(hu_to_mu(sample.hu[0])), strict=True):
        assert torch.allclose(image[0], expected, atol=1e-5)


def test_D4_the_share_of_closed_samples_is_drawn_for_each(store: Store) -> None:
    dataset = XrayDataset(store, "train", PA, closed=0.5)
    drawn = [dataset._draw_outside(dataset._rng(index)) for index in range(400)]
    assert Counter(drawn)["air"] == pytest.approx(200, abs=50)
    assert drawn == [dataset._draw_outside(dataset._rng(index)) for index in range(400)]
    with pytest.raises(InputError, match=r"from 0 to 1, not 1\.5"):
        XrayDataset(store, "train", PA, closed=1.5)


def test_a_batch_is_all_closed_or_all_in_the_body(store: Store) -> None:
    closed, body = (XrayDataset(store, "train", PA, closed=share)[0] for share in (1.0, 0.0))
    assert collate([closed, closed]).outside == "air"
    with pytest.raises(GeometryError, match="cannot share a batch"):
        collate([closed, body])


def test_D3_loading_leaves_the_global_random_state(store: Store) -> None:
    from voxray.data.dataset import make_loader

    before = torch.get_rng_state()
    assert len(list(make_loader(XrayDataset(store, "train", PA), 1, sampler=[1, 0]))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_the_order_can_be_told(store: Store, tmp_path: Path) -> None:
    from voxray.data.dataset import make_loader

    loader = make_loader(XrayDataset(store, "train", PA), 1, sampler=[1, 0, 1])
    assert [sample.ids for sample in loader] == [("phantom01",), ("phantom00",), ("phantom01",)]
