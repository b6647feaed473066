"""Items on disk: what they depend on, how they are filled, what is read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_models import write_store
from tiny_learner import Tiny, tiny_recipe

from voxray.data.dataset import TrainingSample
from voxray.data.store import Store
from voxray.errors import InputError, NumericalError, RecipeError
from voxray.methods.stages import Item, Preparation, StageOptions
from voxray.recipes import Recipe, load_recipe
from voxray.recipes.sections import DataRecipe
from voxray.training import TrainOptions, train_recipe
from voxray.training.cache import Batches, Items
from voxray.training.identity import Identity, item_hashes, weights_hash
from voxray.training.samples import Samples
from voxray.training.stop import Stop

pytestmark = pytest.mark.usefixtures("tiny_method")
KEYS = [(0, 2), (1, 0), (0, 2), (0, 1)]


def of_sample(sample: TrainingSample) -> Item:
    return {"hu": sample.hu / 1000, "views": torch.tensor(len(sample.views[0])), "precise": torch.tensor([1 / 3])}


def of_item(item: Item) -> Item:
    assert not torch.is_grad_enabled()
    assert item["hu"].dtype == torch.float32
    return {"mean": item["hu"].mean()[None]}


FIRST = Preparation("first", of_sample)
SECOND = Preparation("second", of_item, after=FIRST)


def items(store: Store, folder: Path, *, kept: bool = True, workers: int = 0) -> Items:
    return Items(
        Samples(tiny_recipe(), store, "train"), folder, {"first": "1a", "second": "2b"}, kept=kept, workers=workers
    )


def test_items_are_kept_in_half_precision_and_integers_as_they_are(phantoms: Store, tmp_path: Path) -> None:
    made = items(phantoms, tmp_path)
    told: list[tuple[str, int, int]] = []
    made.fill(FIRST, KEYS, Stop(), lambda *at: told.append(at))
    assert told == [("preparing first", done, 3) for done in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "first-1a").iterdir()) == [
        "0-1.safetensors", "0-2.safetensors", "1-0.safetensors"
    ]  # fmt: skip
    item = load_file(tmp_path / "first-1a" / "0-2.safetensors")
    sample = Samples(tiny_recipe(), phantoms, "train")[0, 2]
    assert (item["hu"].dtype, item["views"].dtype) == (torch.float16, torch.int64)
    assert torch.equal(item["hu"], (sample.hu / 1000).half())


def test_items_may_be_made_of_samples_in_larger_voxels(phantoms: Store, tmp_path: Path) -> None:
    made = items(phantoms, tmp_path)
    made.fill(Preparation("first", of_sample, coarser=2), KEYS, Stop())
    fine = Samples(tiny_recipe(), phantoms, "train")
    for key in KEYS:
        hu = load_file(tmp_path / "first-1a" / f"{key[0]}-{key[1]}.safetensors")["hu"]
        assert hu.shape[1:] == tuple(n // 2 for n in fine[key].hu.shape[1:])


def test_what_is_there_is_not_made_again(phantoms: Store, tmp_path: Path) -> None:
    items(phantoms, tmp_path).fill(SECOND, KEYS, Stop())

    def fails(_: Any) -> Item:
        raise AssertionError("made again")

    first = Preparation("first", fails)
    items(phantoms, tmp_path).fill(Preparation("second", fails, after=first), KEYS, Stop())
    (tmp_path / "second-2b" / "0-1.safetensors").unlink()
    with pytest.raises(AssertionError, match="made again"):
        items(phantoms, tmp_path).fill(Preparation("second", fails, after=first), KEYS, Stop())


def test_D2_kept_made_on_the_way_or_by_workers_items_are_the_same(phantoms: Store, tmp_path: Path) -> None:
    kept, by_worker = items(phantoms, tmp_path / "a"), items(phantoms, tmp_path / "b", workers=1)
    for made in (kept, by_worker):
        made.fill(SECOND, KEYS, Stop())
    streams = [list(made.stream(SECOND, KEYS)) for made in (kept, by_worker, items(phantoms, tmp_path, kept=False))]
    assert not (tmp_path / "first-1a").exists()
    for one, *others in zip(*streams, strict=True):
        for other in others:
            assert torch.equal(one["mean"], other["mean"])


def test_batches_are_stacks_in_single_precision(phantoms: Store, tmp_path: Path) -> None:
    made = items(phantoms, tmp_path)
    made.fill(FIRST, KEYS, Stop())
    batches = Batches(lambda: made.stream(FIRST, KEYS), 5, 7, 2)
    assert len(batches) == 2
    (step, batch), (next_step, _) = batches
    assert (step, next_step) == (5, 6)
    assert batch["hu"].shape == (2, 1, 32, 32, 32)
    assert (batch["hu"].dtype, batch["views"].tolist()) == (torch.float32, [2, 2])


def test_samples_of_different_shapes_cannot_share_a_batch() -> None:
    stream = [{"images": torch.zeros(views, 4, 4)} for views in (2, 2, 1, 2)]
    batches = iter(Batches(lambda: iter(stream), 0, 2, 2))
    assert next(batches)[1]["images"].shape == (2, 2, 4, 4)
    with pytest.raises(RecipeError, match=r"'images' have the shapes \(1, 4, 4\), \(2, 4, 4\).*batch_size of 1"):
        next(batches)


def test_O1_a_stop_leaves_whole_files_only(phantoms: Store, tmp_path: Path) -> None:
    stop = Stop()
    items(phantoms, tmp_path).fill(FIRST, KEYS, stop, lambda what, done, total: stop.ask() if done == 2 else None)
    files = list((tmp_path / "first-1a").iterdir())
    assert len(files) == 2
    assert all("hu" in load_file(file) for file in files)


@pytest.mark.parametrize("workers", [0, 1])
def test_I13_a_damaged_case_is_one_line_wherever_it_is_read(tmp_path: Path, workers: int) -> None:
    store = Store.open(write_store(tmp_path / "store", {"train": [0, 1, 2]}))
    path = store.path / "cases" / "phantom02.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"^'.*phantom02\.safetensors' cannot be read: [^\n]*$"):
        items(store, tmp_path / "cache", workers=workers).fill(FIRST, KEYS, Stop())


def test_N11_items_that_are_not_finite_are_refused(phantoms: Store, tmp_path: Path) -> None:
    huge = Preparation("first", lambda sample: {"hu": sample.hu * 1000})
    with pytest.raises(NumericalError, match=r"'first' .* half precision, in hu"):
        items(phantoms, tmp_path).fill(huge, KEYS, Stop())
    assert list((tmp_path / "first-1a").iterdir()) == []


# ---------------------------------------------------------------- what items depend on


def hashes(store: Store, recipe: Recipe, weights: tuple[str, ...] = ("", "w")) -> dict[str, str]:
    method = recipe.build()
    return item_hashes(Identity.of(recipe, store, "train"), recipe, method.stages(), weights)


@pytest.mark.parametrize(("change", "changed"), [
    (lambda: tiny_recipe(first={"steps": 99, "learning_rate": 1.0}), set()),
    (lambda: tiny_recipe(DataRecipe(variants=7, phantoms=3)), set()),
    (lambda: tiny_recipe(precision="bf16"), set()),
    (lambda: tiny_recipe(channels=5), {"volumes", "latents"}),
    (lambda: tiny_recipe(DataRecipe(variants=2, closed=0.9)), {"volumes", "latents"}),
    (lambda: tiny_recipe(DataRecipe(variants=2, seed=1)), {"volumes", "latents"}),
])  # fmt: skip
def test_the_hash_of_items_changes_with_what_they_are_made_of(
    phantoms: Store, change: Callable[[], Recipe], changed: set[str]
) -> None:
    before, now = hashes(phantoms, tiny_recipe()), hashes(phantoms, change())
    assert before.keys() == {"volumes", "latents"}
    assert {name for name in before if before[name] != now[name]} == changed


def test_the_hash_of_items_does_not_change_with_the_training_of_parts_in_a_list(phantoms: Store) -> None:
    recipe = load_recipe("accord")

    def changed(**block: Any) -> dict[str, str]:
        blocks = [recipe.method_config().blocks[0].model_copy(update=block), *recipe.method_config().blocks[1:]]
        other = recipe.model_copy(update={"config": {"blocks": [one.model_dump(mode="json") for one in blocks]}})
        return item_hashes(Identity.of(recipe, phantoms, "train"), other, recipe.build().stages(), ("", "w"))

    before = changed()
    assert before == changed(networks=((StageOptions(steps=3), StageOptions(steps=5)), (StageOptions(steps=7),)))
    assert before != changed(features=(8, 8, 8, 8))


def test_the_hash_of_items_changes_with_the_weights_and_the_data(phantoms: Store, tmp_path: Path) -> None:
    before = hashes(phantoms, tiny_recipe())
    trained = hashes(phantoms, tiny_recipe(), ("", "other"))
    assert trained["volumes"] == before["volumes"], "made before any training"
    assert trained["latents"] != before["latents"]
    other = Store.open(write_store(tmp_path / "other", {"train": [0, 1, 5]}))
    assert hashes(other, tiny_recipe())["volumes"] != before["volumes"]


def test_the_hash_of_weights_changes_with_any_of_them() -> None:
    method = tiny_recipe().build()
    assert isinstance(method, Tiny)
    before = weights_hash(method)
    method.autoencoder.mean[0] += 1e-6
    assert weights_hash(method) != before


def test_runs_share_a_cache(phantoms: Store, tmp_path: Path) -> None:
    told: list[str] = []
    for name, steps in (("a", 6), ("b", 5)):
        told.clear()
        recipe = tiny_recipe(first={"steps": steps, "batch_size": 2})
        options = TrainOptions(device="cpu", cache=tmp_path / "cache")
        train_recipe(recipe, phantoms, tmp_path / name, options=options, progress=lambda what, *_: told.append(what))
    assert "preparing volumes" not in told
    assert "preparing latents" in told, "the autoencoder is another one"
    assert not (tmp_path / "a" / "cache").exists()
