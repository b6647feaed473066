"""Training: from a store to a model folder that loads."""

import random
from pathlib import Path

import pytest
import torch
from ct_maker import save
from small_models import patient, small_recipe, write_store

from voxray.api import EvaluateOptions, evaluate, train
from voxray.data.options import PrepareOptions
from voxray.data.phantom import thorax_phantom
from voxray.data.prepare import prepare
from voxray.data.store import Store
from voxray.errors import InputError, RecipeError, VoxrayWarning
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume
from voxray.images.report import hashed_name
from voxray.models import load_model
from voxray.physics.attenuation import hu_to_mu
from voxray.recipes import Recipe
from voxray.training import TrainSummary, train_recipe


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "store", {"train": [0, 1, 2], "val": [20]})


def test_a_store_becomes_a_model_that_loads(store: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    done = train_recipe(small_recipe(3), Store.open(store), tmp_path / "m", progress=lambda *at: calls.append(at))
    folder = tmp_path / "m" / "model"
    assert done == TrainSummary(tmp_path / "m", folder, "")
    assert calls == [("mean and deviations", i, 3) for i in (1, 2, 3)]
    loaded = load_model(folder)
    mean = torch.stack([hu_to_mu(patient(seed).volume.hu, 1.0) for seed in (0, 1, 2)]).mean(0)
    assert torch.allclose(loaded.method.state_dict()["mean"], mean, atol=2e-3), "to half precision"
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for told in ("# small", "not a medical device", "CC0-1.0", "3 scans"):
        assert told in card
    hashes = {seed: hashed_name(Path(f"phantom{seed:02d}")) for seed in (0, 1, 2, 20)}
    assert [hashes[seed] in card for seed in (0, 1, 2, 20)] == [True, True, True, False], "the last is of another split"


def test_O4_a_model_that_is_handed_on_names_no_patient(store: Path, tmp_path: Path) -> None:
    train_recipe(small_recipe(3), Store.open(store), tmp_path / "m")
    for file in (tmp_path / "m" / "model").iterdir():
        assert b"phantom0" not in file.read_bytes()


def test_D1_trained_twice_the_weights_are_equal_to_the_bit(store: Path, tmp_path: Path) -> None:
    first, second = (train_recipe(small_recipe(3), Store.open(store), tmp_path / name).run / "model" for name in "ab")
    for name in ("weights.safetensors", "recipe.yaml", "MODEL_CARD.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_D2_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    weights = []
    for name, seeds in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        store = write_store(tmp_path / name, {"train": seeds})
        run = train_recipe(small_recipe(3), Store.open(store), tmp_path / f"run {name}").run
        weights.append((run / "model" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_D3_training_leaves_the_global_random_state(store: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate()
    train_recipe(small_recipe(3), Store.open(store), tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_files_become_a_model_by_way_of_prepare(tmp_path: Path) -> None:
    grid = VolumeGrid.centred((5, -9, 200), (44, 32, 42), 10.0)
    for seed in range(3):
        hu = thorax_phantom(grid, rng=torch.Generator().manual_seed(seed)).volume.hu
        save(CTVolume(hu, grid), tmp_path / "cts" / f"{seed}.nii.gz")
    options = PrepareOptions(shape=(32, 32, 32), spacing_mm=10.0, workers=1, fractions={"train": 1.0})
    assert prepare([tmp_path / "cts"], tmp_path / "store", options).exit_code == 0
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(small_recipe(17).to_yaml())
    train(recipe, tmp_path / "store", tmp_path / "m", overrides=["config.scans=3"])
    mean = load_model(tmp_path / "m").method.plain_mean(ViewGeometry.biplanar())  # the folder of the run will do
    assert mean is not None
    assert -900 < float(mean.volume.hu[14:18, 14:18, 8:10].mean()) < -100, "lung"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (small_recipe(4), r"for 4 scans, but 3 were given: --set config\.scans=3"),
        (
            Recipe(name="a", method="atlas", grid={"shape": (32, 32, 16), "spacing_mm": 10.0}, config={"scans": 3}),
            r"phantom00' is on a grid of \(32, 32, 32\) voxels of .*10.* mm, but .* \(32, 32, 16\)",
        ),
        (
            Recipe(name="a", method="atlas", grid={"shape": (32, 32, 32), "spacing_mm": 5.0}, config={"scans": 3}),
            r"of \[10\.0, 10\.0, 10\.0\] mm, but the model works on .* of \[5\.0, 5\.0, 5\.0\] mm",
        ),
    ],
)
def test_a_store_that_does_not_fit_is_refused(store: Path, tmp_path: Path, recipe: Recipe, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_recipe(recipe, Store.open(store), tmp_path / "m")
    train_recipe(small_recipe(3), Store.open(store), tmp_path / "m")  # nothing is in the way of a better one


def test_what_cannot_be_trained_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        train_recipe(small_recipe(3), Store.open(store), tmp_path / "m", split="test")
    with pytest.raises(InputError, match="is no store"):
        train("atlas", tmp_path, tmp_path / "m")
    with pytest.raises(RecipeError, match="There is no recipe"):
        train("alas", store, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_damaged_case_is_named(store: Path, tmp_path: Path) -> None:
    path = store / "cases" / "phantom01.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"phantom01\.safetensors"):
        train_recipe(small_recipe(3), Store.open(store), tmp_path / "m")
    assert not (tmp_path / "m" / "model").exists()


def test_I12_a_model_that_is_there_is_kept(store: Path, tmp_path: Path) -> None:
    run = train_recipe(small_recipe(3), Store.open(store), tmp_path / "m").run
    weights = run / "model" / "weights.safetensors"
    before = weights.read_bytes()
    opened = Store.open(write_store(tmp_path / "other", {"train": [3, 4, 5]}))
    with pytest.raises(InputError, match=r"exists already: go on with it \(--resume\)"):
        train_recipe(small_recipe(3), opened, run)
    with pytest.raises(InputError, match=r"phantom00: .* before, nothing now; .*--force"):
        train_recipe(small_recipe(3), opened, run, resume=True)
    assert weights.read_bytes() == before
    train_recipe(small_recipe(3), opened, run, resume=True, force=True)
    assert weights.read_bytes() != before


def test_N10_scores_on_training_scans_are_warned_about(store: Path, tmp_path: Path) -> None:
    folder = train_recipe(small_recipe(3), Store.open(store), tmp_path / "m").run
    with pytest.warns(VoxrayWarning, match="trained on 3 of these 3 cases"):
        evaluate(folder, store, options=EvaluateOptions(split="train", protocols=("closed",)))
    evaluate(folder, store, options=EvaluateOptions(split="val", protocols=("closed",)))
