"""A model and X-rays that are small enough to run every command in a moment."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from ct_maker import chest, save

from voxray.cli import main

TINY = ("--set", "name=tiny", "--set", "grid.shape=[16,16,16]", "--set", "grid.spacing_mm=20",
        "--set", "config.spacing_mm=25", "--set", "config.iterations=1")  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `voxray` with these arguments, in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def cts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cts")
    for i, front_mm in enumerate((0.0, 20.0, 40.0)):
        save(chest((10.0, 10.0, 10.0), front_mm=front_mm)[0], folder / f"c{i}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def store(cts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "made" / "here"
    size = ("--shape", "16", "--spacing-mm", "20", "--workers", "1", "--fractions", "train=1", "--centre", "body")
    assert main(["prepare", str(cts), "-o", str(folder), *size]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, folder = tmp_path_factory.mktemp("runs") / "tiny", tmp_path_factory.mktemp("models") / "tiny"
    assert main(["train", "atlas", "--data", str(store), "-o", str(run), "--set", "config.scans=3", *TINY]) == 0
    shutil.copytree(run / "model", folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model that `--model` finds."""
    monkeypatch.setenv("VOXRAY_MODELS", str(tiny_folder.parent))
    return tiny_folder.name


@pytest.fixture(scope="session")
def projected(cts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """X-rays of a CT, as `voxray project` writes them, but small."""
    folder = tmp_path_factory.mktemp("projected")
    small = write_geometry(folder / "small.json")
    out = folder / "xrays"
    assert main(["project", str(cts / "c1.nii.gz"), "-o", str(out), "--geometry", str(small)]) == 0
    return out


def write_geometry(path: Path) -> Path:
    from voxray.geometry import Setup, ViewGeometry

    setup = Setup(1800.0, 1550.0, 12.8, (32, 32))
    centre_mm = (165.0, 265.0, -255.0)
    path.write_text(ViewGeometry.from_names(("pa", "lateral"), setup=setup, isocentre_mm=centre_mm).to_json())
    return path


def write_line_integrals(path: Path, value: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.full((1, 32, 32), value, dtype=np.float32))
    image.SetSpacing((12.8, 12.8, 1.0))
    sitk.WriteImage(image, str(path))
    return path
