"""Promise O4: the report says everything that repeats a result, and nothing of who the patient is."""

import hashlib
import json
import math
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Origin, Radiograph
from voxray.images.report import (
    Grid,
    Model,
    Report,
    Residual,
    describe_inputs,
    hashed_name,
    hide_names,
    measure_residuals,
    peak_memory_mb,
    sha256_file,
)

SECRETS = ("Müller", "Muller", "Anna", "PID-77", "20210304", "1.2.3.4")


@pytest.fixture
def radiograph(tmp_path: Path) -> Radiograph:
    """Two X-rays whose files, folder and tags name a patient."""
    folder = tmp_path / "Müller_Anna"
    folder.mkdir()
    origins = []
    for name in ("Müller Anna PA.dcm", "Müller Anna LAT.dcm"):
        (folder / name).write_bytes(name.encode())
        origins.append(Origin(folder / name, "1.2", "1.2.3.4", "1.2.3.4.5", "PID-77", "Müller^Anna", "20210304"))
    views = ViewGeometry.biplanar().resized([(8, 10), (8, 12)])
    return Radiograph((torch.ones(8, 10), torch.full((8, 12), 2.0)), views, origins=tuple(origins))


def report_on(radiograph: Radiograph, keep_phi: bool = False) -> Report:
    warning = f"'{radiograph.origins[0].path}' has no pixel spacing (patient Müller, Anna): 1.6 mm is assumed."
    return Report(
        model=Model(name="atlas", recipe={"method": "atlas", "shape": [4, 5, 6]}, weights_sha256="0" * 64),
        inputs=describe_inputs(radiograph, keep_phi),
        geometry=json.loads(radiograph.views.to_json()),
        grid=Grid.of(VolumeGrid.centred(shape=(4, 5, 6), spacing_mm=(1.0, 2.0, 3.0))),
        seed=1,
        device="cpu",
        seconds={"read": 0.1, "reconstruct": 2.0},
        peak_memory_mb=peak_memory_mb(),
        warnings=[hide_names(warning, radiograph)],
        residuals=measure_residuals(radiograph, [torch.zeros(8, 10), torch.full((8, 12), 2.5)]),
        method={"iterations": 20},
    )


def test_O4_the_report_is_valid_by_its_own_schema_and_reads_back(tmp_path: Path, radiograph: Radiograph) -> None:
    report = report_on(radiograph)
    report.write(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    schema = Report.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(text), schema)
    assert Report.model_validate_json(text) == report
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(text) | {"unknown": 1}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(text), "seed": "one"}, schema)


def test_O4_the_report_says_what_repeats_the_result(tmp_path: Path, radiograph: Radiograph) -> None:
    report_on(radiograph).write(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["disclaimer"] == "Research software, not a medical device. Synthetic: not for diagnosis."
    assert data["schema_version"] == 1
    assert data["software"]["torch"] == torch.__version__
    assert data["software"]["numpy"] == np.__version__
    assert [given["view"] for given in data["inputs"]] == ["pa", "lateral"]
    assert data["inputs"][0]["sha256"] == hashlib.sha256("Müller Anna PA.dcm".encode()).hexdigest()
    assert data["inputs"][0]["file"] == hashed_name(Path("/elsewhere/Müller Anna PA.dcm"))
    assert data["inputs"][0]["shape"] == [8, 10]
    np.testing.assert_allclose(data["inputs"][0]["pixel_mm"], [1.6 * 256 / 8, 1.6 * 256 / 10])
    assert ViewGeometry.from_json(json.dumps(data["geometry"])) == radiograph.views
    assert data["grid"]["shape"] == [4, 5, 6]
    assert data["grid"]["spacing_mm"] == [1, 2, 3]
    assert data["peak_memory_mb"]["cpu"] > 10


def test_O4_no_patient_data_unless_asked_for(tmp_path: Path, radiograph: Radiograph) -> None:
    report_on(radiograph).write(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    readable = json.dumps(json.loads(text), ensure_ascii=False)
    for secret in SECRETS:
        assert secret not in text
        assert secret not in readable
        assert json.dumps(secret)[1:-1] not in text
    assert "1.6 mm is assumed" in text
    kept = [given.model_dump() for given in describe_inputs(radiograph, keep_phi=True)]
    assert kept[0]["file"] == "Müller Anna PA.dcm"
    assert (kept[0]["patient_name"], kept[0]["patient_id"]) == ("Müller^Anna", "PID-77")


def test_O4_messages_lose_every_name_and_path_and_nothing_else(radiograph: Radiograph) -> None:
    path = radiograph.origins[0].path
    hidden = hashed_name(path)
    assert hide_names(f"'{path}' and {path.name}", radiograph) == f"'{hidden}' and {hidden}"
    assert hide_names(f"{path.stem} is missing", radiograph) == f"{hashed_name(Path(path.stem))} is missing"
    elsewhere = hide_names("'/home/smith/scan' and 'smith.nii.gz' were read", radiograph)
    assert "smith" not in elsewhere
    assert elsewhere.endswith(".nii.gz' were read")
    for quoted in ("'/home/O'Brien/scan.dcm'", '"/home/O\'Brien/scan.dcm"', "'O'Brien.dcm'"):
        assert "Brien" not in hide_names(f"{quoted} was read", radiograph)
    plain = "View 'pa': no source distance; 1800 mm ('chest') is assumed, or '12.5'. It's 3/4 done, isn't it."
    assert hide_names(plain, radiograph) == plain


def test_O4_short_patient_names_do_not_garble_messages(radiograph: Radiograph) -> None:
    origin = Origin(Path("pa.png"), patient_id="1", patient_name="An")
    short = Radiograph(radiograph.images, radiograph.views, origins=(origin, origin))
    assert hide_names("1800 mm is assumed. And more", short) == "1800 mm is assumed. And more"


def test_O4_only_whole_names_are_hidden_and_no_options() -> None:
    views = ViewGeometry.biplanar().resized([(4, 4), (4, 4)])
    origins = (Origin(Path("d/pa.png")), Origin(Path("d/lateral.png"), patient_id="180", patient_name="Doe^Ann"))
    xrays = Radiograph((torch.zeros(4, 4), torch.zeros(4, 4)), views, "display", origins)
    said = "say --lateral-anterior left; 1800 mm, 1180 mm and 0.1801 mm, Annulus, the lateral view"
    assert hide_names(said, xrays) == said
    found = hide_names("lateral.png: ID 180, DOE_ANN, Doe^Ann, 'doe', (Ann) '/x/Doe' \"a's/Ann\"", xrays).lower()
    for secret in ("lateral", "180", "doe", "ann"):
        assert secret not in found.replace(hashed_name(Path("180")), "")
    zipped = Radiograph(xrays.images, views, origins=(Origin(Path("Doe.nii.gz")), Origin(Path("Frame.png"))))
    assert "Doe" not in hide_names("Doe is missing", zipped)
    assert hide_names("there is no frame 3", zipped) == "there is no frame 3"


def test_O4_every_path_in_quotes_is_hidden(radiograph: Radiograph) -> None:
    for text in (
        "x ' y '/home/Smith' z", "'pa' '/home/Smith/'", "5' '/home/Smith' and 'Smith.png'", "'/a/' '/home/Smith'",
        "'/home/O\\'Brien \"Smith\"/x'", "\"/home/a' 'Smith/x\"", "'C:\\Smith\\'", "('Smith.nii.gz')",
    ):  # fmt: skip
        assert "Smith" not in hide_names(text, radiograph), text


@pytest.mark.parametrize("unit", ["'", "a'", "'a", " 'a", "a'a ", "\"a'b", "' ", '"', "\"'", "'/", "a\\'"])
def test_O4_hiding_takes_no_longer_than_reading(radiograph: Radiograph, unit: str) -> None:
    for before, after in (("", ""), ("'", "x"), ('"', "x"), ('"a', '"x'), ("'a", "'x")):
        start = time.process_time()
        hide_names(before + 10_000 * unit + after, radiograph)
        assert time.process_time() - start < 1


def test_O4_images_without_a_file_are_described_too(radiograph: Radiograph) -> None:
    bare = Radiograph(radiograph.images, radiograph.views, "display")
    assert [(given.file, given.sha256, given.kind) for given in describe_inputs(bare)] == [
        (None, None, "display"),
        (None, None, "display"),
    ]


def test_O4_residuals_are_root_mean_squares(radiograph: Radiograph) -> None:
    pa, lateral = measure_residuals(radiograph, [torch.zeros(8, 10), torch.full((8, 12), 2.5)])
    assert pa == Residual(view="pa", rms=1.0, relative=1.0)
    assert lateral == Residual(view="lateral", rms=0.5, relative=0.25)
    with pytest.raises(InputError, match="2 X-rays, but 1"):
        measure_residuals(radiograph, [torch.zeros(8, 10)])
    with pytest.raises(InputError, match="'lateral' has"):
        measure_residuals(radiograph, [torch.zeros(8, 10), torch.zeros(12, 8)])


def test_O4_what_is_not_a_report_is_refused(radiograph: Radiograph) -> None:
    data = report_on(radiograph).model_dump()
    for wrong in ({"seed": "1"}, {"extra": 1}, {"seconds": {"read": math.nan}}, {"schema_version": 2}):
        with pytest.raises(ValidationError):
            Report.model_validate(data | wrong)


def test_O4_hashed_names_keep_a_known_ending_only() -> None:
    assert hashed_name(Path("a/Doe.NII.GZ")) == hashed_name(Path("b/Doe.NII.GZ"))
    assert hashed_name(Path("Doe.NII.GZ")).endswith(".nii.gz")
    assert "." not in hashed_name(Path("John.Doe"))
    assert hashed_name(Path("a.dcm")) != hashed_name(Path("b.dcm"))


def test_O4_the_hash_of_a_file_is_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert sha256_file(tmp_path / "w").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1
    with pytest.raises(InputError, match="cannot be read"):
        sha256_file(tmp_path / "absent")


def test_I12_a_report_is_overwritten_only_when_told(tmp_path: Path, radiograph: Radiograph) -> None:
    report_on(radiograph).write(tmp_path / "report.json")
    with pytest.raises(InputError, match="exists already"):
        report_on(radiograph).write(tmp_path / "report.json")
    report_on(radiograph).write(tmp_path / "report.json", overwrite=True)
