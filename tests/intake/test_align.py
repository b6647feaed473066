"""What a frontal and a lateral view have in common corrects size, place and tones of both."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import GRID, patient, xrays_of

from voxray.errors import VoxrayWarning
from voxray.geometry import Setup, ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.images.types import Known
from voxray.intake import take_in, tissue_factor
from voxray.intake.align import USUAL, Correction, align
from voxray.intake.framing import framed
from voxray.intake.locate import Place
from voxray.intake.tone import ToneCurve

VIEWS = ViewGeometry.biplanar(setup=Setup(1800.0, 1550.0, 3.2, (140, 140)))
FREE = [USUAL, USUAL]


@pytest.fixture(scope="module")
def truth() -> Radiograph:
    return xrays_of(patient(20), VIEWS)


def aligned(xrays: Radiograph, views: ViewGeometry, usual: list[Correction]) -> list[Correction]:
    return align([image.numpy().astype(np.float64) for image in xrays.images], views, usual)


def test_exact_views_are_left_nearly_as_they_are(truth: Radiograph) -> None:
    for found in aligned(truth, VIEWS, FREE):
        assert abs(found.size) < 0.02
        assert abs(found.up_mm) < 2
        assert abs(found.factor) < 0.02


def test_a_lateral_that_is_said_to_be_lower_and_smaller_is_brought_to_the_frontal(truth: Radiograph) -> None:
    wrong = framed(VIEWS, 1, Place(1.0, 0.93, 1.0, 12.0, 0.0), mirrored=False)
    frontal, lateral = aligned(truth, wrong, FREE)
    assert lateral.up_mm - frontal.up_mm == pytest.approx(12, abs=4)
    assert lateral.size - frontal.size == pytest.approx(-np.log(0.93), abs=0.04)


def test_what_is_known_stays(truth: Radiograph) -> None:
    wrong = framed(VIEWS, 1, Place(1.0, 1.0, 1.0, 12.0, 0.0), mirrored=False)
    known = replace(FREE[0], size=0.0, up_mm=0.0)
    frontal, lateral = aligned(truth, wrong, [known, FREE[1]])
    assert frontal.size == frontal.up_mm == 0.0
    assert lateral.up_mm == pytest.approx(12, abs=5)


def test_nothing_is_said_of_views_that_show_too_few_whole_rows(truth: Radiograph) -> None:
    boxes = [(slice(0, 140), slice(60, 80))] * 2
    assert aligned(truth.cropped(boxes), VIEWS.cropped(boxes), FREE) == [Correction(), Correction()]


def test_a_bent_curve_bends_what_it_returned_before() -> None:
    curve = ToneCurve(np.arange(5.0), np.array([0.0, 1.0, 2.0, 4.0, 5.0]), factor=1.5)
    shown = np.array([0.0, 1.0, 2.5, 6.0])
    expected = 4 * (curve(shown) / 4) ** 1.2
    assert curve.bent(0.2)(shown) == pytest.approx(expected)
    assert curve.bent(0.2).bent(-0.1)(shown) == pytest.approx(4 * (expected / 4) ** 0.9)


def test_intake_brings_the_rows_of_two_views_together(truth: Radiograph) -> None:
    """Frontal and lateral are cut at other ends, and shown through other curves: the isocentre is one place in both."""
    boxes = [(slice(0, 128), slice(0, 140)), (slice(14, 140), slice(0, 140))]
    cut, cut_views = truth.cropped(boxes), VIEWS.cropped(boxes)
    said = replace(cut_views, centre_mm=VIEWS.centre_mm)
    known = (Known("nobody", facing=False, centre=False),) * 2
    grey = [255 * (i / i.max()) ** gamma for i, gamma in zip(cut.images, (0.7, 1.3), strict=True)]
    off = {}
    for on in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VoxrayWarning)
            found = take_in(Radiograph(tuple(grey), said, "display", known=known), GRID, aligned=on)
        rows = [found.views.project_mm((0, 0, 0), n)[0] - cut_views.project_mm((0, 0, 0), n)[0] for n in range(2)]
        off[on] = abs(rows[0] - rows[1]) * 3.2 * 1550 / 1800
        assert [finding.correction is not None for finding in found.findings] == [on, on]
    assert max(off.values()) < 6.0, "mm; the images were cut 45 mm apart"


def test_tissue_that_came_out_too_dense_lowers_the_line_integrals() -> None:
    hu = torch.full(GRID.shape, -1000.0)
    hu[8:24, 8:24, 8:24] = 40.0
    usual, dense, air = (tissue_factor(CTVolume(values, GRID)) for values in (hu + 26, hu + 200, hu - 900))
    assert usual == pytest.approx(1.0)
    assert 1 / 1.35 <= dense < 0.85
    assert air == 1.0


def test_a_factor_is_in_images_curves_and_report_alike(truth: Radiograph) -> None:
    grey = Radiograph(tuple(255 * (i / i.max()) ** 0.7 for i in truth.images), VIEWS, "display")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)
        found = take_in(grey, GRID, aligned=False)
    denser = found.times(1.1)
    for before, after, image, changed in zip(
        found.findings, denser.findings, found.radiograph.images, denser.radiograph.images, strict=True
    ):
        assert torch.allclose(changed, 1.1 * image)
        shown = np.linspace(0, 255, 9)
        assert after.curve(shown) == pytest.approx(1.1 * before.curve(shown))
        assert after.correction is not None
        assert np.exp(after.correction.factor) == pytest.approx(1.1)
