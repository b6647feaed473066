"""A style from a folder of radiographs to a report: `voxray train style`, `voxray reconstruct --style`."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from contract_models import small
from PIL import Image
from safetensors.torch import load_file
from small_models import patient, small_method, small_recipe, xrays_of

from voxray.cli import main
from voxray.data.store import Store
from voxray.errors import InputError, VoxrayWarning
from voxray.geometry import Setup, ViewGeometry
from voxray.models import save_model
from voxray.recipes import Recipe
from voxray.training import TrainOptions, train_recipe
from voxray.training.checkpoints import newest_checkpoint

STEPS = TrainOptions(device="cpu", checkpoint_seconds=0.0)


def recipe(steps: int = 4) -> Recipe:
    whole = small("style", brief=True)
    config = {**whole.method_config().model_dump(), "training": {"steps": steps, "learning_rate": 5e-3}}
    data = whole.data.model_copy(update={"variants": 1, "shape": 0.0})
    return whole.model_copy(update={"config": config, "data": data})


def show(image: np.ndarray, path: Path) -> None:
    Image.fromarray((60000 * (image / image.max()) ** 0.7).astype(np.uint16)).save(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chests from the front, one of a name without a view; a lateral; and a picture of nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    views = ViewGeometry.biplanar(setup=Setup(1800.0, 1550.0, 3.2, (140, 140)))
    for seed, names in ((20, ("a_pa.png", "a_lateral.png")), (21, ("b.png", None))):
        for image, name in zip(xrays_of(patient(seed), views).images, names, strict=True):
            if name is not None:
                show(image.numpy(), folder / name)
    show(np.random.default_rng(0).random((64, 64)), folder / "noise_pa.png")
    return folder


@pytest.fixture(scope="module")
def trained(pictures: Path, phantoms: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "style"
    with pytest.warns(VoxrayWarning, match=r"2 of 4 files of --real are left out: .*a_lateral.*not the style's.*noise"):
        train_recipe(recipe(), phantoms, run, real=pictures, options=STEPS)
    return run


def test_a_style_is_trained_and_its_way_back_is_not_kept(trained: Path, pictures: Path) -> None:
    weights = load_file(trained / "model" / "weights.safetensors")
    assert any(name.startswith("cycle.there.") for name in weights)
    assert not any(name.startswith(("cycle.back.", "real")) for name in weights)
    assert bool(weights["cycle.there.net.8.weight"].any()), "it has learned"
    card = (trained / "model" / "MODEL_CARD.md").read_text()
    assert "4 radiographs" in card
    assert not any(path.name in card for path in pictures.iterdir())


def test_D4_stopped_and_resumed_equals_uninterrupted(
    trained: Path, pictures: Path, phantoms: Store, tmp_path: Path
) -> None:
    class CrashError(Exception):
        pass

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("style:") and done == 2:
            raise CrashError

    run = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)
        with pytest.raises(CrashError):
            train_recipe(recipe(), phantoms, run, real=pictures, options=STEPS, progress=progress)
        train_recipe(recipe(), phantoms, run, real=pictures, options=STEPS, resume=True)
    one, other = newest_checkpoint(run / "checkpoints"), newest_checkpoint(trained / "checkpoints")
    assert one is not None
    assert other is not None
    assert any("pools" in name for name in one.tensors)
    assert all(bool((tensor == other.tensors[name]).all()) for name, tensor in one.tensors.items())
    assert (run / "log.csv").read_text() == (trained / "log.csv").read_text()


def test_D6_other_radiographs_are_refused(trained: Path, pictures: Path, phantoms: Store, tmp_path: Path) -> None:
    (tmp_path / "a_pa.png").write_bytes((pictures / "a_pa.png").read_bytes())
    with pytest.raises(InputError, match="real: "):
        train_recipe(recipe(), phantoms, trained, real=tmp_path, resume=True)


def test_radiographs_are_for_styles_and_styles_need_some(phantoms: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    run = tmp_path / "run"
    for chosen, real, message in (
        (recipe(), None, r"name their folder \(--real\)"), (small_recipe(3), tmp_path, "learns from CTs alone"),
        (recipe(), tmp_path / "nothing", "'.*nothing' is none"), (recipe(), tmp_path, "no X-ray file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            train_recipe(chosen, phantoms, run, real=real)
    assert not run.exists()


def test_a_folder_without_a_chest_is_refused(pictures: Path, phantoms: Store, tmp_path: Path) -> None:
    (tmp_path / "noise_pa.png").write_bytes((pictures / "noise_pa.png").read_bytes())
    with pytest.warns(VoxrayWarning, match="left out"), pytest.raises(InputError, match="None of the 1 files"):
        train_recipe(recipe(), phantoms, tmp_path / "run", real=tmp_path)


# ---------------------------------------------------------------- use


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    save_model(small_method(), small_recipe(3).model_copy(update={"body_parts": ("CHEST",)}), folder, "")
    return folder


def test_a_style_is_used_and_stands_in_the_report(
    trained: Path, pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reconstruct", pictures / "a_pa.png", "--model", model, "--force-chest", "--style", trained]
    assert main([str(a) for a in [*arguments, "-o", tmp_path / "out"]]) == 0
    (told,) = json.loads((tmp_path / "out" / "report.json").read_text())["method"]["style"]
    assert (told["model"], told["views"]) == ("style", ["pa"])
    assert told["rms_change"][0] > 0
    assert main([str(a) for a in [*arguments, "--style", trained, "-o", tmp_path / "twice"]]) == 2
    assert "both for the view 'pa'" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "style", "code", "message"), [
    ("a_pa.png", "nothing", 3, "There is no model 'nothing'.*A style is trained by `voxray train style`"),
    ("a_pa.png", "the model", 3, r"is no style \(its method is 'atlas'\)"),
    ("a_lateral.png", "the style", 2, r"views near 0 degrees .*, but the X-rays are lateral \(--style\)"),
    ("lines_pa.nii.gz", "the style", 2, "line integrals and other X-rays have none"),
])  # fmt: skip
def test_T2_a_style_that_cannot_serve_is_told(
    trained: Path, pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str,
    style: str, code: int, message: str,
) -> None:  # fmt: skip
    import re

    import SimpleITK as sitk  # noqa: N813

    chosen = {"the model": model, "the style": trained}.get(style, style)
    path = pictures / file
    if file.startswith("lines"):
        path = tmp_path / file
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((1, 32, 32), np.float32)), str(path))
    arguments = ["reconstruct", path, "--model", model, "--style", chosen, "--force-chest", "-o", tmp_path / "out"]
    assert main([str(a) for a in arguments]) == code
    said = capsys.readouterr().err.splitlines()
    assert re.search(message, said[-1])
    assert not (tmp_path / "out").exists()
