"""Tasks in several processes: one object does them in each, and Ctrl-C ends all."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from voxray.errors import ResourceError

Task = TypeVar("Task")
Result = TypeVar("Result")

# What does the tasks of this process, where it is a worker; set once, when the worker starts.
_WORK: list[Callable[[Any], Any]] = []


def perform(
    make: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], workers: int = 1
) -> Iterator[tuple[Task, Result]]:
    """Do every task, and yield it with its result as it is done.

    With more than one worker, a script of your own must call this under `if __name__ == "__main__":`, as always
    with processes in Python.

    Args:
        make: called once in every process, for what does the tasks; picklable, as are tasks and results.
        tasks: done in this order by one worker, begun in this order by several.
        workers: processes; at most 1 for none but this one.

    Raises:
        ResourceError: if a worker was killed (out of memory).
    """
    if min(workers, len(tasks)) <= 1:
        work = make()
        for task in tasks:
            yield task, work(task)
        return
    # "spawn": a forked process would inherit the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_start, initargs=(make, workers)
    )
    try:
        futures = {pool.submit(_do, task): task for task in tasks}
        for future in as_completed(futures):
            task = futures.pop(future)  # with its result, which so does not stay until the last is done
            yield task, future.result()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"A worker was killed, most likely for want of memory: run the same command again with fewer than "
            f"{workers} workers. Or the workers could not start, as in a script of your own without an "
            f"`if __name__ == '__main__':` guard, or one that is no file: add the guard, or ask for one worker."
        ) from error
    except BaseException:  # Ctrl-C, or an error: nobody waits for reconstructions that are under way
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(make: Callable[[], Callable[[Any], Any]], workers: int) -> None:
    """Share the cores, leave Ctrl-C to the process that started this one, and end with it, however it ends."""
    import numba
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    _WORK[:] = [make()]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(task: Any) -> Any:
    return _WORK[0](task)
