"""`voxray project`: X-rays of a CT."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from voxray.geometry import ViewGeometry

Cli = Callable[..., object]


def pixels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_N4_views_about_the_middle_of_the_volume(cli: Cli, cts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("project", cts / "c0.nii.gz", "-o", out)
    assert done.code == 0
    assert sorted(f.name for f in out.iterdir()) == ["geometry.json", "lateral.nii.gz", "pa.nii.gz", "preview.png"]
    views = ViewGeometry.from_json((out / "geometry.json").read_text())
    assert (views.names, views.shapes) == (("pa", "lateral"), ((256, 256),) * 2)
    assert views.isocentre() == pytest.approx((165.0, 265.0, -255.0))
    image = sitk.ReadImage(str(out / "pa.nii.gz"))
    assert image.GetSpacing()[:2] == pytest.approx((1.6, 1.6))
    assert image.GetPixelID() == sitk.sitkFloat32
    values = pixels(out / "pa.nii.gz")
    assert values.shape == (1, 256, 256)
    assert 2 < values.max() < 10  # of some 200 mm of soft tissue
    assert values.min() == 0


def test_N4_every_option_of_the_views(cli: Cli, cts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli(
        "project", cts / "c0.nii.gz", "-o", out, "--views", "ap,-30,lateral", "--setup", "xraysyn",
        "--isocentre", "-10,20.5,-200", "--lateral-anterior", "left",
    )  # fmt: skip
    assert done.code == 0
    expected = ViewGeometry.from_names(
        ("ap", "-30", "lateral"), setup="xraysyn", isocentre_mm=(-10, 20.5, -200), lateral_anterior="left"
    )
    assert ViewGeometry.from_json((out / "geometry.json").read_text()) == expected
    assert (out / "-30.nii.gz").is_file()


def test_N4_a_number_of_views_is_spread_over_half_a_turn(cli: Cli, cts: Path, tmp_path: Path) -> None:
    assert cli("project", cts / "c0.nii.gz", "-o", tmp_path / "out", "--views", "3", "--setup", "xraysyn").code == 0
    views = ViewGeometry.from_json((tmp_path / "out" / "geometry.json").read_text())
    assert views == ViewGeometry.circular(3, setup="xraysyn", isocentre_mm=views.isocentre())


def test_N7_noise_depends_on_the_seed_alone(cli: Cli, cts: Path, projected: Path, tmp_path: Path) -> None:
    images = {}
    for name, options in {"a": ("--seed", 1), "b": ("--seed", 1), "c": ("--seed", 2)}.items():
        done = cli("project", cts / "c1.nii.gz", "-o", tmp_path / name, "--geometry", projected / "geometry.json",
                   "--photons", "2e5", *options)  # fmt: skip
        assert done.code == 0
        images[name] = pixels(tmp_path / name / "pa.nii.gz")
    clean = pixels(projected / "pa.nii.gz")
    assert np.array_equal(images["a"], images["b"])
    assert not np.array_equal(images["a"], images["c"])
    assert 0 < np.abs(images["a"] - clean).max() < 0.2


@pytest.mark.parametrize("options", [
    ("--geometry", "g.json", "--views", "pa"), ("--geometry", "g.json", "--setup", "chest"), ("--views", "top"),
    ("--isocentre", "1,2"), ("--isocentre", "1,2,x"), ("--setup", "nothing"), ("--views", "0"), ("--photons", "0"),
    ("--series", "1.2.3"), ("--isocentre", "nan,0,0"), ("--geometry", "g.json", "--isocentre", "0,0,0"),
])  # fmt: skip
def test_T2_options_that_make_no_sense(cli: Cli, cts: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = cli("project", cts / "c0.nii.gz", "-o", tmp_path / "out", *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


def test_I12_a_view_cannot_write_elsewhere(cli: Cli, cts: Path, projected: Path, tmp_path: Path) -> None:
    data = json.loads((projected / "geometry.json").read_text())
    data["views"] = {"../../pa": data["views"]["pa"]}
    (tmp_path / "g.json").write_text(json.dumps(data))
    done = cli("project", cts / "c0.nii.gz", "-o", tmp_path / "a" / "out", "--geometry", tmp_path / "g.json")
    assert done.code == 2
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["g.json"]


def test_I12_existing_xrays_are_not_overwritten(cli: Cli, cts: Path, projected: Path) -> None:
    before = (projected / "pa.nii.gz").read_bytes()
    assert cli("project", cts / "c0.nii.gz", "-o", projected).code == 2
    assert (projected / "pa.nii.gz").read_bytes() == before


def test_I13_a_damaged_geometry_is_named(cli: Cli, cts: Path, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_bytes(b"\xff{")
    done = cli("project", cts / "c0.nii.gz", "-o", tmp_path / "out", "--geometry", tmp_path / "g.json")
    assert done.code == 2
    assert "g.json" in done.err
