"""Promise O1: what is killed, interrupted or out of space leaves the old file or nothing."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from voxray.errors import InputError, ResourceError
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume, atomic
from voxray.images.atomic import (
    TEMPORARY_PREFIX,
    atomic_folder,
    atomic_path,
    refuse_existing,
    write_text_atomic,
)
from voxray.images.write_dicom import write_dicom_series
from voxray.images.write_volume import FORMATS, write_volume

# Loads atomic.py by itself: a child that need not wait for torch.
PRELUDE = f"""
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("atomic", {str(Path(atomic.__file__))!r})
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
final = Path(sys.argv[1])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
def die_at(point):
    if point in ("fsync", "replace", "rename"):
        setattr(os, point, die)
    return die if point == "write" else lambda: None
"""


def run_child(body: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE + body, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: EFBIG, which a full disk's ENOSPC is treated like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old_handler)


def test_O1_a_file_is_whole_and_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "é x.json", "häß")
    finally:
        os.umask(old)
    assert (tmp_path / "é x.json").read_bytes() == "häß".encode()
    assert (tmp_path / "é x.json").stat().st_mode & 0o777 == 0o640
    assert entries(tmp_path) == ["é x.json"]


def test_O1_the_temporary_file_is_hidden_keeps_the_ending_and_stands_beside(tmp_path: Path) -> None:
    final = tmp_path / ("n" * 240 + ".nii.gz")
    with atomic_path(final) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(TEMPORARY_PREFIX)
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".nii.gz")
        assert not final.exists()
    assert final.exists()


def test_I12_a_symbolic_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "elsewhere" / "real.txt")
    write_text_atomic(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "elsewhere" / "real.txt").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_O1_an_exception_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old")

    def write() -> None:
        with atomic_path(final) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert final.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("point", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", ["old", None])
def test_O1_sigkill_leaves_the_old_file_or_nothing(tmp_path: Path, point: str, old: str | None) -> None:
    final = tmp_path / "a.txt"
    if old is not None:
        final.write_text(old)
    body = """
now = die_at(sys.argv[2])
with atomic.atomic_path(final) as temporary:
    temporary.write_text("half")
    now()
"""
    assert run_child(body, final, point).returncode == -signal.SIGKILL
    assert (final.read_text() if final.exists() else None) == old
    left = [name for name in entries(tmp_path) if name != "a.txt"]
    assert len(left) == 1, "the child died before it wrote"
    assert left[0].startswith(TEMPORARY_PREFIX)


@pytest.mark.parametrize("point", ["write", "fsync", "rename"])
def test_O1_sigkill_leaves_the_old_folder_or_nothing(tmp_path: Path, point: str) -> None:
    final = tmp_path / "series"
    body = """
now = die_at(sys.argv[2])
with atomic.atomic_folder(final, replaces="*.dcm") as temporary:
    (temporary / "1.dcm").write_text("half")
    now()
"""
    assert run_child(body, final, point).returncode == -signal.SIGKILL
    assert not final.exists()
    final.mkdir()
    (final / "0.dcm").write_text("old")
    assert run_child(body, final, point).returncode == -signal.SIGKILL
    assert entries(final) == ["0.dcm"]


@pytest.mark.parametrize("write", ["file", "folder"])
def test_O1_a_full_disk_is_a_resource_error_and_the_old_file_is_intact(tmp_path: Path, write: str) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old")

    def fill() -> None:
        if write == "file":
            write_text_atomic(final, "x" * 100_000)
        else:
            with atomic_folder(tmp_path / "folder") as temporary:
                (temporary / "1.dcm").write_bytes(b"x" * 100_000)

    with largest_file(4096), pytest.raises(ResourceError, match="cannot be written") as caught:
        fill()
    assert caught.value.exit_code == 4
    assert final.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("suffix", [*FORMATS, ".dicom"])
def test_O1_a_full_disk_never_leaves_a_cut_off_volume(tmp_path: Path, suffix: str) -> None:
    """ITK itself takes no notice when NIfTI is cut off."""
    noise = 1000 * torch.rand((8, 64, 64), generator=torch.Generator().manual_seed(0))
    volume, path = CTVolume(noise, VolumeGrid.centred(shape=(8, 64, 64))), tmp_path / f"ct{suffix}"
    series = suffix == ".dicom"
    if not series:
        path.write_text("old")
    write = write_dicom_series if series else write_volume
    with largest_file(4096), pytest.raises(ResourceError) as caught:
        write(volume, path, overwrite=True)
    assert caught.value.exit_code == 4
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([] if series else ["old"])


def test_O1_a_folder_without_permission_is_an_input_error() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        body = """
if os.getuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    with atomic.atomic_path(final):
        raise SystemExit("the folder could be written to")
except atomic.InputError as error:
    sys.stdout.write(str(error))
"""
        child = run_child(body, folder / "a.txt")
        assert child.returncode == 0, child.stderr
        assert "a.txt' cannot be written" in child.stdout
        assert "may write" in child.stdout
    finally:
        shutil.rmtree(folder)


def _file(path: Path) -> None:
    write_text_atomic(path, "x")


def _folder(path: Path) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "1.dcm").write_text("x")


@pytest.mark.parametrize("write", [_file, _folder])
def test_I12_a_missing_parent_is_an_input_error(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write(tmp_path / "no" / "such" / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="does not exist"):
        write(tmp_path / "file" / "a")


def test_I12_a_file_is_not_written_over_a_folder_nor_a_folder_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match="is a folder"):
        _file(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        _folder(tmp_path / "file")
    assert entries(tmp_path) == ["file"]


def test_O1_a_folder_replaces_what_a_former_run_left_and_nothing_else(tmp_path: Path) -> None:
    series = tmp_path / "series"

    def write(name: str) -> None:
        with atomic_folder(series, replaces="*.dcm") as temporary:
            (temporary / name).write_text("x")

    series.mkdir()
    write("1.dcm")
    write("2.dcm")
    assert entries(series) == ["2.dcm"]
    (series / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"letter\.txt"):
        write("3.dcm")
    assert entries(series) == ["2.dcm", "letter.txt"]
    assert entries(tmp_path) == ["series"]


def test_O1_a_failed_swap_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_text("old")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if source.name.startswith(TEMPORARY_PREFIX) and (source / "2.dcm").exists():
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)

    def write() -> None:
        with atomic_folder(series, replaces="*.dcm") as temporary:
            (temporary / "2.dcm").write_text("new")

    with pytest.raises(ResourceError):
        write()
    assert (series / "1.dcm").read_text() == "old"
    assert entries(tmp_path) == ["series"]


def test_I12_nothing_is_overwritten_without_being_told(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", overwrite=False)
    refuse_existing(tmp_path, overwrite=False)
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "a.txt", tmp_path / "dangling"):
        with pytest.raises(InputError, match="exists already"):
            refuse_existing(path, overwrite=False)
        refuse_existing(path, overwrite=True)
