"""The wheel carries everything that voxray needs, and works outside the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_T1_the_wheel_holds_models_recipes_examples_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = ROOT / "src"
    for pattern in (
        "models/embedded/**/*", "recipes/*.yaml", "examples/**/*", "evaluation/*.yaml", "evaluation/report/*.j2",
        "intake/*.json", "py.typed", "**/*.py",
    ):  # fmt: skip
        files = [
            file for file in (source / "voxray").glob(pattern) if file.is_file() and "__pycache__" not in file.parts
        ]
        assert files, pattern
        assert {str(file.relative_to(source)) for file in files} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.slow
def test_T1_demo_from_the_wheel_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site)}
    environment.pop("VOXRAY_MODELS", None)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(sys.executable, "-c", "import voxray, sys; sys.stdout.write(voxray.__file__)")
    assert Path(where).is_relative_to(site)
    said = run(sys.executable, str(site / "bin" / "voxray"), "demo", "-o", "demo out")
    assert "3D PSNR against the true CT" in said
    for name in ("ct.nii.gz", "preview.png", "report.json"):
        assert (tmp_path / "demo out" / name).stat().st_size > 1000
