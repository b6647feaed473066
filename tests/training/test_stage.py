"""How a stage learns: schedule, average, critic, frozen parts, precision, logs."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_learner import Tiny, tiny_recipe

from voxray.data.store import Store
from voxray.errors import InputError, NumericalError
from voxray.methods.stages import Batch, GradientStage, Losses, StageOptions
from voxray.models import load_model
from voxray.recipes import Recipe
from voxray.recipes.sections import DataRecipe
from voxray.training import TrainOptions, train_recipe
from voxray.training.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint
from voxray.training.stage_module import StageModule, learning_rate

pytestmark = pytest.mark.usefixtures("tiny_method")
CPU = TrainOptions(device="cpu")


def trained(store: Store, run: Path, recipe: Recipe | None = None, options: TrainOptions = CPU) -> Path:
    return train_recipe(recipe or tiny_recipe(), store, run, options=options).run


def last(run: Path) -> Checkpoint:
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "log.csv").open()))


def test_a_run_is_a_folder_with_all_that_was_promised(phantoms: Store, tmp_path: Path) -> None:
    run = trained(phantoms, tmp_path / "run")
    names = {path.name for path in run.iterdir()}
    assert names == {"model", "checkpoints", "logs", "previews", "cache", "log.csv", "run.json"}
    found = load_model(run).info
    assert (found.recipe.name, found.name) == ("tiny", run.name)
    assert {path.name for path in (run / "logs").iterdir()} == {"the-autoencoder", "map"}
    assert all(any(board.glob("events.*")) for board in (run / "logs").iterdir())
    pictures = sorted(path.name for path in (run / "previews").iterdir())
    assert pictures == [f"the-autoencoder-{step:08d}-axial.png" for step in (1, 6)]
    assert Image.open(run / "previews" / pictures[0]).size == (32, 32)
    steps = [(row["stage"], row["step"]) for row in rows(run) if row["name"] == "loss"]
    assert steps == [("the autoencoder", str(i)) for i in range(6)] + [("map", str(i)) for i in range(4)]
    critic = [int(row["step"]) for row in rows(run) if row["name"] == "critic/loss"]
    assert critic == [2, 3, 4, 5], "from its start"


def test_D1_the_same_seed_gives_the_same_bits_and_another_others(phantoms: Store, tmp_path: Path) -> None:
    def weights(name: str, seed: int, workers: int = 0) -> bytes:
        torch.rand(1)  # the state outside does not matter
        run = trained(phantoms, tmp_path / name, tiny_recipe(seed=seed), TrainOptions(device="cpu", workers=workers))
        return (run / "model" / "weights.safetensors").read_bytes()

    with torch.random.fork_rng():
        first = weights("a", 0)
        assert weights("b", 0, workers=1) == first
        assert weights("c", 1) != first


def test_D3_training_networks_leaves_the_global_random_state(phantoms: Store, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained(phantoms, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stage_changes_its_network_and_nothing_else(phantoms: Store, tmp_path: Path) -> None:
    run = trained(phantoms, tmp_path / "run")
    one, two = (read_checkpoint(path).tensors for path in sorted((run / "checkpoints").glob("*.safetensors")))
    changed = {name for name in one if name.startswith("method/") and not torch.equal(one[name], two[name])}
    averaged = {f"method/autoencoder.{part}.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")}
    assert changed == averaged | {"method/map.weight", "method/map.bias"}
    for name in averaged:  # changed by the average, which took their place at the end of the first stage
        assert torch.equal(two[name], one[name.replace("method/autoencoder.", "average/module.")])


def test_the_average_is_that_of_all_steps_and_buffers_are_copied(phantoms: Store, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    record = StageModule.on_train_batch_end

    def spy(self: StageModule, *anything: object) -> None:
        seen.append({name: value.clone() for name, value in self.state().items()})
        record(self, *anything)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageModule, "on_train_batch_end", spy)
        recipe = tiny_recipe(
            first={"steps": 30, "batch_size": 1, "ema": 0.7, "learning_rate": 0.01}, second={"steps": 1}
        )
        trained(phantoms, tmp_path / "run", recipe)
    steps = [state for state in seen if "average/module.encoder.weight" in state]
    assert len(steps) == 30
    own, average = "method/autoencoder.encoder.weight", "average/module.encoder.weight"
    expected = steps[0][own].double()
    for n, state in enumerate(steps[1:], 1):
        decay = min(0.7, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * state[own].double()
        assert torch.allclose(state[average].double(), expected, atol=1e-6)
    assert not torch.allclose(steps[-1][average], steps[-1][own], atol=1e-4)


def test_the_learning_rate_rises_and_falls() -> None:
    options = StageOptions(steps=100, learning_rate=2.0, warmup=10, decay="cosine")
    assert learning_rate(options, 0) == pytest.approx(0.2)
    assert learning_rate(options, 50) == pytest.approx(1.0)
    assert learning_rate(options, 99) == pytest.approx(1 + math.cos(0.99 * math.pi))
    late = StageOptions(steps=100, learning_rate=2.0, decay="linear")
    assert [learning_rate(late, step) for step in (0, 50, 75, 99)] == pytest.approx([2.0, 2.0, 1.0, 0.04])
    still = StageOptions(steps=100, learning_rate=2.0)
    assert {learning_rate(still, step) for step in range(100)} == {2.0}


def test_gradients_are_clipped_and_logged_as_they_were(phantoms: Store, tmp_path: Path) -> None:
    """One step of AdamW without clipping would go as far; with plain betas the second moment tells the gradient."""
    second = {"steps": 1, "batch_size": 1, "clip": 1e-3, "betas": [0.0, 0.0]}
    run = trained(phantoms, tmp_path / "run", tiny_recipe(second=second))
    norm = next(float(row["value"]) for row in rows(run) if (row["stage"], row["name"]) == ("map", "gradient norm"))
    squares = sum(float(last(run).tensors[f"optimizer0/{i}.exp_avg_sq"].sum()) for i in range(2))
    assert math.sqrt(squares) == pytest.approx(1e-3, rel=1e-2)
    assert norm > 0.1


def test_bf16_computes_in_bf16_and_keeps_fp32(phantoms: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[torch.dtype] = []

    def loss(self: Tiny, batch: Batch) -> Losses:
        found = self.map(batch["seen"])
        kinds.extend([batch["seen"].dtype, found.dtype])
        return {"loss": (found.float() - batch["latent"]).square().mean()}

    replace_stages(monkeypatch, lambda method, stage: lambda batch, step, rng: loss(method, batch))
    for precision in ("bf16", "fp32"):
        run = trained(phantoms, tmp_path / precision, tiny_recipe(precision=precision))
        tensors = last(run).tensors
        assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float32}
    assert kinds == [torch.float32, torch.bfloat16] * 4 + [torch.float32] * 8


def test_N11_a_loss_that_is_not_finite_is_told(
    phantoms: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(method: Tiny, stage: GradientStage) -> Callable[[Batch, int, torch.Generator], Losses]:
        return lambda batch, step, rng: {"loss": method.map(batch["seen"]).mean() * (math.nan if step == 2 else 1)}

    replace_stages(monkeypatch, loss)
    with pytest.raises(NumericalError, match="'map' is not finite in step 2"):
        trained(phantoms, tmp_path / "run")


def replace_stages(
    monkeypatch: pytest.MonkeyPatch,
    loss: Callable[[Tiny, GradientStage], Callable[[Batch, int, torch.Generator], Losses]],
) -> None:
    """Give the second stage of the method another loss."""
    original = Tiny.stages

    def stages(self: Tiny) -> Sequence[GradientStage]:
        first, second = original(self)
        changed = GradientStage(second.name, second.network, second.preparation, loss(self, second), second.options)
        return [first, changed]

    monkeypatch.setattr(Tiny, "stages", stages)


def test_with_no_variants_nothing_is_kept(phantoms: Store, tmp_path: Path) -> None:
    recipe = tiny_recipe(DataRecipe(variants=0))
    run = trained(phantoms, tmp_path / "run", recipe)
    assert not (run / "cache").exists()
    assert (run / "model").exists()


def test_a_stage_sees_as_few_variants_as_it_asks_for(phantoms: Store, tmp_path: Path) -> None:
    few = {"steps": 6, "batch_size": 2, "variants": 1}
    run = trained(phantoms, tmp_path / "run", tiny_recipe(DataRecipe(variants=2), first=few))
    epochs = {
        folder.name.split("-")[0]: {file.name.split("-")[0] for file in folder.iterdir()}
        for folder in (run / "cache").iterdir()
    }
    assert epochs == {"volumes": {"0", "1"}, "latents": {"0", "1"}}, "the second stage sees both"
    run = trained(phantoms, tmp_path / "both", tiny_recipe(DataRecipe(variants=2), first=few, second=few))
    assert {file.name[0] for folder in (run / "cache").iterdir() for file in folder.iterdir()} == {"0"}


def test_a_stage_has_gradients_in_its_network_alone() -> None:
    method = tiny_recipe().build()
    (stage, _) = method.stages()
    run = SimpleNamespace(method=method, stage=stage, items=None, start=0, tensors={})
    module = StageModule(run)  # type: ignore[arg-type]
    assert isinstance(method, Tiny)
    assert method.autoencoder.decoder.weight.requires_grad
    assert not any(parameter.requires_grad for parameter in method.map.parameters())
    assert not method.map.training
    assert module.network.training


@pytest.mark.parametrize("options", [{"devices": 2}, {"nodes": 4}, {"devices": 3, "nodes": 2}])
def test_I13_a_batch_that_cannot_be_shared_is_refused(phantoms: Store, tmp_path: Path, options: dict[str, int]) -> None:
    recipe = tiny_recipe(first={"steps": 1, "batch_size": 3})
    with pytest.raises(InputError, match=r"batches of 3, which . processes cannot share"):
        trained(phantoms, tmp_path / "run", recipe, TrainOptions(device="cpu", **options))


@pytest.mark.parametrize("options", [
    {"max_seconds": 0.0}, {"devices": 0}, {"nodes": 0}, {"workers": -1},
])  # fmt: skip
def test_I13_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        TrainOptions(**options)  # type: ignore[arg-type]
