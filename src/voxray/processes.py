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
        workers: processes, which share the cores; at most 1 for none but this one.

    Raises:
        ResourceError: if a worker was killed (out of memory).
    """
    count = min(workers, len(tasks))
    if count <= 1:
        work = make()
        for task in tasks:
            yield task, work(task)
        return
    # "spawn": a forked process would inherit the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(make, count))
    try:
        futures = {pool.submit(_do, task): task for task in tasks}
        for future in as_completed(futures):
            task = futures.pop(future)  # with its result, which so does not stay until the last is done
            yield task, future.result()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"A worker was killed, most likely for want of memory: run the same again with fewer than {count} workers; "
            f"what is finished in a folder is kept. Or the workers could not start, as in a script of your own "
            f"without an `if __name__ == '__main__':` guard, or one that is no file: add the guard, save the script "
            f"as a file, or ask for one worker."
        ) from error
    except BaseException:  # Ctrl-C, or an error: nobody waits for tasks that are under way
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(make: Callable[[], Callable[[Any], Any]], workers: int) -> None:
    """Share the cores, leave Ctrl-C to the process that started this one, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_threads(max(1, cores() // workers))
    _WORK[:] = [make()]


def limit_threads(most: int) -> None:
    """Keep every library that works in threads to so many; one that was told to take fewer stays there."""
    import numba
    import SimpleITK as sitk  # noqa: N813
    import torch

    torch.set_num_threads(min(most, torch.get_num_threads()))
    numba.set_num_threads(min(most, numba.get_num_threads()))
    filters = sitk.ProcessObject
    filters.SetGlobalDefaultNumberOfThreads(min(most, filters.GetGlobalDefaultNumberOfThreads()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(task: Any) -> Any:
    return _WORK[0](task)
