"""What the documentation shows runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

# These pages show what is done with a folder of the reader's own scans: of them the imports run, and the rest parses.
NEED_SCANS = {"data.md"}
DOCS = Path(__file__).resolve().parents[2] / "docs"


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [p.name for p in sorted(DOCS.glob("*.md")) if python_blocks(p)])
def test_T4_snippets_run(page: str, tmp_path: Path) -> None:
    """All python blocks of a page, one after another, in an empty folder."""
    script, text = tmp_path / "snippets.py", "\n".join(python_blocks(DOCS / page))
    ast.parse(text)
    if page in NEED_SCANS:
        text = "\n".join(line for line in text.splitlines() if line.startswith(("from ", "import ")))
    script.write_text(text)
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_T4_links_and_pictures_exist() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
