"""The tasks of DVG-Diffusion's Table VI."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_models import SETUP
from torch import nn
from trial_maker import GRID, chest, make_trial

from voxray.evaluation import view_synthesis
from voxray.evaluation.lpips import FOLDER_VARIABLE
from voxray.evaluation.trial import Trial
from voxray.evaluation.view_synthesis import METRICS
from voxray.geometry import Setup, ViewGeometry
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

NAMES = ["psnr_view45", "ssim_view45", "psnr_view90", "ssim_view90"]


def scores(trial: Trial) -> dict[str, float | None]:
    return {metric.name: metric.of(trial) for metric in METRICS if metric.name in NAMES}


class Difference(nn.Module):
    """The mean difference of two images, in place of LPIPS."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))


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


def test_lpips_is_of_the_true_images_range_where_its_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {metric.name: metric for metric in METRICS if metric.name not in NAMES}
    assert list(found) == ["lpips_view45", "lpips_view90"]
    tried = make_trial(chest(), 1.5 * chest(), views=ViewGeometry.biplanar(setup=SETUP))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert found["lpips_view45"].of(tried) is None

    monkeypatch.setattr(view_synthesis, "user_model", lambda net, device: Difference())
    assert found["lpips_view90"].of(tried) is None  # it was given
    projector = Projector(GRID, ViewGeometry.from_angles([45], setup=SETUP))
    image, truth = (projector.forward(hu_to_mu(hu))[0] for hu in (1.5 * chest(), chest()))
    assert image.max() > truth.max()
    apart = (image.clamp(max=truth.max()) - truth).abs().mean() / (truth.max() - truth.min())
    assert found["lpips_view45"].of(tried) == pytest.approx(2 * float(apart), rel=1e-4)
    small = make_trial(chest(), chest(), views=ViewGeometry.biplanar(setup=Setup(1800.0, 1550.0, 25.6, (15, 16))))
    assert found["lpips_view45"].of(small) is None


def test_a_truth_without_a_shadow_is_no_task() -> None:
    assert set(scores(make_trial(torch.full(GRID.shape, -1024.0), chest())).values()) == {None}
