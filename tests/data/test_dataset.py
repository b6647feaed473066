"""Training samples: varied, projected, and a pure function of (seed, epoch, index)."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ct_maker import chest, save

from voxray.data.augment import AugmentOptions, Deformation, pull
from voxray.data.dataset import PhantomDataset, RandomViews, TrainingSample, XrayDataset, collate, extended, make_loader
from voxray.data.options import PrepareOptions
from voxray.data.prepare import prepare
from voxray.data.store import Store
from voxray.errors import GeometryError, InputError
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.images import CTVolume

SETUP = Setup(1800.0, 1550.0, 12.8, (32, 32))
VIEWS = ViewGeometry.biplanar(setup=SETUP)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("dataset")
    save(chest(couch_gap_mm=10)[0], folder / "a.nii")
    save(chest((5, 5, 8), origin_mm=(0, 0, 0), couch_gap_mm=10)[0], folder / "b.nii")
    options = PrepareOptions(shape=(32, 32, 32), spacing_mm=10.0, workers=1, fractions={"train": 1.0})
    prepare([folder], folder / "s", options)
    return Store.open(folder / "s")


def equal(a: TrainingSample, b: TrainingSample) -> bool:
    pairs = zip((a.hu, *a.images), (b.hu, *b.images), strict=True)
    return a.ids == b.ids and a.views == b.views and all(torch.equal(x, y) for x, y in pairs)


def test_D4_a_sample_is_a_pure_function_of_seed_epoch_and_index(store: Store) -> None:
    def dataset(seed: int = 3, epoch: int = 5) -> XrayDataset:
        made = XrayDataset(
            store, "train", RandomViews(2, setup=SETUP), augment=AugmentOptions(), seed=seed, photons=1e5
        )
        made.set_epoch(epoch)
        return made

    state = torch.random.get_rng_state()
    first = dataset()
    first[0]
    assert equal(first[1], dataset()[1])
    assert not equal(first[1], dataset(epoch=6)[1])
    assert not equal(first[1], dataset(seed=4)[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_D2_workers_and_batches_do_not_change_samples(store: Store) -> None:
    dataset = XrayDataset(store, "train", VIEWS, augment=AugmentOptions())
    (batch,) = make_loader(dataset, 2, workers=1)
    assert batch.ids == ("a", "b")
    assert batch.hu.shape == (2, 32, 32, 32)
    assert [tuple(image.shape) for image in batch.images] == [(2, 32, 32)] * 2
    for i in range(2):
        assert torch.allclose(batch.hu[i], dataset[i].hu[0], atol=1e-2)
        assert torch.allclose(batch.images[0][i], dataset[i].images[0][0], atol=1e-4)


def test_without_augmentation_the_cube_is_the_stored_one(store: Store) -> None:
    sample = XrayDataset(store, "train", VIEWS)[0]
    assert torch.equal(sample.hu[0], store.load("a").volume.hu)
    assert sample.grid.centre_mm == pytest.approx([0, 0, 0])
    still = XrayDataset(store, "train", VIEWS, augment=AugmentOptions(0, 0, 0, 0))[0]
    inner = slice(6, 24)
    assert (still.hu[0] - sample.hu[0])[inner].abs().mean() < 30
    assert all(torch.allclose(a, b) for a, b in zip(still.images, sample.images, strict=True))


def test_coarser_samples_are_those_of_the_same_patient_in_larger_voxels(store: Store) -> None:
    for augment in (None, AugmentOptions()):
        fine, coarse = (
            XrayDataset(store, "train", RandomViews(2, setup=SETUP), augment=augment, coarser=n)[0] for n in (1, 2)
        )  # fmt: skip
        assert (coarse.ids, coarse.views, coarse.outside) == (fine.ids, fine.views, fine.outside)
        assert np.allclose(coarse.grid.corners_mm(), fine.grid.corners_mm())
        averages = F.avg_pool3d(fine.hu, 2)
        assert (coarse.hu - averages).abs().mean() < (0.01 if augment is None else 0.1) * averages.std()
        for a, b in zip(coarse.images, fine.images, strict=True):
            assert (a - b).abs().mean() < 0.2 * b.std()


def test_x_rays_show_the_whole_body_not_only_the_cube(store: Store) -> None:
    sample = XrayDataset(store, "train", VIEWS)[0]
    # Below the lungs the body is 320 mm wide: 0.0193 * 1.04 per mm.
    assert float(sample.images[1].max()) == pytest.approx(320 * 0.0193 * 1.04, rel=0.05)


def test_batches_of_different_detectors_are_refused(store: Store) -> None:
    one, other = XrayDataset(store, "train", VIEWS)[0], XrayDataset(store, "train", VIEWS.subset([0]))[0]
    with pytest.raises(GeometryError, match="share a batch"):
        collate([one, other])


def test_views_away_from_the_origin_are_refused(store: Store) -> None:
    with pytest.raises(GeometryError, match="about the isocentre"):
        XrayDataset(store, "train", ViewGeometry.biplanar(isocentre_mm=(0, 50, 0)))
    with pytest.raises(InputError, match="no split"):
        XrayDataset(store, "val", VIEWS)


# ---------------------------------------------------------------- deformations


def blob(centre_mm: tuple[float, float, float], spacing_mm: float = 2.0) -> CTVolume:
    grid = VolumeGrid.centred((100, -50, 30), (60, 60, 60), spacing_mm)
    k, j, i = np.indices(grid.shape)
    away = grid.index_to_mm(np.stack([i, j, k], -1)) - np.array([100, -50, 30]) - centre_mm
    return CTVolume(torch.from_numpy(2000 * np.exp(-(away**2).sum(-1) / (2 * 8.0**2)) - 1024), grid)


def centre_of(hu: torch.Tensor, grid: VolumeGrid) -> np.ndarray:
    k, j, i = np.indices(grid.shape)
    weight = (hu.numpy() + 1024)[..., None]
    return np.asarray((grid.index_to_mm(np.stack([i, j, k], -1)) * weight).sum((0, 1, 2)) / weight.sum())


def test_a_patient_moves_as_told() -> None:
    """A quarter turn about z, size 1.25 and a shift: q = R p / s + t, so p = s R^-1 (q - t)."""
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    deformation = Deformation(turn / 1.25, np.array([4.0, 0, -6]))
    grid = VolumeGrid.centred((0, 0, 0), (50, 50, 50), 3.0)
    hu = pull(blob((10.0, 20.0, -4.0)), np.array([100.0, -50, 30]), grid, deformation)
    assert centre_of(hu, grid) == pytest.approx(1.25 * turn.T @ np.array([6.0, 20, 2]), abs=0.2)


@pytest.mark.parametrize("spacing_mm", [2.0, 1.0, 0.8])
def test_fine_scans_keep_their_place(spacing_mm: float) -> None:
    grid = VolumeGrid.centred((0, 0, 0), (20, 20, 20), 2.5)
    scan = blob((3.0, -2.0, 1.0), spacing_mm)
    hu = pull(scan, np.array([100.0, -50, 30]), grid, Deformation.none())
    assert centre_of(hu, grid) == pytest.approx([3, -2, 1], abs=0.1)
    assert float(hu.max()) == pytest.approx(976, rel=0.06)


def test_elastic_deformations_are_smooth_within_range_and_do_not_fold() -> None:
    options = AugmentOptions(0.0, 0.0, 0.0, elastic_mm=25.0, knots_mm=64.0)
    grid = VolumeGrid.centred((0, 0, 0), (40, 40, 40), 5.0)
    rng = torch.Generator().manual_seed(0)
    deformation = Deformation.draw(options, grid.size_mm, rng)
    points = deformation.points_mm(grid).double()
    still = Deformation.none().points_mm(grid).double()
    moved = (points - still).abs()
    assert 5 < float(moved.max()) <= 25
    steps = torch.stack([(points.diff(dim=2 - axis)[:39, :39, :39]) / 5 for axis in range(3)], -1)
    assert float(torch.linalg.det(steps).min()) > 0


def test_folding_is_refused() -> None:
    with pytest.raises(InputError, match="fold"):
        AugmentOptions(elastic_mm=30, knots_mm=64)
    with pytest.raises(InputError, match="negative"):
        AugmentOptions(rotation_deg=-1)


def test_a_drawn_deformation_stays_within_its_box() -> None:
    grid = VolumeGrid.centred((0, 0, 0), (16, 16, 16), 10.0)
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        deformation = Deformation.draw(AugmentOptions(10, 0.2, 20, 20), grid.size_mm, rng)
        low, high = deformation.box_mm(grid.corners_mm())
        wide = VolumeGrid.centred((0, 0, 0), (60, 60, 60), 10.0)
        inside = (deformation.points_mm(wide).abs() < 80).all(-1)
        where = np.argwhere(inside.numpy())[:, ::-1]
        places = wide.index_to_mm(where.astype(float))
        assert (places.min(0) >= low).all()
        assert (places.max(0) <= high).all()


def test_the_extended_grid_holds_the_cube_on_its_own_lattice() -> None:
    cube = VolumeGrid.centred((0, 0, 0), (8, 8, 8), 10.0)
    body, (z, y, x) = extended(cube, np.array([[-61.0, -30, -5000], [45, 30, 5000]]), VIEWS)
    assert body.index_to_mm((x, y, z)) == pytest.approx(cube.origin_mm)
    assert body.corners_mm().min(0)[0] <= -61
    assert body.corners_mm().max(0)[0] >= 45
    assert body.size_mm[2] < 500, "there are no X-rays beyond the detectors"


# ---------------------------------------------------------------- phantoms


def test_D4_phantoms_are_a_pure_function_of_seed_epoch_and_index() -> None:
    grid = VolumeGrid.centred((0, 0, 0), (16, 16, 16), 20.0)
    dataset = PhantomDataset(3, grid, VIEWS, seed=1)
    sample = dataset[2]
    assert sample.hu.shape == (1, 16, 16, 16)
    assert float(sample.images[0].max()) > 2
    assert equal(sample, PhantomDataset(9, grid, VIEWS, seed=1)[2])
    dataset.set_epoch(1)
    assert not torch.equal(sample.hu, dataset[2].hu)
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(GeometryError, match="origin"):
        PhantomDataset(3, VolumeGrid.centred((1, 0, 0), (16, 16, 16), 20.0), VIEWS)


def test_N6_x_rays_agree_with_the_reference_images(shared_data: Path, tmp_path: Path) -> None:
    """RTK's Joseph projector on the thin slices, with photon noise, against ours at 2.5 mm without."""
    options = PrepareOptions(table=shared_data / "ct" / "SPLIT.csv", workers=1)
    prepare([shared_data / "ct_native" / "lidc0004.nii.gz"], tmp_path / "s", options)
    dataset = XrayDataset(Store.open(tmp_path / "s"), "val", ViewGeometry.biplanar())
    sample = dataset[0]
    for image, name in zip(sample.images, ("pa", "lateral"), strict=True):
        reference = read_reference(shared_data / "reference" / "lidc0004" / f"{name}.nii.gz")
        assert float(image.mean()) == pytest.approx(float(reference.mean()), rel=0.01)
        assert float((image[0] - reference).square().mean().sqrt()) < 0.04 * float(reference.mean())


def read_reference(path: Path) -> torch.Tensor:
    import SimpleITK as sitk  # noqa: N813

    return torch.from_numpy(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))[0].float()
