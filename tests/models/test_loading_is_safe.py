"""Loading a model folder from anywhere never runs code (M1), and whatever is in it, an error is one of ours (I13)."""

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import small_method, small_recipe

from voxray.errors import CheckpointError, ModelError
from voxray.models import load_model, save_model

# Python's audit events (PEP 578) of whatever could run code or reach out.
HOOK = """
import sys
import torch, voxray.api, voxray.methods.atlas
from voxray.errors import ModelError
from voxray.models import load_model

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "subprocess.Popen", "exec", "compile",
             "pickle.find_class", "ctypes.", "socket.", "code.__new__", "marshal.", "shutil.", "os.remove", "os.rename")
seen, opened = [], []

def hook(event, args):
    if event == "open" and isinstance(args[0], str) and args[1] not in ("r", "rb", None):
        seen.append(f"open {args[0]} {args[1]}")
    elif event.startswith(FORBIDDEN):
        seen.append(f"{event} {args!r:.200}")

load_model(sys.argv[1])
before = set(sys.modules)
sys.addaudithook(hook)
for folder in sys.argv[1:]:
    try:
        load_model(folder)
    except ModelError as error:
        pass
seen = list(seen)
new = sorted(set(sys.modules) - before)
import json
sys.stdout.write(json.dumps([seen, new]))
"""


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch evil",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small_method(), small_recipe(3), tmp_path / "mine", "")
    return tmp_path / "mine"


def copy(folder: Path, name: str) -> Path:
    other = folder.parent / name
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    return other


def evil_folders(folder: Path) -> list[Path]:
    """Return model folders that try to run code when they are loaded."""
    folders = []
    recipe = (folder / "recipe.yaml").read_text()
    tricks = {
        "tag": recipe + "\nextra: !!python/object/apply:os.system ['touch evil']\n",
        "config-tag": recipe.replace("scans: 3", "scans: !!python/object/apply:os.system ['touch evil']"),
        "dotted": recipe.replace("method: atlas", "method: os.system"),
        "beside": recipe.replace("method: atlas", "method: evil"),
        "path": recipe.replace("method: atlas", "method: ../evil"),
    }
    for name, text in tricks.items():
        folders.append(copy(folder, name))
        (folders[-1] / "recipe.yaml").write_text(text)
        (folders[-1] / "evil.py").write_text("import os; os.system('touch evil')")
        (folders[-1] / "__init__.py").write_text("import os; os.system('touch evil')")
    folders.append(copy(folder, "pickle"))
    (folders[-1] / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    recipe = "".join(line for line in recipe.splitlines(True) if "sha256" not in line)
    (folders[-1] / "recipe.yaml").write_text(recipe)
    return folders


def test_M1_nothing_runs_while_a_folder_is_loaded(folder: Path) -> None:
    folders = [folder, *evil_folders(folder)]
    for evil in folders[1:]:
        with pytest.raises(ModelError):
            load_model(evil)
    run = subprocess.run(
        [sys.executable, "-c", HOOK, *map(str, folders)],
        cwd=folders[-1], capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    seen, new = json.loads(run.stdout)
    assert seen == []
    assert [name for name in new if not name.startswith("voxray.")] == []
    assert not list(folder.parent.rglob("evil"))


@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin", "last.ckpt", "model.pkl", "model.pth"])
def test_M1_pickled_weights_are_refused_and_it_is_said_why(folder: Path, name: str) -> None:
    (folder / "weights.safetensors").unlink()
    torch.save(small_method().state_dict(), folder / name)
    with pytest.raises(CheckpointError, match=rf"has no weights\.safetensors.*Pickled weights \({name}\) are never"):
        load_model(folder)


def test_M1_links_are_followed_and_what_they_lead_to_is_checked(folder: Path, tmp_path: Path) -> None:
    """The caches of model hubs are made of links."""
    weights = folder / "weights.safetensors"
    blob = tmp_path / "blob"
    weights.rename(blob)
    weights.symlink_to(blob)
    assert load_model(folder).weights_sha256
    blob.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="another SHA-256"):
        load_model(folder)
    weights.unlink()
    weights.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"has no weights\.safetensors"):
        load_model(folder)
    weights.unlink()
    weights.symlink_to(weights)
    with pytest.raises(CheckpointError, match=r"has no weights\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("name", ["recipe.yaml", "weights.safetensors"])
def test_I13_wrong_bytes_end_in_one_of_our_errors(folder: Path, name: str) -> None:
    """Every mutant is refused or loads as finite weights; those of the weights lack their sum, which would tell."""
    if name != "recipe.yaml":
        recipe = folder / "recipe.yaml"
        recipe.write_text("".join(line for line in recipe.open() if "sha256" not in line))
    path, dice, refused = folder / name, random.Random(7), 0
    good = path.read_bytes()
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(min(len(bad), 1000))  # the header, of the weights
            action = dice.random()
            if action < 0.6:
                bad[at] = dice.randrange(256)
            elif action < 0.8:
                del bad[at : at + dice.randint(1, 9)]
            else:
                bad[at:at] = dice.randbytes(dice.randint(1, 9))
        path.write_bytes(bad)
        try:
            method = load_model(folder).method
        except ModelError:  # any other error fails the test: a bad model ends with exit code 3
            refused += 1
        else:
            assert all(bool(torch.isfinite(tensor).all()) for tensor in method.state_dict().values())
    assert refused > 75
