"""What a step sees is a pure function of seed, stage and step (D3, D4, D8)."""

import random

import numpy as np
import pytest
import torch

from voxray.training.order import generator, keys_of_step, seeded

SETTINGS = {"samples": 5, "batch_size": 2, "variants": 3, "seed": 1, "stage": "s"}


def keys(steps: int, **changes: object) -> list[tuple[int, int]]:
    return [key for step in range(steps) for key in keys_of_step(step, **{**SETTINGS, **changes})]  # type: ignore[arg-type]


def test_every_epoch_goes_through_all_samples_in_a_new_order() -> None:
    epochs = [keys(10)[start : start + 5] for start in range(0, 20, 5)]
    assert [{epoch for epoch, _ in part} for part in epochs] == [{0}, {1}, {2}, {0}], "the fourth is the first variant"
    assert [sorted(index for _, index in part) for part in epochs] == [[0, 1, 2, 3, 4]] * 4
    assert len({tuple(index for _, index in part) for part in epochs}) > 2


def test_a_stage_may_begin_with_a_later_variant() -> None:
    assert {epoch for epoch, _ in keys(20, first_variant=7)} == {7, 8, 9}
    assert [index for _, index in keys(20, first_variant=7)] == [index for _, index in keys(20)]
    assert max(epoch for epoch, _ in keys(10, variants=0, first_variant=7)) == 10


def test_with_no_variants_every_epoch_is_new() -> None:
    assert max(epoch for epoch, _ in keys(10, variants=0)) == 3


@pytest.mark.parametrize("change", [{"seed": 2}, {"stage": "t"}])
def test_another_seed_or_stage_has_another_order(change: dict[str, object]) -> None:
    assert keys(10) != keys(10, **change)


def test_D8_batches_are_cut_from_one_sequence() -> None:
    """So a step has the same samples however many processes share it, and however it was reached."""
    assert keys(10) == keys(4, batch_size=5)
    assert keys_of_step(7, **SETTINGS) == keys(8)[14:]  # type: ignore[arg-type]


def test_D3_inside_all_depends_on_the_key_and_outside_nothing_changes() -> None:
    def drawn(*key: object) -> tuple[float, float]:
        with seeded(*key) as rng:
            return float(torch.rand(())), float(torch.rand((), generator=rng))

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    first = drawn(1, "a", 2)
    torch.rand(3, generator=generator("elsewhere"))
    assert torch.equal(torch.get_rng_state(), before[0])
    with torch.random.fork_rng():
        torch.rand(5)  # another state outside
        assert drawn(1, "a", 2) == first
    others = [drawn(1, "a", 3), drawn(2, "a", 2), drawn(1, "b", 2)]
    assert len({first, *others}) == 4
    assert first[0] != first[1]
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # type: ignore[index]
