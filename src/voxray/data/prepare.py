"""Many CT scans into a store: in parallel, resumed after a kill, one bad file at a time."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from voxray.data.inputs import Found, Scan, find_scans
from voxray.data.one_case import Job, make_case
from voxray.data.options import PrepareOptions
from voxray.data.split import Row, assign_splits, read_table, split_sizes
from voxray.data.store import (
    CASES,
    MANIFEST,
    CaseRecord,
    case_files,
    case_path,
    read_record,
    write_case,
    write_manifest,
)
from voxray.errors import InputError, VoxrayError, VoxrayWarning
from voxray.images.atomic import TEMPORARY_PREFIX
from voxray.processes import cores, perform

Progress = Callable[[int, int], None]

# A scan of 512 x 512 x 500 voxels takes about this much while it is prepared (measured: five copies of float32).
_BYTES_A_WORKER = 3 * 10**9


@dataclass
class PrepareSummary:
    """What became of the inputs.

    Attributes:
        made: ids prepared in this run.
        kept: ids that were in the store already, from the same files with the same options.
        failed: path -> what was wrong with it.
        skipped: path -> why it is no CT scan.
        warnings: id -> what was assumed about it.
        splits: cases of each split in the store.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or 2 (bad input) where something failed."""
        return 2 if self.failed else 0


@dataclass(frozen=True)
class Outcome:
    """What a worker hands back: a record, or what was wrong."""

    record: CaseRecord | None
    error: str
    warnings: tuple[str, ...]


def prepare(
    inputs: Sequence[Path],
    store: Path,
    options: PrepareOptions | None = None,
    progress: Progress | None = None,
) -> PrepareSummary:
    """Prepare CT scans for training and evaluation; run again, it goes on where it was stopped.

    Each case is written whole under its name or not at all, so the store is valid at every moment. Cases whose
    source, options or split changed are deleted before the first one is made again, so that nothing old stands
    beside the new, even after a failure or a kill. A scan that fails does not stop the others.

    With more than one worker, a script of your own must call this under `if __name__ == "__main__":`, as always
    with processes in Python.

    Args:
        inputs: files (NIfTI, NRRD, MetaImage, zips) and folders of them and of DICOM series.
        store: the folder to make, or to go on with.
        options: see `PrepareOptions`.
        progress: called with the number of scans done, and of all.

    Raises:
        InputError: if there is no CT, the table is wrong, or the store is none, or was made with other options.
        ResourceError: if the disk is full, or a worker was killed (out of memory).
    """
    options = options or PrepareOptions()
    table = read_table(options.table) if options.table else {}
    found = find_scans([Path(path) for path in inputs])
    scans = [_with_table_patient(scan, table) for scan in found.scans]
    splits = assign_splits(scans, table, options.fractions, options.protocol)
    jobs = [_job(scan, splits[scan.id], table.get(scan.id, Row()), options) for scan in scans]
    if options.pipeline == "x2ct" and any(job.row.isocentre_mm for job in jobs):
        warnings.warn(
            f"The isocentres in {str(options.table)!r} are not used: the pipeline x2ct places the cube itself. For "
            f"cubes about them, use the pipeline voxray.",
            VoxrayWarning, stacklevel=2,
        )  # fmt: skip
    records = _open(store, jobs, options, found)
    summary = PrepareSummary(failed=dict(found.failed), skipped=dict(found.skipped))
    todo = []
    for job in jobs:
        done = records.get(job.scan.id)
        if done is not None and (done.stamp, done.options) == (job.stamp, options.key()):
            summary.kept.append(job.scan.id)
        else:
            todo.append(job)
    (store / MANIFEST).unlink(missing_ok=True)
    for job in todo:
        case_path(store, job.scan.id).unlink(missing_ok=True)
        records.pop(job.scan.id, None)
    if progress:
        progress(len(summary.kept), len(jobs))
    for count, (job, outcome) in enumerate(_outcomes(todo, store, options), start=len(summary.kept) + 1):
        _note(summary, job, outcome, records)
        if progress:
            progress(count, len(jobs))
    write_manifest(store, options.as_json(), records)
    summary.splits = split_sizes({name: record.split for name, record in records.items()})
    return summary


def _note(summary: PrepareSummary, job: Job, outcome: Outcome, records: dict[str, CaseRecord]) -> None:
    if outcome.warnings:
        summary.warnings[job.scan.id] = list(outcome.warnings)
    if outcome.record is None:
        summary.failed[str(job.scan.path)] = outcome.error
    else:
        summary.made.append(job.scan.id)
        records[job.scan.id] = outcome.record


def _with_table_patient(scan: Scan, table: dict[str, Row]) -> Scan:
    patient = table[scan.id].patient if scan.id in table else ""
    return replace(scan, patient=patient) if patient else scan


def _job(scan: Scan, split: str, row: Row, options: PrepareOptions) -> Job:
    told = f"{scan.stamp()} {scan.patient} {split} {row.licence} {row.isocentre_mm}"
    return Job(scan, split, row, options, hashlib.sha256(told.encode()).hexdigest()[:32])


def _open(store: Path, jobs: list[Job], options: PrepareOptions, found: Found) -> dict[str, CaseRecord]:
    """Make the store, or read what is in it; what a killed run left half-written is deleted.

    Raises:
        InputError: if the folder is something else, or what stays in it does not fit what comes.
    """
    if store.exists() and not (store.is_dir() and ((store / CASES).is_dir() or not any(store.iterdir()))):
        raise InputError(f"{str(store)!r} exists and is no store of voxray: choose another folder.")
    try:
        (store / CASES).mkdir(parents=True, exist_ok=True)
        for rest in (store / CASES).glob(f"{TEMPORARY_PREFIX}*"):
            rest.unlink()
    except OSError as error:
        raise InputError(f"{str(store)!r} cannot be written: {error.strerror}.") from error
    records = {}
    coming = {job.scan.id for job in jobs}
    for file in case_files(store):
        try:
            records[file.stem] = read_record(file)
        except InputError as error:
            if file.stem not in coming:  # else it is made again
                found.failed[str(file)] = str(error)
    split_of = {job.scan.patient: job.split for job in jobs}
    for name, record in records.items():
        if name in coming:
            continue
        if record.options != options.key():
            raise InputError(
                f"{str(store)!r} holds cases that were prepared with other options ({name!r}): choose another store."
            )
        if split_of.get(record.patient, record.split) != record.split:
            raise InputError(
                f"The patient of case {name!r} is in split {record.split!r} of {str(store)!r} already, and would "
                f"now be in {split_of[record.patient]!r}, too. Give all scans at once, or a table."
            )
    return records


# ---------------------------------------------------------------- workers


def run_job(job: Job, store: Path) -> Outcome:
    """Prepare one scan in this process; what is wrong with the scan becomes text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            case = make_case(job)
        except VoxrayError as error:
            return Outcome(None, str(error), _messages(caught))
        except MemoryError:
            return Outcome(None, "There is not enough memory for this scan.", _messages(caught))
    write_case(case_path(store, job.scan.id), case)  # a full disk is nobody's bad file: it stops the run
    return Outcome(case.record, "", _messages(caught))


def _messages(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    return tuple(str(entry.message) for entry in caught if issubclass(entry.category, VoxrayWarning))


def _outcomes(jobs: list[Job], store: Path, options: PrepareOptions) -> Iterator[tuple[Job, Outcome]]:
    if options.scheduler:
        return _on_cluster(jobs, store.resolve(), options.scheduler)
    return perform(partial(_worker, store), jobs, options.workers or _default_workers())


def _worker(store: Path) -> Callable[[Job], Outcome]:
    return partial(run_job, store=store)


def _on_cluster(jobs: list[Job], store: Path, scheduler: str) -> Iterator[tuple[Job, Outcome]]:
    try:
        import distributed
    except ImportError as error:
        raise InputError("A Dask scheduler needs the extra 'cluster': pip install 'voxray[cluster]'.") from error
    try:
        client = distributed.Client(scheduler, timeout=30)
    except (OSError, ValueError) as error:
        raise InputError(f"There is no Dask scheduler at {scheduler!r} ({error}).") from error
    with client:
        futures: dict[Any, Job] = {client.submit(run_job, job, store, pure=False): job for job in jobs}
        for future in distributed.as_completed(futures):
            yield futures[future], future.result()


def _default_workers() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else _BYTES_A_WORKER
    return max(1, min(cores(), memory // _BYTES_A_WORKER))
