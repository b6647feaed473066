"""Tasks in several processes."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from doubler import Doubler

from voxray.errors import InputError, ResourceError
from voxray.processes import limit_threads, perform


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


def stop_all(run: subprocess.Popen[str]) -> None:
    """As a terminal does on Ctrl-C: every process of the group is told."""
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.parametrize("stop", [subprocess.Popen.kill, pytest.param(stop_all, marks=pytest.mark.slow)])
def test_O1_workers_end_with_the_process_that_started_them(
    stop: Callable[[subprocess.Popen[str]], None], tmp_path: Path
) -> None:
    """Workers whose only work is to wait hold the other end of a pipe, which closes when the last of them is gone."""
    script = tmp_path / "run.py"
    script.write_text(
        "import os, time\n"
        "from voxray.processes import limit_threads, perform\n"
        "def wait(_):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(300)\n"
        "def make():\n"
        "    return wait\n"
        "if __name__ == '__main__':\n"
        "    list(perform(make, range(4), workers=2))\n"
    )
    run = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    told = {run.stdout.readline(), run.stdout.readline()}
    stop(run)
    try:
        rest, _ = run.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert (len(told), rest) == (2, "")
    assert run.returncode == -(signal.SIGKILL if stop is not stop_all else signal.SIGINT)


def test_workers_share_the_cores_and_take_no_more_than_they_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr("numba.get_num_threads", lambda: 8)
    monkeypatch.setattr("torch.set_num_threads", lambda n: told.update(torch=n))
    monkeypatch.setattr("numba.set_num_threads", lambda n: told.update(numba=n))
    filters = "SimpleITK.ProcessObject"
    monkeypatch.setattr(f"{filters}.GetGlobalDefaultNumberOfThreads", lambda: 16)
    monkeypatch.setattr(f"{filters}.SetGlobalDefaultNumberOfThreads", lambda n: told.update(sitk=n))
    limit_threads(4)
    assert told == {"torch": 2, "numba": 4, "sitk": 4}
