"""The tasks of DVG-Diffusion's Table VI."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_models import SETUP
from trial_maker import GRID, chest, make_trial

from voxray.evaluation.trial import Trial
from voxray.evaluation.view_synthesis import METRICS
from voxray.geometry import ViewGeometry
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

NAMES = ["psnr_view45", "ssim_view45", "psnr_view90", "ssim_view90"]


def scores(trial: Trial) -> dict[str, float | None]:
    return {metric.name: metric.of(trial) for metric in METRICS}


def blurred() -> torch.Tensor:
    return torch.nn.functional.avg_pool3d(chest()[None], 3, stride=1, padding=1)[0]


def test_N10_scores_are_scikit_images_in_the_range_of_the_true_image() -> None:
    found = scores(make_trial(chest(), blurred(), views=ViewGeometry.from_angles([0], setup=SETUP)))
    assert list(found) == NAMES
    for angle in (45, 90):
        projector = Projector(GRID, ViewGeometry.from_angles([angle], setup=SETUP))
        image, truth = (projector.forward(hu_to_mu(hu))[0].double().numpy() for hu in (blurred(), chest()))
        width = truth.max() - truth.min()
        assert width > 1
        assert found[f"psnr_view{angle}"] == pytest.approx(
            peak_signal_noise_ratio(truth, image, data_range=width), abs=1e-3
        )
        assert found[f"ssim_view{angle}"] == pytest.approx(
            structural_similarity(truth, image, data_range=width), abs=1e-4
        )


@pytest.mark.parametrize(("given", "tasks"), [
    ([0], NAMES), ([30], NAMES), ([0, 90], NAMES[:2]), ([0, 270], NAMES[:2]), ([90, 0], NAMES[:2]),
    ([0, 45], NAMES[2:]), ([0, 225], NAMES[2:]), ([0, 45, 90], []), ([0, 46], NAMES),
])  # fmt: skip
def test_a_view_that_was_given_is_no_task(given: list[float], tasks: list[str]) -> None:
    found = scores(make_trial(chest(), blurred(), views=ViewGeometry.from_angles(given, setup=SETUP)))
    assert [name for name, value in found.items() if value is not None] == tasks


def test_N10_the_truth_is_synthesised_perfectly() -> None:
    found = scores(make_trial(chest(), chest(), views=ViewGeometry.from_angles([0], setup=SETUP)))
    assert found == {"psnr_view45": math.inf, "ssim_view45": pytest.approx(1), "psnr_view90": math.inf,
                     "ssim_view90": pytest.approx(1)}  # fmt: skip


def test_a_truth_without_a_shadow_is_no_task() -> None:
    assert set(scores(make_trial(torch.full(GRID.shape, -1024.0), chest())).values()) == {None}
