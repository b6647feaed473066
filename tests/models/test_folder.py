"""Model folders: what is saved comes back, what does not fit is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import SETUP, patient, rng, small_method, small_recipe, xrays_of

from voxray.errors import CheckpointError, InputError, ModelError, RecipeError, VoxrayWarning
from voxray.geometry import ViewGeometry
from voxray.models import list_models, load_model, save_model
from voxray.recipes import load_recipe

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small_method(), small_recipe(3), tmp_path / "mine", "# A card: Öl")
    return tmp_path / "mine"


def without_sum(folder: Path) -> None:
    """Take the SHA-256 out of the recipe, so that the weights can be changed."""
    recipe = folder / "recipe.yaml"
    recipe.write_text("".join(line for line in recipe.open() if "sha256" not in line))


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    without_sum(folder)
    save_file(change(load_file(folder / "weights.safetensors")), folder / "weights.safetensors")


def test_M2_what_is_saved_comes_back_to_half_precision(folder: Path) -> None:
    loaded, method = load_model(folder), small_method()
    assert sorted(file.name for file in folder.iterdir()) == ["MODEL_CARD.md", "recipe.yaml", "weights.safetensors"]
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == "# A card: Öl"
    assert loaded.info.recipe.method_config() == method.config
    assert loaded.weights_sha256 == loaded.info.recipe.weights_sha256
    assert loaded.method.state_dict().keys() == method.state_dict().keys()
    for name, tensor in method.state_dict().items():
        assert torch.equal(loaded.method.state_dict()[name], tensor.half().to(tensor.dtype))
    xrays = xrays_of(patient(20), ViewGeometry.biplanar(setup=SETUP))
    one, other = (m.reconstruct(xrays, rng=rng()).volume.hu for m in (method, loaded.method))
    assert (one - other).abs().mean() < 1


def test_M2_saved_again_it_is_the_same_to_the_bit(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder)
    save_model(loaded.method, loaded.info.recipe, tmp_path / "again", "# A card: Öl")
    for name in ("MODEL_CARD.md", "recipe.yaml", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_M2_another_file_than_the_recipe_names_is_refused(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    save_file(weights | {"mean": weights["mean"] * 2}, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors' is not the file that its recipe names"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if n != "mean"}, "missing mean"),
        (lambda w: w | {"bias": torch.zeros(1)}, "unexpected bias"),
        (lambda w: w | {"mean": w["mean"][:-1]}, r"mean is \(31, 32, 32\), not \(32, 32, 32\)"),
        (lambda w: w | {"mean": w["mean"].to(torch.int32)}, r"mean holds torch\.int32, not torch\.float32"),
        (lambda w: w | {"mean": w["mean"].to(torch.complex64)}, r"mean holds torch\.complex64"),
        (lambda w: w | {"mean": w["mean"] / 0}, "mean is not finite"),
        (lambda w: w | {"around": torch.full_like(w["around"], float("nan"))}, "around is not finite"),
        (lambda w: w | {"mean": w["mean"].double() + 1e300}, "mean is not finite"),
        (lambda _: {}, "missing around; missing deviations; missing mean"),
    ],
)
def test_M2_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=rf"weights\.safetensors' does not fit its recipe: .*{message}"):
        load_model(folder)


def test_M2_at_most_ten_faults_are_listed(folder: Path) -> None:
    change_weights(folder, lambda w: w | {f"extra{i:02d}": torch.zeros(1) for i in range(25)})
    with pytest.raises(CheckpointError, match=r"extra09 and 15 more\.$") as caught:
        load_model(folder)
    assert str(caught.value).count("unexpected") == 10


def test_M2_other_types_of_number_that_fit_are_taken(folder: Path) -> None:
    expected = load_model(folder).method.state_dict()["mean"]
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float8_e5m2):
        change_weights(folder, lambda w, dtype=dtype: w | {"mean": expected.to(dtype)})
        mean = load_model(folder).method.state_dict()["mean"]
        assert mean.dtype == torch.float32
        assert torch.allclose(mean, expected, atol=0.3)


@pytest.mark.parametrize("kept", [0, 4, 9, 200, -1])
@pytest.mark.parametrize("summed", [True, False])
def test_M2_weights_cut_short_are_refused(folder: Path, kept: int, summed: bool) -> None:
    if not summed:
        without_sum(folder)
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors' (is not the file|cannot be read)") as caught:
        load_model(folder)
    assert caught.value.exit_code == 3


def test_M2_a_recipe_for_a_giant_takes_no_memory(folder: Path) -> None:
    """A hundred terabytes are compared with the weights before they are asked for."""
    recipe = folder / "recipe.yaml"
    for old, new in ((" scans: 3", " scans: 100000"), (" spacing_mm: 20.0\n  member", " spacing_mm: 0.5\n  member")):
        assert old in recipe.read_text()
        recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(CheckpointError, match=r"deviations is \(3, 20, 20, 20\), not \(100000, 800, 800, 800\)"):
        load_model(folder)


def test_M2_weights_beyond_half_precision_are_not_saved(tmp_path: Path) -> None:
    method = small_recipe(3).build()
    method.state_dict()["mean"].fill_(1e6)
    with pytest.raises(CheckpointError, match="not finite in half precision: mean"):
        save_model(method, small_recipe(3), tmp_path / "m", "")
    assert not (tmp_path / "m").exists()


def test_I12_a_folder_is_overwritten_only_when_asked_and_only_if_it_is_a_model(folder: Path, tmp_path: Path) -> None:
    save = lambda **more: save_model(small_method(), small_recipe(3), folder, "new", **more)  # noqa: E731
    with pytest.raises(InputError, match="exists already"):
        save()
    save(overwrite=True)
    assert (folder / "MODEL_CARD.md").read_text() == "new"
    (folder / "notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(InputError, match=r"other files than a model \(notes\.txt"):
        save(overwrite=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        save_model(small_method(), small_recipe(3), tmp_path / "file", "", overwrite=True)


def test_models_are_found_by_folder_name_on_the_search_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "broken").mkdir()
    (folder.parent / "other" / "broken" / "recipe.yaml").write_text("colour: red")
    (folder.parent / "other" / "mine").symlink_to(folder)
    monkeypatch.chdir(folder.parent / "other" / "broken")
    with pytest.raises(ModelError, match="There is no model 'mine'; the models are"):
        load_model("mine")
    places = [folder.parent / "missing", folder.parent, folder.parent / "other"]
    monkeypatch.setenv("VOXRAY_MODELS", os.pathsep.join(map(str, places)))
    assert load_model("mine").info.path == folder
    with pytest.warns(VoxrayWarning, match=r"broken' cannot be used: .*colour: Extra inputs"):
        listed = {info.name: info for info in list_models()}
    assert listed["mine"].path == folder
    assert listed["mine"].recipe.name == "small"
    assert "broken" not in listed
    with pytest.raises(ModelError, match="broken' cannot be used"):
        load_model("broken")
    with pytest.raises(ModelError, match=r"There is no model 'small'; the models are .*mine"):
        load_model("small")


def test_a_model_is_loaded_from_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_model("mine").info.name == "mine"
    monkeypatch.chdir(folder)
    assert load_model(".").info.name == "mine"
    (folder.parent / "empty").mkdir()
    with pytest.raises(ModelError, match="is no model folder: it has no recipe"):
        load_model(folder.parent / "empty")
    with pytest.raises(ModelError, match="There is no model"):
        load_model(folder / "weights.safetensors")


def test_M4_a_recipe_of_another_version_is_refused(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("version: 1", "version: 7"))
    with pytest.raises(ModelError, match="version: Input should be 1"):
        load_model(folder)


def test_the_embedded_model_is_what_its_recipe_says() -> None:
    listed = {info.name: info for info in list_models()}
    if "atlas" not in listed:
        pytest.skip("this checkout holds no embedded model")
    loaded = load_model("atlas")
    assert loaded.weights_sha256 == listed["atlas"].recipe.weights_sha256 is not None
    assert loaded.info.recipe.grid == load_recipe("atlas").grid
    assert not loaded.method.training
    card = (loaded.info.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "CC BY" in card
    assert "BY-NC" not in card, "non-commercial scans never train a shipped model"


def test_settings_of_a_model_can_be_changed_when_it_is_loaded(folder: Path) -> None:
    changed = load_model(folder, overrides=["config.iterations=1", "config.noise=0.2"])
    assert changed.info.recipe.config["iterations"] == 1
    assert changed.method.config.noise == 0.2  # type: ignore[attr-defined]
    assert load_model(folder).method.config.noise != 0.2  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="iteration"):
        load_model(folder, overrides=["config.iteration=1"])
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(folder, overrides=["config.scans=9"])
