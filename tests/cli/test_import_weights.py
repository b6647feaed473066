"""`voxray import-weights`: what it refuses; what it makes is tested in tests/models."""

from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., object]


@pytest.mark.parametrize(("name", "content", "code", "said"), [
    ("DVG_Diffusion.pt", b"no checkpoint", 3, "cannot be read as a checkpoint"),
    ("weights.pt", b"", 2, "DVG_Diffusion"),
])  # fmt: skip
def test_T2_what_cannot_be_imported_is_said(
    cli: Cli, tmp_path: Path, name: str, content: bytes, code: int, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = cli("import-weights", tmp_path / name, "-o", tmp_path / "model")
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "model").exists()


def test_T2_an_output_that_exists_is_refused_first(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "recipe.yaml").write_text("")
    done = cli("import-weights", tmp_path / "missing.pt", "-o", tmp_path / "model")
    assert done.code == 2
    assert "--overwrite" in done.err


def test_what_was_not_tried_is_said(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxray.models.import_dvg.import_dvg", lambda *given, **more: None)
    done = cli("import-weights", tmp_path / "DVG_Diffusion.pt", "-o", tmp_path / "model")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "model"))
    assert "make sure with a case that you know" in " ".join(done.err.split())
