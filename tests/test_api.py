"""The Python interface, from files to files: what it promises about results, reports and outputs."""

import dataclasses
import json
import random
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from skimage.io import imsave
from small_models import ISOCENTRE_MM, SETUP, patient, small_method, small_recipe, write_store, xrays_of

import voxray
from voxray.api import EvaluateOptions
from voxray.defaults import DEFAULT_MODEL
from voxray.errors import (
    GeometryError,
    InputError,
    ModelError,
    NumericalError,
    ResourceError,
    VoxrayWarning,
)
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.images.read_ct import read_ct
from voxray.images.report import Report
from voxray.images.write_radiograph import write_radiograph
from voxray.images.xray import ReadOptions
from voxray.models import save_model
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu
from voxray.physics.sampling import ray_march

VIEWS = ViewGeometry.biplanar(setup=SETUP)
NAME = "Müller^Änne"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "small"
    save_model(small_method(), small_recipe(3), folder, "")
    return folder


@pytest.fixture(scope="module")
def xrays() -> Radiograph:
    return xrays_of(patient(20), VIEWS)


def write_dicom(path: Path, image: torch.Tensor, view: str, row: str) -> Path:
    """Write an X-ray as a hospital would: 12 bits, with the patient's name, without distances."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientID, ds.PatientName = "CR", "P-4711", NAME
    ds.StudyInstanceUID, ds.StudyDate, ds.ViewPosition = "1.2.3", "20200102", view
    ds.PatientOrientation, ds.ImagerPixelSpacing = ["L" if row == "L" else "A", "F"], [6.4, 6.4]
    ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = (4000 * image / image.max()).numpy().astype(np.uint16).tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


# ---------------------------------------------------------------- results


def test_D1_the_same_seed_gives_the_same_bits_and_another_other_samples(model: Path, xrays: Radiograph) -> None:
    first, again, other = (voxray.reconstruct(xrays, model=model, seed=seed, samples=2) for seed in (1, 1, 2))
    assert torch.equal(first.volume.hu, again.volume.hu)
    assert torch.equal(first.samples[1].hu, again.samples[1].hu)
    assert not torch.equal(first.samples[1].hu, other.samples[1].hu)
    assert first.std is not None
    assert torch.allclose(first.std.hu, torch.stack([s.hu for s in first.samples]).std(0))
    single = voxray.reconstruct(xrays, model=model)
    assert (single.samples, single.std) == ((), None)
    assert torch.equal(single.volume.hu, first.volume.hu)


def test_D2_the_number_of_threads_hardly_matters(model: Path, xrays: Radiograph) -> None:
    before = torch.get_num_threads(), numba.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            results.append(voxray.reconstruct(xrays, model=model).volume.hu)
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
    assert (results[0] - results[1]).abs().mean() < 1e-4 * 2500


def test_D3_the_global_random_state_is_left_alone(model: Path, xrays: Radiograph, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"val": [20]})
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    voxray.reconstruct(xrays, model=model, samples=2).save(tmp_path / "out")
    voxray.project(patient(20).volume, VIEWS.shifted(ISOCENTRE_MM), photons=1e4, seed=3)
    voxray.evaluate(model, store, options=EvaluateOptions(setup=SETUP))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # type: ignore[index]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_any_number_of_views(model: Path, count: int) -> None:
    radiograph = xrays_of(patient(20), ViewGeometry.circular(count, setup=SETUP))
    result = voxray.reconstruct(radiograph, model=model)
    assert [residual.view for residual in result.report.residuals] == list(radiograph.views.names)
    assert all(residual.relative < 0.15 for residual in result.report.residuals)


def test_files_of_oblique_views_about_any_isocentre(model: Path, tmp_path: Path) -> None:
    views = ViewGeometry.from_angles([20, 110], [15, -5], setup=SETUP, names=("first", "second"))
    xrays = xrays_of(patient(20), views)
    *files, _, geometry = write_radiograph(Radiograph(xrays.images, views.shifted(ISOCENTRE_MM)), tmp_path / "x")
    result = voxray.reconstruct(files[::-1], model=model, geometry=geometry)
    assert result.volume.grid.is_close(patient(20).volume.grid)
    assert (result.volume.hu - voxray.reconstruct(xrays, model=model).volume.hu).abs().mean() < 1
    assert result.radiograph.views.names == ("first", "second")


def test_fine_xrays_are_binned_to_half_a_voxel(model: Path) -> None:
    fine = xrays_of(patient(20), VIEWS.resized([(256, 320), (128, 64)]))  # of 1.6 x 1.28 and 3.2 x 6.4 mm
    result = voxray.reconstruct(fine, model=model)
    assert [tuple(image.shape) for image in result.radiograph.images] == [(85, 80), (128, 64)]
    assert [tuple(image.shape) for image in result.reprojections] == [(85, 80), (128, 64)]
    assert [image.shape for image in result.report.inputs] == [(256, 320), (128, 64)], "the report says what went in"


def test_pictures_of_unknown_scale(model: Path, xrays: Radiograph, tmp_path: Path) -> None:
    for name, image in zip(("chest_pa.png", "chest_lat.png"), xrays.images, strict=True):
        imsave(tmp_path / name, (60000 * image / image.max()).numpy().astype(np.uint16), check_contrast=False)
    with pytest.warns(VoxrayWarning) as said:
        result = voxray.reconstruct(
            [tmp_path / "chest_pa.png", tmp_path / "chest_lat.png"], model=model, options=ReadOptions(pixel_mm=6.4)
        )
    assert result.radiograph.kind == "display"
    assert any("unknown scale" in str(w.message) for w in said)
    assert any("unknown scale" in text for text in result.report.warnings)
    truth, mean = patient(20).volume.hu, torch.stack([patient(seed).volume.hu for seed in range(3)]).mean(0)
    assert (result.volume.hu - truth).square().mean() < (mean - truth).square().mean()


def test_the_embedded_model_reconstructs() -> None:
    if DEFAULT_MODEL not in {info.name for info in voxray.list_models()}:
        pytest.skip("this checkout holds no embedded model")
    radiograph = xrays_of(patient(20), VIEWS)
    result = voxray.reconstruct(radiograph)
    assert result.volume.grid.shape == (128, 128, 128)
    small = torch.nn.functional.avg_pool3d(result.volume.hu[None], 4)[0]
    truth = patient(20).volume.hu
    assert (small - truth).square().mean() < 0.9 * (small.flip(2) - truth).square().mean()
    assert all(residual.relative < 0.1 for residual in result.report.residuals)


# ---------------------------------------------------------------- report


def test_O4_the_report_is_valid_and_does_not_say_who_it_is(
    model: Path, xrays: Radiograph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        write_dicom(tmp_path / "Müller Änne pa.dcm", xrays.images[0], "PA", "L"),
        write_dicom(tmp_path / "Müller Änne lat.dcm", xrays.images[1], "LL", "A"),
    ]
    with pytest.warns(VoxrayWarning) as shown:
        result = voxray.reconstruct(files, model=model, seed=7)
    written = result.save(tmp_path / "out", formats=("nifti", "dicom"))
    assert written[-1] == tmp_path / "out" / "report.json", "it stands for completeness"
    text = written[-1].read_text(encoding="utf-8")
    report = Report.model_validate_json(text)
    for secret in ("Müller", "Änne", "M\\u00fc", "P-4711", str(tmp_path), '1.2.3"', "20200102"):
        assert secret not in text
    assert not any("Müller".encode() in f.read_bytes() or b"P-4711" in f.read_bytes() for f in written[1].iterdir())
    assert {str(w.message) for w in shown if issubclass(w.category, VoxrayWarning)} >= {
        w for w in report.warnings if "'" not in w
    }
    assert len(report.warnings) >= 2, "the distances and the scale are assumed"
    assert (report.seed, report.device, report.model.name) == (7, "cpu", "small")
    assert report.model.recipe["config"]["scans"] == 3  # type: ignore[index, call-overload]
    assert [image.view for image in report.inputs] == list(result.radiograph.views.names)
    assert all(image.sha256 for image in report.inputs)
    assert set(report.seconds) == {"read", "load model", "reconstruct", "judge"}
    assert {r.view for r in report.residuals} == set(result.radiograph.views.names)
    kept = voxray_with_phi(files, model)
    assert kept.inputs[0].file == "Müller Änne pa.dcm"
    assert kept.inputs[0].patient_name == NAME


def voxray_with_phi(files: list[Path], model: Path) -> Report:
    with pytest.warns(VoxrayWarning):
        return voxray.reconstruct(files, model=model, keep_phi=True).report


def test_warnings_are_shown_and_reported_once(model: Path, xrays: Radiograph) -> None:
    grey = Radiograph(tuple(100 * image for image in xrays.images), VIEWS, "display")
    with pytest.warns(VoxrayWarning, match="unknown scale") as shown:
        result = voxray.reconstruct(grey, model=model)
    assert [w for w in result.report.warnings if "unknown scale" in w] == result.report.warnings
    assert len(shown) == len(result.report.warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert voxray.reconstruct(xrays, model=model).report.warnings == []


def test_what_was_assumed_is_shown_even_if_it_fails_then(tmp_path: Path, xrays: Radiograph) -> None:
    path = write_dicom(tmp_path / "pa.dcm", xrays.images[0], "PA", "L")
    with pytest.warns(VoxrayWarning), pytest.raises(ModelError, match="no model 'nobody'"):
        voxray.reconstruct([path], model="nobody")


# ---------------------------------------------------------------- outputs


def test_I12_results_are_written_in_every_format_and_never_over_others(
    model: Path, xrays: Radiograph, tmp_path: Path
) -> None:
    result, out = voxray.reconstruct(xrays, model=model, samples=2), tmp_path / "deep" / "out"
    formats = ("nifti", "nrrd", "mha", "dicom")
    written = result.save(out, formats=formats, truth=patient(20).volume)
    volumes = {f"{name}{end}" for name in ("ct", "sample_1", "sample_2", "std") for end in (".nii.gz", ".nrrd", ".mha")}
    assert {path.name for path in out.iterdir()} == volumes | {"dicom", "preview.png", "report.json"}
    assert set(written) == set(out.iterdir())
    for name in ("ct.nii.gz", "ct.nrrd", "ct.mha", "dicom"):
        again = read_ct(out / name)
        assert again.grid.is_close(result.volume.grid, 1e-3)
        assert (again.hu - result.volume.hu).abs().max() <= 0.5001 or name == "dicom"
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(InputError, match="exists already"):
        result.save(out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    result.save(out, formats=formats, overwrite=True)
    assert all(path.stat().st_mtime_ns > before[path] for path in out.iterdir())


def test_I12_nothing_of_a_former_result_is_left_under_a_new_report(
    model: Path, xrays: Radiograph, tmp_path: Path
) -> None:
    sure = voxray.reconstruct(xrays, model=model, samples=2)
    grid = sure.volume.grid
    ends = (CTVolume((sure.volume.hu - 50).clamp_min(-1000), grid), CTVolume(sure.volume.hu + 90, grid))
    dataclasses.replace(sure, interval=ends).save(tmp_path / "out", formats=("nifti", "mha", "dicom"))
    for name, end in zip(("low90", "high90"), ends, strict=True):
        assert (read_ct(tmp_path / "out" / f"{name}.nii.gz").hu - end.hu).abs().max() <= 0.5001
    others = ("ct.txt", "sample_of_blood.nrrd", "ct.nii")
    for name in others:
        (tmp_path / "out" / name).write_text("not of voxray")
    result = voxray.reconstruct(xrays, model=model)
    result.save(tmp_path / "out", formats=("nrrd",), overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*others, "ct.nrrd", "preview.png", "report.json"}
    (tmp_path / "out" / "preview.png").unlink()
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(InputError, match=r"ct\.nrrd' exists already"):
        result.save(tmp_path / "out", formats=("nifti",))


def test_I12_nothing_of_former_xrays_is_left_beside_new_ones(xrays: Radiograph, tmp_path: Path) -> None:
    out = tmp_path / "x"
    write_radiograph(xrays, out)
    (out / "notes.nii.gz").write_text("not of voxray")
    pa = Radiograph(xrays.images[:1], VIEWS.subset([0]))
    write_radiograph(pa, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {"pa.nii.gz", "notes.nii.gz", "preview.png", "geometry.json"}
    (out / "geometry.json").write_text((out / "geometry.json").read_text().replace('"pa"', '"../far"'))
    (tmp_path / "far.nii.gz").write_text("not of voxray")
    write_radiograph(pa, out, overwrite=True)
    assert (tmp_path / "far.nii.gz").exists(), "a name from a file leads nowhere else"


def test_O1_a_stop_in_the_middle_leaves_no_half_file_and_no_report(
    model: Path, xrays: Radiograph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = voxray.reconstruct(xrays, model=model), tmp_path / "out"
    result.save(out)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", stop)
    with pytest.raises(KeyboardInterrupt):
        result.save(out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["ct.nii.gz"], "nothing of the former run"
    read_ct(out / "ct.nii.gz")
    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ct.nii.gz"]


def test_I12_a_place_that_cannot_be_written_to_is_said(model: Path, xrays: Radiograph, tmp_path: Path) -> None:
    result = voxray.reconstruct(xrays, model=model)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot be written to"):
            result.save(place)
    with pytest.raises(InputError, match=r"Unknown format 'jpeg'; the formats are nifti, nrrd, mha, dicom"):
        result.save(tmp_path / "out", formats=("jpeg",))
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- project


def test_project_is_the_projector_or_the_march_with_noise_of_its_seed() -> None:
    ct, views = patient(20).volume, VIEWS.shifted(ISOCENTRE_MM)
    clean = voxray.project(ct, views)
    for image, expected in zip(clean.images, Projector(ct.grid, views).forward(hu_to_mu(ct.hu)), strict=True):
        assert torch.equal(image, expected)
    marched = voxray.project(ct, views, step_voxels=0.5)
    assert torch.equal(marched.images[0], ray_march(hu_to_mu(ct.hu), ct.grid, views, 0.5)[0])
    noisy, again, other = (voxray.project(ct, views, photons=1e4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(noisy.images[1], again.images[1])
    assert not torch.equal(noisy.images[1], other.images[1])
    assert (noisy.images[1] - clean.images[1]).abs().mean() < 0.3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"photons": 0.0}, InputError, "photons must be positive"),
        ({"photons": float("nan")}, InputError, "photons must be positive"),
        ({"step_voxels": 0.0}, InputError, "A step is more than 0"),
        ({"photons": 1e4, "seed": -1}, InputError, "A seed is"),
        ({"views": VIEWS.shifted((0, -1550, 0))}, GeometryError, "lies inside the volume"),
        ({"ct": "nothing.nii"}, InputError, "nothing.nii"),
    ],
)
def test_what_cannot_be_projected_is_said(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        voxray.project(**({"ct": patient(20).volume, "views": VIEWS} | arguments))  # type: ignore[arg-type]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"outside": "space"}, InputError, "outside is one of body, air, not 'space'"),
        ({"samples": 0}, InputError, "At least one sample"),
        ({"seed": 2**63}, InputError, "A seed is"),
        ({"device": "abacus"}, ResourceError, "device 'abacus' cannot be used here; 'cpu' always can"),
        ({"device": "meta"}, ResourceError, "device 'meta' is not supported"),
        ({"model": "nobody"}, ModelError, "There is no model 'nobody'"),
        ({"views": ["pa", "lateral"]}, InputError, "has its views already"),
        ({"options": ReadOptions()}, InputError, "has its views already"),
    ],
)
def test_what_cannot_be_reconstructed_is_said(
    model: Path, xrays: Radiograph, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        voxray.reconstruct(xrays, **({"model": model} | arguments))  # type: ignore[arg-type]


def test_bad_files_are_said(model: Path, xrays: Radiograph, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No X-ray file"):
        voxray.reconstruct([], model=model)
    files = write_radiograph(xrays, tmp_path / "x")[:2]
    for name, content in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"views": {}}'), ("d.json", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=name):
            voxray.reconstruct(files, model=model, geometry=tmp_path / name)
    with pytest.raises(InputError, match="There is no file"):
        voxray.reconstruct(files, model=model, geometry=tmp_path / "none.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_N11_xrays_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="view 'pa' has pixels that are not finite"):
        Radiograph((torch.full((64, 64), value), torch.zeros(64, 64)), VIEWS)


@pytest.mark.parametrize("value", [1e6, 1e20, 1e33, 1e36, 3e38, -1e30])
def test_N11_no_number_that_is_not_finite_leaves(model: Path, value: float) -> None:
    huge = Radiograph(tuple(torch.full((64, 64), value) for _ in range(2)), VIEWS)
    try:
        result = voxray.reconstruct(huge, model=model)
    except NumericalError:
        return
    assert torch.isfinite(result.volume.hu).all()
    assert json.loads(result.report.model_dump_json())["residuals"][0]["rms"] >= 0
