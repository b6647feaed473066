"""How every method is built and learns, whichever it is (T7). Methods are found by themselves, by their recipes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from contract_models import ONE_PHANTOM, VIEWS, briefly_trained, choices, small
from learn_stages import Lesson, lessons, trained_on
from pydantic import BaseModel
from safetensors.torch import load_file
from small_models import GRID, patient, rng, xrays_of

from voxray.errors import CheckpointError
from voxray.methods import Method, MethodConfig, method_named, method_names
from voxray.methods.stages import AnyStage, Stage
from voxray.models import load_model, save_model
from voxray.recipes import load_recipe, recipe_names
from voxray.training.order import seeded

every_recipe = pytest.mark.parametrize("name", choices(brief=True))


def fresh(name: str) -> tuple[Method, Sequence[AnyStage]]:
    with seeded("tests", name):  # critics are made with the stages
        method = small(name, brief=True).build()
        return method, method.stages()


@contextmanager
def lessons_of(name: str, *seeds: int) -> Iterator[tuple[Method, Iterator[Lesson]]]:
    """Lend a fresh method and its lessons on these patients."""
    if all(isinstance(stage, Stage) for stage in fresh(name)[1]):
        pytest.skip("no stage of this method learns by gradients")
    with seeded("tests", name):
        method = small(name, brief=True).build()
        yield method, lessons(method, [patient(seed) for seed in seeds], VIEWS)


def test_T7_every_method_has_a_recipe() -> None:
    assert {load_recipe(name).method for name in recipe_names()} >= set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_T7_every_setting_is_strict_and_described(name: str) -> None:
    assert issubclass(method_named(name).Config, MethodConfig)
    sections: list[type[BaseModel]] = [method_named(name).Config]
    for section in sections:
        assert {section.model_config[key] for key in ("frozen", "strict")} == {True}
        assert section.model_config["extra"] == "forbid"
        for field, info in section.model_fields.items():
            inner = type(info.default) if isinstance(info.default, BaseModel) else None
            assert info.description or (inner and inner.__doc__), f"{name}: {section.__name__}.{field}"
            sections += [inner] if inner else []


@every_recipe
def test_T7_a_method_builds_from_its_recipe_and_without_memory(name: str) -> None:
    method, stages = fresh(name)
    assert method.grid == GRID
    assert isinstance(method.config, method_named(small(name).method).Config)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names) > 0
    places = [tensor.data_ptr() for tensor in method.state_dict().values() if tensor.numel()]
    assert len(set(places)) == len(places), "a tensor of two names cannot be written to a checkpoint"
    with torch.device("meta"):
        empty = load_recipe(name).build()
    assert {tensor.device.type for tensor in empty.state_dict().values()} == {"meta"}
    shapes = {key: tensor.shape for key, tensor in method.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in briefly_trained(name).state_dict().items()}


@every_recipe
def test_T7_stages_that_are_fitted_count_to_their_end(name: str) -> None:
    for stage in fresh(name)[1]:
        if isinstance(stage, Stage):
            calls: list[tuple[int, int]] = []
            stage.fit([patient(seed) for seed in range(3)], lambda *at, calls=calls: calls.append(at))
            assert all(0 < done <= total for done, total in calls)
            assert calls[-1][0] == calls[-1][1]


@every_recipe
def test_T7_training_gives_finite_weights(name: str) -> None:
    assert all(bool(torch.isfinite(tensor).all()) for tensor in briefly_trained(name).state_dict().values())


@every_recipe
def test_T7_a_step_of_each_stage_gives_finite_gradients_on_all_its_parameters(name: str) -> None:
    """Where a net ends in a layer of zeros, as MONAI's do, the others' gradients are zero in the first step.

    So each stage first learns for its two steps; then hardly any gradient may be zero.
    """
    learned = set()
    with lessons_of(name, 0, 1) as (method, course):
        for lesson in course:
            lesson.learn()
            gradients = lesson.gradients()
            assert gradients
            assert not [key for key, gradient in gradients.items() if gradient is None]
            found = [gradient for gradient in gradients.values() if gradient is not None]
            assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
            assert sum(bool(gradient.any()) for gradient in found) > 0.9 * len(found)
            learned |= {id(parameter) for parameter in lesson.stage.network.parameters()}
    assert learned == {id(parameter) for parameter in method.parameters()}, "no parameter is left out of training"


@every_recipe
def test_T7_a_stage_changes_its_own_network_alone(name: str) -> None:
    """Preparations are kept on disk: nothing that they are made by may change later."""
    with lessons_of(name, 0) as (method, course):
        for lesson in course:
            own = {id(tensor) for tensor in lesson.stage.network.state_dict(keep_vars=True).values()}
            before = {
                key: (tensor, tensor.detach().clone()) for key, tensor in method.state_dict(keep_vars=True).items()
            }
            lesson.learn()
            changed = {key for key, (now, then) in before.items() if not torch.equal(now, then)}
            assert changed
            assert {key for key, (now, _) in before.items() if id(now) in own} >= changed


@pytest.mark.parametrize("name", choices())
def test_T7_one_phantom_is_learned_by_each_stage(name: str) -> None:
    """A net of hardly any size, one patient, 80 steps; the networks of the stages before have learned nothing."""
    with lessons_of(name, 7) as (_, course):
        for lesson in course:
            steps, left = ONE_PHANTOM.get(lesson.stage.name, (80, 0.6))
            start = {key: tensor.clone() for key, tensor in lesson.stage.network.state_dict().items()}
            before = lesson.error()
            lesson.learn(steps)
            assert lesson.error() < left * before, lesson.stage.name
            lesson.stage.network.load_state_dict(start)


@pytest.mark.parametrize("name", choices())
def test_D1_T7_training_twice_gives_the_same_weights(name: str) -> None:
    again, _ = trained_on(small(name, brief=True), [patient(seed) for seed in range(3)], VIEWS)
    for key, tensor in briefly_trained(name).state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)


@every_recipe
def test_T7_a_result_has_the_right_shape_and_finite_numbers(name: str) -> None:
    estimate = briefly_trained(name).reconstruct(xrays_of(patient(20), VIEWS), rng=rng())
    assert estimate.volume.grid.is_close(GRID)
    assert bool(torch.isfinite(estimate.volume.hu).all())


@every_recipe
def test_M2_T7_a_saved_model_gives_the_same_result(name: str, tmp_path: Path) -> None:
    save_model(briefly_trained(name), small(name, brief=True), tmp_path / "a", "")
    radiograph = xrays_of(patient(20), VIEWS)
    loaded = load_model(tmp_path / "a")
    save_model(loaded.method, loaded.info.recipe, tmp_path / "b", "")
    names = load_file(tmp_path / "a" / "weights.safetensors").keys()
    assert not any(key.startswith(loaded.method.training_only) for key in names)
    one, two = (load_model(tmp_path / folder).method.reconstruct(radiograph, rng=rng()) for folder in "ab")
    assert torch.equal(one.volume.hu, two.volume.hu)


def test_a_model_can_be_loaded_without_a_part_that_others_do_not_need(tmp_path: Path) -> None:
    save_model(briefly_trained("dvg-anyview"), small("dvg-anyview", brief=True), tmp_path / "a", "")
    without = load_model(tmp_path / "a", overrides=["config.denoiser=null"]).method
    assert not any(name.startswith("denoiser.") for name in without.state_dict())
    assert without.reconstruct(xrays_of(patient(20), VIEWS), rng=rng(), samples=2).std is None
    with pytest.raises(CheckpointError, match="does not fit"):  # the denoiser was made for a new view
        load_model(tmp_path / "a", overrides=["config.new_view=null"])
