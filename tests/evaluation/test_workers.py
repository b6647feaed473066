"""Tasks in several processes."""

from functools import partial

import pytest

from voxray.errors import InputError, ResourceError
from voxray.evaluation.workers import perform


class Doubler:
    """Doubles numbers; a refused one is an error, and another kills its process."""

    def __init__(self, refused: int | None = None, deadly: int | None = None) -> None:
        self.refused, self.deadly, self.count = refused, deadly, 0

    def __call__(self, number: int) -> int:
        if number == self.refused:
            raise InputError(f"{number} is refused.")
        if number == self.deadly:
            import os

            os._exit(9)
        self.count += 1
        return 2 * number


def test_one_worker_does_the_tasks_in_their_order() -> None:
    made: list[Doubler] = []

    def make() -> Doubler:
        made.append(Doubler())
        return made[-1]

    assert list(perform(make, [3, 1, 2])) == [(3, 6), (1, 2), (2, 4)]
    assert [doubler.count for doubler in made] == [3]
    with pytest.raises(InputError, match="1 is refused"):
        list(perform(partial(Doubler, refused=1), [3, 1, 2]))


@pytest.mark.slow
def test_several_workers_do_every_task_once_and_hand_errors_back() -> None:
    assert sorted(perform(Doubler, list(range(9)), workers=2)) == [(n, 2 * n) for n in range(9)]
    with pytest.raises(InputError, match="4 is refused"):
        list(perform(partial(Doubler, refused=4), list(range(9)), workers=2))
    with pytest.raises(ResourceError, match="fewer than 2 workers"):
        list(perform(partial(Doubler, deadly=4), list(range(9)), workers=2))
