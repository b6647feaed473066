"""Domain randomisation: estimated line integrals, and where source and detector truly stood."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from voxray.data.dataset import PhantomDataset, collate
from voxray.data.randomise import Randomisation
from voxray.errors import InputError
from voxray.geometry import Setup, ViewGeometry, VolumeGrid

SETUP = Setup(1800.0, 1550.0, 6.4, (64, 64))
VIEWS = ViewGeometry.biplanar(setup=SETUP)
NOTHING = Randomisation(**{field.name: 0.0 for field in fields(Randomisation)})


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> list[torch.Tensor]:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    return [5 * (1 - x**2 - 0.5 * y**2).clamp_min(0), 7 * (1 - 2 * x**2 - 0.5 * y**2).clamp_min(0)]


def test_nothing_unknown_changes_nothing() -> None:
    placed = NOTHING.placed(VIEWS, rng())
    for name in ("source_mm", "centre_mm", "u_mm", "v_mm"):
        assert np.allclose(getattr(placed, name), getattr(VIEWS, name), atol=1e-9)
    found, valid = NOTHING.developed(images(), rng())
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, images(), strict=True))
    assert all(bool(mask.all()) for mask in valid)


def test_views_are_turned_moved_and_resized_as_much_as_asked_and_no_more() -> None:
    for seed in range(20):
        placed = Randomisation().placed(VIEWS, rng(seed))
        for view in range(2):
            shown = placed.project_mm([0.0, 0.0, 0.0], view)
            middle = (np.array(VIEWS.shapes[view]) - 1) / 2
            assert np.abs(shown - middle).max() * 6.4 < 5 * 4.0 * 1.1
            assert 0.9 < np.linalg.norm(placed.u_mm[view]) / np.linalg.norm(VIEWS.u_mm[view]) < 1.1
            assert np.linalg.norm(placed.source_mm[view]) == pytest.approx(np.linalg.norm(VIEWS.source_mm[view]))
    turned = Randomisation(shift_mm=0, size=0, rotation_deg=2.0)
    angles = []
    for seed in range(200):
        source, said = turned.placed(VIEWS, rng(seed)).source_mm[0], VIEWS.source_mm[0]
        angles.append(np.rad2deg(np.arccos(source @ said / np.linalg.norm(said) ** 2)))
    # Of three turns, the two across the ray move the source: a Rayleigh distribution.
    assert np.mean(angles) == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.15)


def test_line_integrals_keep_their_order_and_views_their_mass() -> None:
    toned = Randomisation(scatter=0.0, collimated=0.0, letters=0.0)
    ratios = []
    for seed in range(40):
        found, _ = toned.developed(images(), rng(seed))
        for before, after in zip(images(), found, strict=True):
            assert (torch.diff(after.flatten()[before.flatten().argsort()]) >= -1e-4).all()
        ratios.append([float(a.sum() / b.sum()) for a, b in zip(found, images(), strict=True)])
    frontal, lateral = np.log(np.array(ratios)).T
    assert 0.06 < frontal.std() < 0.25
    assert (frontal - lateral).std() < 0.08, "one patient has one mass"


def test_covered_pixels_are_no_measurements_and_hold_what_is_beside_them() -> None:
    covered = Randomisation(mass=0, balance=0, gamma=0, scatter=0, collimated=1.0, collimation=0.3, letters=0.0)
    found, valid = covered.developed(images(), rng(1))
    for image, mask, before in zip(found, valid, images(), strict=True):
        assert 0.3 < mask.float().mean() < 1
        assert bool(mask[28:36, 28:36].all())
        assert torch.allclose(image[mask], before[mask], atol=1e-3)
        rows = mask.any(1).nonzero()[:, 0]
        assert torch.equal(image[0, mask.any(0)], image[rows[0], mask.any(0)])


def test_a_share_of_the_samples_is_estimated_and_says_so() -> None:
    def samples(share: float) -> PhantomDataset:
        return PhantomDataset(30, VolumeGrid.centred(shape=(16, 16, 16), spacing_mm=20.0), VIEWS, estimated=share)

    exact, mixed, all_of_them = samples(0.0)[0], samples(0.5), samples(1.0)
    assert (exact.valid, exact.radiograph().kind) == ((), "line_integral")
    kinds = [mixed[i].radiograph().kind for i in range(30)]
    assert 5 < kinds.count("estimated") < 25
    sample = all_of_them[0]
    assert [mask.shape for mask in sample.radiograph().valid] == list(VIEWS.shapes)
    assert torch.equal(sample.hu, exact.hu), "the patient is the same"
    assert sample.views == exact.views, "the geometry is the one that is said"
    assert (sample.images[0] - exact.images[0]).abs().mean() > 0.01
    assert len(collate([all_of_them[0], all_of_them[1]]).valid) == 2
    with pytest.raises(InputError, match="estimated line integrals cannot share"):
        collate([exact, sample])
    with pytest.raises(InputError, match="estimated line integrals is from 0 to 1"):
        samples(1.5)
