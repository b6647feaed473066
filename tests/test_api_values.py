"""The Python interface: photon counts, and numbers that are not finite."""

from pathlib import Path

import pytest
import torch
from small_models import SETUP, patient, small_method, small_recipe, xrays_of

import voxray
from voxray.errors import InputError, NumericalError, VoxrayWarning
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.methods import Estimate
from voxray.methods.atlas import Atlas
from voxray.models import save_model
from voxray.physics.attenuation import transmit

VIEWS = ViewGeometry.biplanar(setup=SETUP)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("values") / "small"
    save_model(small_method(), small_recipe(3), folder, "")
    return folder


@pytest.fixture(scope="module")
def xrays() -> Radiograph:
    return xrays_of(patient(20), VIEWS)


def test_I4_O4_counts_become_line_integrals_before_anything_else(
    model: Path, xrays: Radiograph, tmp_path: Path
) -> None:
    expected = voxray.reconstruct(xrays, model=model)
    counts = Radiograph(tuple(transmit(image, 2e5) for image in xrays.images), VIEWS, "counts")
    with pytest.warns(VoxrayWarning, match="photon counts"):
        found = voxray.reconstruct(counts, model=model)
    assert (found.volume.hu - expected.volume.hu).abs().mean() < 5
    assert any("photon counts" in warning for warning in found.report.warnings)
    assert {given.kind for given in found.report.inputs} == {"counts"}, "as they were given"
    assert found.radiograph.kind == "line_integral"
    for one, other in zip(found.report.residuals, expected.report.residuals, strict=True):
        assert one.relative == pytest.approx(other.relative, rel=0.1)
    found.save(tmp_path / "out")


def test_N11_counts_without_a_photon_end_in_an_error(model: Path) -> None:
    dark = Radiograph(tuple(torch.zeros(64, 64) for _ in range(2)), VIEWS, "counts")
    with pytest.warns(VoxrayWarning, match="counts"), pytest.raises(InputError, match="X-ray 1 of 2 shows no photons"):
        voxray.reconstruct(dark, model=model)


def test_N11_a_method_that_leaves_the_finite_numbers_is_not_bad_input(
    model: Path, xrays: Radiograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Atlas, radiograph: Radiograph, **_: object) -> Estimate:
        return Estimate(CTVolume(torch.full(self.grid.shape, float("nan")), self.grid))

    monkeypatch.setattr(Atlas, "reconstruct", broken)
    with pytest.raises(NumericalError, match="model 'small' left the finite numbers"):
        voxray.reconstruct(xrays, model=model)


@pytest.mark.parametrize("name", ["mean", "around", "deviations"])
def test_N11_weights_that_are_not_finite_end_in_an_error(
    model: Path, xrays: Radiograph, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxray import api

    def load(*where: object) -> api.LoadedModel:
        loaded = api_load(*where)
        loaded.method.get_buffer(name)[..., 8:12, 8:12, 8:12] = float("nan")
        return loaded

    api_load = api.load_model
    monkeypatch.setattr(api, "load_model", load)
    with pytest.raises(NumericalError):
        voxray.reconstruct(xrays, model=model)
