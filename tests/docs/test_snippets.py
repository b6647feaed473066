"""What the documentation shows runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from voxray.data.phantom import marker_phantom
from voxray.geometry import VolumeGrid
from voxray.images.write_volume import write_volume

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# These pages show what is done with the reader's own files: of them the imports run, and the rest parses.
NEED_FILES = {"README.md", "data.md"}
SLOW = {"quickstart.md"}  # reconstructs four samples


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if python_blocks(page)
    ],
)
def test_T4_snippets_run(page: Path, tmp_path: Path) -> None:
    """All python blocks of a page, one after another, in a folder with a scan."""
    grid = VolumeGrid.centred((0, 10, -150), (64, 64, 64), 5.0)
    write_volume(marker_phantom(grid).volume, tmp_path / "scan.nii.gz")
    script, text = tmp_path / "snippets.py", "\n".join(python_blocks(page))
    ast.parse(text)
    if page.name in NEED_FILES:
        text = "\n".join(line for line in text.splitlines() if line.startswith(("from ", "import ")))
    script.write_text(text)
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_T4_links_and_pictures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
