"""Super-resolution: what it adds and leaves alone, patch by patch, and behind any model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import OPTIONS, QUICK
from contract_models import VIEWS, small
from small_models import GRID, patient, rng, small_method, small_recipe, write_store, xrays_of
from torch import Tensor

import voxray
from voxray.api import compare
from voxray.data.resample import resample
from voxray.errors import InputError, ModelError, RecipeError, VoxrayWarning
from voxray.examples import example_folder
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume
from voxray.images.read_ct import read_ct
from voxray.methods import Method
from voxray.methods.upsample import Upsample, coarsened
from voxray.methods.upsampled import Upsampled
from voxray.models import load_model, save_model
from voxray.nets.upsampling import doubled
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu
from voxray.recipes.recipe import parse_recipe
from voxray.training.order import seeded

# An atlas on voxels twice as large as those of the store: quick, and its results are to be upsampled.
COARSE = small_recipe(3).model_copy(
    update={"grid": small_recipe(3).grid.model_copy(update={"shape": (16, 16, 16), "spacing_mm": 20.0})}
)


def method(*overrides: str, detail: float = 0.0) -> Upsample:
    """Return the brief recipe's method; its network says nothing, or random things of the size of `detail`."""
    recipe = parse_recipe(small("upsample", brief=True).to_yaml(), "upsample", overrides)
    with seeded("tests", "upsample"):
        made = recipe.build()
        assert isinstance(made, Upsample)
        if detail:
            torch.nn.init.normal_(made.net.last.weight, std=detail)
    return made.eval()


def coarse_volume() -> CTVolume:
    grid = patient(1).volume.grid
    return CTVolume(coarsened(patient(1).volume.hu[None])[0], grid.coarser(2))


# ---------------------------------------------------------------- the network and its patches


@pytest.mark.filterwarnings("ignore:This model for finer voxels")
def test_the_embedded_model_is_nearer_to_a_scan_than_interpolation() -> None:
    """A scan that it has not learned from, made coarse; which is not the size of voxels that it knows."""
    scan = read_ct(example_folder() / "ct.nii.gz").hu[32:96, 32:96, 32:96]
    given = CTVolume(coarsened(scan[None])[0], VolumeGrid.centred(shape=(32, 32, 32), spacing_mm=5.0))
    found, interpolated = load_model("upsample").method.finer(given).hu, doubled(given.hu[None, None])[0, 0]
    assert (found - scan).abs().mean() < 0.6 * (interpolated - scan).abs().mean()


def test_a_network_that_has_not_learned_interpolates() -> None:
    volume = coarse_volume()
    fine = method().finer(volume)
    assert fine.grid.is_close(patient(1).volume.grid)
    assert torch.allclose(fine.hu, doubled(volume.hu[None, None])[0, 0], atol=1e-3)
    error = (fine.hu - patient(1).volume.hu).abs().mean()
    assert error < (fine.hu.roll(1, 2) - patient(1).volume.hu).abs().mean(), "voxels stand where they did"


def test_scans_are_made_coarse_as_they_are_prepared() -> None:
    fine = patient(1).volume
    expected = resample(fine, fine.grid.coarser(2)).hu
    inner = (slice(2, -2),) * 3
    assert (coarsened(fine.hu[None])[0] - expected)[inner].abs().max() < 3


def test_patches_leave_no_seams() -> None:
    """Where patches meet, the result is that of one large patch, and no step is larger than there."""
    volume = CTVolume(torch.nn.functional.interpolate(patient(1).volume.hu[None, None], (48, 48, 48))[0, 0],
                      VolumeGrid.centred(shape=(48, 48, 48), spacing_mm=20.0))  # fmt: skip
    whole, patched = (method(f"config.window={side}", detail=0.3).finer(volume).hu for side in (48, 24))
    added = whole - doubled(volume.hu[None, None])[0, 0]
    assert added.abs().mean() > 5, "the network says something"
    assert (patched - whole).abs().mean() < 0.1 * added.abs().mean()
    inner = (slice(16, -16),) * 3
    for axis in range(3):
        steps = [v[inner].diff(dim=axis).abs().amax(tuple(a for a in range(3) if a != axis)) for v in (patched, whole)]
        assert (steps[0] < 1.2 * steps[1] + 20).all()


def test_what_is_beyond_the_range_is_kept() -> None:
    volume = CTVolume(torch.full((16, 16, 16), 3000.0), GRID.coarser(2))
    assert torch.allclose(method().finer(volume).hu, torch.tensor(3000.0))


def test_voxels_of_another_size_are_warned_about() -> None:
    volume = CTVolume(torch.zeros(16, 16, 16), VolumeGrid.centred(shape=(16, 16, 16), spacing_mm=2.5))
    with pytest.warns(VoxrayWarning, match=r"learned from voxels of 20 mm, the volume has 2.5 mm"):
        method().finer(volume)


def test_a_grid_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"even, and at least config\.crop"):
        method("grid.shape=[32,33,32]")


# ---------------------------------------------------------------- behind any model


@pytest.fixture(scope="module")
def coarse() -> Method:
    made = COARSE.build()
    for stage in made.stages():
        stage.fit([on_coarse(seed) for seed in range(3)], None)
    return made


def on_coarse(seed: int):  # type: ignore[no-untyped-def]
    case = patient(seed)
    volume = CTVolume(coarsened(case.volume.hu[None])[0], case.volume.grid.coarser(2))
    return type(case)(case.record, volume, case.scan)


def test_a_finer_result_has_its_own_projections_and_an_interpolated_deviation(coarse: Method) -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    plain = coarse.reconstruct(radiograph, rng=rng(), samples=2)
    fine = Upsampled(coarse, method(detail=0.3)).reconstruct(radiograph, rng=rng(), samples=2)
    assert fine.volume.grid.is_close(plain.volume.grid.finer(2))
    assert fine.std is not None and plain.std is not None  # noqa: PT018
    assert torch.allclose(fine.std.hu, doubled(plain.std.hu[None, None])[0, 0])
    assert fine.std.grid == fine.volume.grid == fine.samples[0].grid
    assert len(fine.samples) == 2

    # The body around is seen as before: what is left beside the volume is the same for both.
    def around(estimate) -> list[Tensor]:  # type: ignore[no-untyped-def]
        seen = Projector(estimate.volume.grid, VIEWS).forward(hu_to_mu(estimate.volume.hu))
        return [a - b for a, b in zip(estimate.reprojections, seen, strict=True)]

    for one, two in zip(around(fine), around(plain), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


def test_a_mean_is_made_finer_too(coarse: Method) -> None:
    fine = Upsampled(coarse, None)
    mean = fine.plain_mean(VIEWS)
    assert mean is not None
    assert mean.volume.grid.is_close(fine.grid)
    assert fine.grid == coarse.grid.finer(2)
    assert [stage.name for stage in fine.stages()] == [stage.name for stage in coarse.stages()]


@pytest.fixture(scope="module")
def models(coarse: Method, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upsampling")
    save_model(coarse, COARSE, folder / "coarse", "")
    save_model(method(detail=0.3), small("upsample", brief=True), folder / "finer", "")
    return folder


def test_reconstruct_makes_results_finer(models: Path) -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    plain = voxray.reconstruct(radiograph, model=models / "coarse")
    fine = voxray.reconstruct(radiograph, model=models / "coarse", upsample=2, upsample_model=models / "finer")
    linear = voxray.reconstruct(radiograph, model=models / "coarse", upsample=2, upsample_model="linear")
    assert fine.volume.hu.shape == (32, 32, 32)
    assert fine.report.grid.shape == (32, 32, 32)
    assert fine.report.grid.spacing_mm == pytest.approx((10, 10, 10))
    assert np.allclose(fine.volume.grid.centre_mm, plain.volume.grid.centre_mm)
    assert fine.report.method["upsample"]["model"] == "finer"  # type: ignore[index, call-overload]
    assert linear.report.method["upsample"] == {"factor": 2, "model": "linear"}
    assert fine.radiograph.views.shapes == plain.radiograph.views.shapes, "the model sees the X-rays as ever"
    assert torch.allclose(linear.volume.hu, doubled(plain.volume.hu[None, None])[0, 0])
    assert not torch.allclose(fine.volume.hu, linear.volume.hu)
    assert [r.relative for r in linear.report.residuals] == pytest.approx(
        [r.relative for r in plain.report.residuals], abs=0.1
    )


def test_what_cannot_make_results_finer_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    with pytest.raises(InputError, match="by 2, or not at all"):
        voxray.reconstruct(radiograph, model=models / "coarse", upsample=3)
    with pytest.raises(ModelError, match=r"'coarse' makes no volume finer.*voxray train upsample"):
        voxray.reconstruct(radiograph, model=models / "coarse", upsample=2, upsample_model=models / "coarse")
    with pytest.raises(ModelError, match=r"no model 'none'.*voxray train upsample.*--upsample-model.*'linear'"):
        voxray.reconstruct(radiograph, model=models / "coarse", upsample=2, upsample_model="none")
    with pytest.raises(ModelError, match="'atlas' makes no volume finer"):
        small_method().finer(coarse_volume())


def test_models_are_compared_with_finer_results(models: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"val": [20]})
    coarse, finer = models / "coarse", models / "finer"
    evaluation = compare(
        [f"{coarse}{QUICK}:upsample=linear", f"{coarse}{QUICK}:upsample={finer}"], store, tmp_path / "out",
        options=replace(OPTIONS, metrics=("psnr3d",)),
    )  # fmt: skip
    scores = {row.model: row.scores["psnr3d"] for row in evaluation.rows}
    assert len(set(scores.values())) == len(scores) >= 3
    assert any(model.endswith("upsample=finer") for model in scores), "the name of the folder, not its path"
    with pytest.raises(InputError, match="name one"):
        compare([f"{coarse}:upsample=linear:upsample={finer}"], store, tmp_path / "again")
    with pytest.raises(InputError, match="grid"):
        compare([str(coarse)], store, tmp_path / "again")
