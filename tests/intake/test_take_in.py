"""From grey values to line integrals: where the chest is, how it is shown, and what is no chest."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import GRID, patient, small_method, small_recipe, xrays_of

import voxray
from voxray.errors import InputError, VoxrayWarning
from voxray.geometry import Setup, ViewGeometry
from voxray.images import Radiograph
from voxray.images.types import Known
from voxray.images.xray import ReadOptions
from voxray.intake import NoChestError, refuse_others, take_in
from voxray.intake.framing import field_box
from voxray.intake.judge import judge
from voxray.intake.masses import corrections, mass_ratio, row_masses
from voxray.models import save_model

# As large as a real detector, so that the phantom is not cut off.
VIEWS = ViewGeometry.biplanar(setup=Setup(1800.0, 1550.0, 3.2, (140, 140)))
UNKNOWN = Known("nobody", facing=False, centre=False)


@pytest.fixture(scope="module")
def truth() -> Radiograph:
    return xrays_of(patient(20), VIEWS)


def shown(truth: Radiograph, known: Known = UNKNOWN, gamma: float = 0.7) -> Radiograph:
    """Display values of line integrals, as a screen shows them."""
    images = tuple(255 * (image / image.max()) ** gamma for image in truth.images)
    return Radiograph(images, truth.views, "display", known=(known,) * len(images))


def quietly(radiograph: Radiograph) -> voxray.intake.Intake:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)
        return take_in(radiograph, GRID)


def test_a_chest_is_recognised_and_line_integrals_come_near(truth: Radiograph) -> None:
    found = quietly(shown(truth, Known()))
    assert found.radiograph.kind == "estimated"
    assert found.views == VIEWS, "what is known stays"
    for finding in found.findings:
        assert finding.sighting.likeness > 0.6
        assert not finding.sighting.looks_inverted
        assert not finding.sighting.looks_mirrored
    refuse_others(found.findings, ["a", "b"])
    boxes = [field_box(VIEWS, view, GRID.size_mm) for view in (0, 1)]
    for image, exact in zip(found.radiograph.images, truth.cropped(boxes).images, strict=True):
        middle = (slice(40, 90),) * 2
        assert np.corrcoef(image[middle].ravel(), exact[middle].ravel())[0, 1] > 0.95


def test_size_place_and_facing_are_found(truth: Radiograph) -> None:
    """The same pictures, said to be smaller, off the middle, and shown from the other side."""
    told = replace(VIEWS, u_mm=VIEWS.u_mm * 0.7, v_mm=VIEWS.v_mm * 0.7)
    turned = np.array(told.u_mm)
    turned[1] *= -1
    moved = replace(told, u_mm=turned).cropped([(slice(0, 130), slice(0, 140))] * 2)
    images = tuple(image[:130] for image in shown(truth).images)
    centred = replace(moved, centre_mm=told.centre_mm)
    with pytest.warns(VoxrayWarning) as said:
        found = take_in(Radiograph(images, centred, "display", known=(UNKNOWN,) * 2), GRID)
    assert any("--lateral-anterior" in str(w.message) for w in said)
    assert any("--pixel-mm" in str(w.message) for w in said)
    right = quietly(shown(truth)).views
    for view in (0, 1):
        assert np.linalg.norm(found.views.u_mm[view]) == pytest.approx(np.linalg.norm(right.u_mm[view]), rel=0.08)
        assert np.dot(found.views.u_mm[view], right.u_mm[view]) > 0
        isocentre = found.views.project_mm((0, 0, 0), view), right.project_mm((0, 0, 0), view)
        assert np.abs(isocentre[0] - isocentre[1]).max() < 6


def test_inverted_and_mirrored_chests_are_told(truth: Radiograph) -> None:
    frontal = Radiograph(truth.images[:1], VIEWS.subset([0]))
    good = shown(frontal, Known())
    inverted = replace(good, images=(255 - good.images[0],))
    assert quietly(inverted).findings[0].sighting.looks_inverted
    mirrored = quietly(replace(good, images=(good.images[0].flip(1),))).findings[0].sighting
    assert mirrored.mirrored > mirrored.likeness
    estimate = small_method().plain_mean(VIEWS.subset([0]))
    assert estimate is not None
    taken = quietly(inverted)
    quality = judge(taken.radiograph, estimate.volume, taken.radiograph.images, taken.findings)
    assert quality.verdict == "doubtful"
    assert "--invert" in quality.summary


def test_both_views_of_a_body_have_the_same_mass(truth: Radiograph) -> None:
    masses = [row_masses(image.double().numpy(), VIEWS, view) for view, image in enumerate(truth.images)]
    ratio = mass_ratio(masses[0], 1.2 * masses[1])
    assert ratio == pytest.approx(1.2, rel=0.06)
    first, second = corrections(ratio)
    assert mass_ratio(first * masses[0], second * 1.2 * masses[1]) == pytest.approx(1.0)
    assert corrections(9.0)[0] == pytest.approx(1.3**0.5), "a gross difference is no matter of exposure"
    assert corrections(None) == (1.0, 1.0)


def limb() -> np.ndarray:
    row, column = np.mgrid[:200, :200]
    leg, bone = np.hypot(1, (column - 100) / 45.0) < 2**0.5, np.abs(column - 100 - row / 40) < 14
    return np.asarray(60 + 90 * leg + 80 * bone + 20 * np.sin(row / 60.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chests") / "small"
    recipe = small_recipe(3).model_copy(update={"body_parts": ("CHEST",)})
    save_model(small_method(), recipe, folder, "")
    return folder


def test_T2_what_is_no_chest_is_refused_unless_it_is_forced(model: Path, tmp_path: Path) -> None:
    from skimage.io import imsave

    path = tmp_path / "leg_pa.png"
    imsave(path, limb().astype(np.uint8), check_contrast=False)
    with pytest.warns(VoxrayWarning), pytest.raises(NoChestError, match="--force-chest") as refused:
        voxray.reconstruct([path], model=model)
    assert isinstance(refused.value, InputError)
    assert refused.value.exit_code == 2
    with pytest.warns(VoxrayWarning):
        result = voxray.reconstruct([path], model=model, options=ReadOptions(force_chest=True))
    assert result.report.quality is not None
    assert result.report.quality.verdict == "doubtful"


def test_the_verdict_and_the_geometry_are_in_the_report(model: Path, truth: Radiograph, tmp_path: Path) -> None:
    from skimage.io import imsave

    files = [tmp_path / "pa.png", tmp_path / "lateral.png"]
    for file, image in zip(files, shown(truth).images, strict=True):
        imsave(file, image.numpy().astype(np.uint8), check_contrast=False)
    with pytest.warns(VoxrayWarning):
        result = voxray.reconstruct(files, model=model)
    quality = result.report.quality
    assert quality is not None
    assert {view.view for view in quality.views} == {"pa", "lateral"}
    assert all(view.correlation > 0.9 for view in quality.views)
    assert all(view.curve is not None and len(view.curve) == 4 for view in quality.views)
    assert all(view.correction is not None for view in quality.views)
    assert result.radiograph.kind == "estimated"
    with pytest.warns(VoxrayWarning):
        plain = voxray.reconstruct(files, model=model, options=ReadOptions(align=False)).report
    assert plain.quality is not None
    assert all(view.correction is None for view in plain.quality.views)
    assert plain.geometry != result.report.geometry
    result.save(tmp_path / "out")
    with pytest.warns(VoxrayWarning):
        again = voxray.reconstruct(files, model=model, geometry=tmp_path / "out" / "report.json")
    assert again.radiograph.views.names == result.radiograph.views.names
    assert (again.volume.hu - result.volume.hu).abs().mean() < 30, "the report's geometry can be given back"


def test_line_integrals_are_judged_and_nothing_else(model: Path) -> None:
    xrays = xrays_of(patient(20), ViewGeometry.biplanar(setup=Setup(1800.0, 1550.0, 6.4, (64, 64))))
    result = voxray.reconstruct(xrays, model=model)
    assert result.report.quality is not None
    assert all(view.likeness is None for view in result.report.quality.views)
    assert torch.equal(result.radiograph.images[0], xrays.images[0])
