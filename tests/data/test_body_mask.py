"""The patient without couch and clothes, and the point that a chest is centred on."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_maker import chest

from voxray.data.body_mask import body_mask, without_couch
from voxray.data.lungs import box_centre, lung_centre
from voxray.data.resample import resample
from voxray.errors import InputError
from voxray.images import CTVolume
from voxray.images.read_ct import read_ct


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("spacing_mm", [(2.5, 2.5, 2.5), (1.25, 1.25, 5.0), (4.0, 4.0, 8.0)])
@pytest.mark.parametrize("gap_mm", [0.0, 10.0])
def test_the_mask_is_the_body_without_the_couch(spacing_mm: tuple[float, float, float], gap_mm: float) -> None:
    volume, body = chest(spacing_mm, couch_gap_mm=gap_mm)
    mask = body_mask(volume, margin_mm=0).numpy()
    assert dice(mask, body) > 0.97
    couch = (volume.hu.numpy() == 100) & ~body
    # Where the back lies on the couch, a piece as wide as the contact stays.
    assert (mask & couch).sum() < (0.2 if gap_mm == 0 else 0.001) * couch.sum()
    lungs = volume.hu.numpy() == -850
    assert mask[lungs].all()


def test_lungs_behind_a_thin_chest_wall_are_body() -> None:
    volume, body = chest((2.5, 2.5, 2.5), front_mm=8)
    assert dice(body_mask(volume, margin_mm=0).numpy(), body) > 0.97


def test_outside_the_mask_is_exactly_air() -> None:
    volume, _ = chest()
    mask = body_mask(volume)
    bare = without_couch(volume, mask)
    assert (bare.hu[~mask] == -1024).all()
    assert torch.equal(bare.hu[mask], volume.hu[mask])
    with pytest.raises(InputError, match="body mask has shape"):
        without_couch(volume, mask[1:])


def test_a_volume_without_a_body_is_refused() -> None:
    volume, _ = chest()
    with pytest.raises(InputError, match="No body was found"):
        body_mask(CTVolume(torch.full_like(volume.hu, -1000), volume.grid))


@pytest.mark.parametrize("spacing_mm", [(5.0, 5.0, 5.0), (1.25, 1.25, 5.0)])
def test_a_chest_is_centred_on_the_middle_of_its_lungs(spacing_mm: tuple[float, float, float]) -> None:
    volume, _ = chest(spacing_mm)
    # chest() puts the body's axis at 200, 120 and the lungs' middle at 170 mm from the first voxel.
    expected = volume.grid.origin_mm + np.array([200, 120, 170])
    assert lung_centre(volume, body_mask(volume)) == pytest.approx(expected, abs=5.0)


def test_a_scan_without_lungs_says_what_to_give_instead() -> None:
    volume, body = chest(lungs=False)
    with pytest.raises(InputError, match=r"No lungs were found.*--centre.*--box"):
        lung_centre(volume, torch.from_numpy(body))
    assert box_centre(volume, torch.from_numpy(body))[:2] == pytest.approx(
        volume.grid.origin_mm[:2] + np.array([200, 120]), abs=2.5
    )


@pytest.mark.parametrize("name", ["lidc0028", "lungdx_a0001", "lidc0004"])
def test_the_mask_agrees_with_the_couch_free_truth(shared_data: Path, name: str) -> None:
    truth = read_ct(shared_data / "reference" / name / "ct.nii.gz")
    scan = read_ct(shared_data / "ct" / f"{name}.nii.gz")
    ours = resample(without_couch(scan, body_mask(scan)), truth.grid).hu
    middle = slice(4, 118)  # the last slices lie half outside the coarser scan
    inside, body = (ours > -1024).numpy()[middle], (truth.hu > -1024).numpy()[middle]
    assert dice(inside, body) > 0.99
    dense = (ours > -300).numpy()[middle]
    assert (dense & ~body).sum() == 0, "couch or clothes are left"
    assert (ours - truth.hu)[middle].square().mean().sqrt() < 25


@pytest.mark.slow
def test_the_centre_is_that_of_the_reference_isocentres(shared_data: Path) -> None:
    far = []
    with (shared_data / "ct" / "SPLIT.csv").open() as file:
        for row in csv.DictReader(file):
            if row["iso_x"]:
                scan = read_ct(shared_data / "ct" / f"{row['id']}.nii.gz")
                iso = [float(row[f"iso_{axis}"]) for axis in "xyz"]
                far.append(np.abs(lung_centre(scan, body_mask(scan)) - iso))
    assert (np.median(far, axis=0) < 2.5).all()
    assert (np.max(far, axis=1) < 7.5).mean() > 0.75
