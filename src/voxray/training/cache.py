"""Items: what the preparations of a method make of training samples, kept on disk."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from voxray.data.dataset import TrainingSample, make_loader
from voxray.errors import NumericalError, RecipeError, ResourceError, VoxrayError
from voxray.images.atomic import atomic_path
from voxray.images.reading import reading
from voxray.methods.stages import Batch, Item, Preparation
from voxray.training.order import Key
from voxray.training.progress import Told
from voxray.training.samples import Samples
from voxray.training.stop import Stop


@dataclass(frozen=True, eq=False)
class Items:
    """Where a stage finds its items.

    Attributes:
        samples: what items are made from.
        folder: of the cache.
        hashes: of all that the items of a preparation, by its name, depend on; a part of the names of folders.
        kept: whether items are kept at all; if not, they are made when they are asked for.
        workers: processes that make samples; 0 for none.
        device: where preparations are computed.
    """

    samples: Samples
    folder: Path
    hashes: dict[str, str]
    kept: bool
    workers: int
    device: torch.device | str = "cpu"

    def fill(self, preparation: Preparation, keys: Iterable[Key], stop: Stop, progress: Told | None = None) -> None:
        """Make the items that are not there yet; each file appears whole. Ends early where `stop` has a reason."""
        missing = [key for key in dict.fromkeys(keys) if not self._path(preparation, key).exists()]
        if not missing:
            return
        if preparation.after is not None:
            self.fill(preparation.after, missing, stop, progress)
        self._path(preparation, missing[0]).parent.mkdir(parents=True, exist_ok=True)
        sources = self._sources(preparation, missing, self._read)
        for done, key in enumerate(missing):
            if stop.reason:
                return
            item = self._make(preparation, next(sources))
            with atomic_path(self._path(preparation, key)) as temporary:
                temporary.write_bytes(save(item))
            if progress is not None:
                progress(f"preparing {preparation.name}", done + 1, len(missing))

    def stream(self, preparation: Preparation, keys: Sequence[Key]) -> Iterator[Item]:
        """Yield the items in this order; those that are kept must be there (`fill`)."""
        return self._read(preparation, keys) if self.kept else self._fresh(preparation, keys)

    def _read(self, preparation: Preparation, keys: Iterable[Key]) -> Iterator[Item]:
        for key in keys:
            path = self._path(preparation, key)
            with reading(path), safe_open(path, "pt") as file:
                yield {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def _fresh(self, preparation: Preparation, keys: Sequence[Key]) -> Iterator[Item]:
        for source in self._sources(preparation, keys, self._fresh):
            yield self._make(preparation, source)

    def _sources(
        self, preparation: Preparation, keys: Sequence[Key], items: Callable[[Preparation, Sequence[Key]], Any]
    ) -> Iterator[Any]:
        if preparation.after is not None:
            return iter(items(preparation.after, keys))
        return self._samples(keys, self.samples.coarser(preparation.coarser))

    def _samples(self, keys: Sequence[Key], samples: Samples) -> Iterator[TrainingSample]:
        try:
            yield from make_loader(samples, 1, workers=min(self.workers, len(keys)), sampler=keys)
        except VoxrayError as error:  # from a worker, its traceback stands before the message
            message = re.sub(r"^voxray\.errors\.\w+: ", "", str(error).strip().splitlines()[-1])
            raise type(error)(message) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ResourceError(
                "A process that makes training samples was killed, most likely for want of memory: take fewer "
                "--workers."
            ) from error

    @torch.no_grad()
    def _make(self, preparation: Preparation, source: Any) -> dict[str, Tensor]:
        if isinstance(source, TrainingSample):
            source = source.to(self.device)
        else:
            source = {name: _single(tensor).to(self.device) for name, tensor in source.items()}
        item = {name: _half(tensor).cpu().contiguous() for name, tensor in preparation.make(source).items()}
        bad = [name for name, tensor in item.items() if not bool(torch.isfinite(tensor).all())]
        if bad:
            raise NumericalError(
                f"The preparation {preparation.name!r} makes numbers that are not finite in half precision, in "
                f"{', '.join(bad)}: bring them to values near 1."
            )
        return item

    def _path(self, preparation: Preparation, key: Key) -> Path:
        epoch, index = key
        return self.folder / f"{preparation.name}-{self.hashes[preparation.name]}" / f"{epoch}-{index}.safetensors"


class Batches:
    """The batches of some steps, each read in a thread while the one before is learned from.

    Args:
        stream: items, one after another.
        start, end: first step, and the one after the last.
        size: items a batch.
    """

    def __init__(self, stream: Callable[[], Iterator[Item]], start: int, end: int, size: int) -> None:
        self.stream, self.start, self.end, self.size = stream, start, end, size

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        items = self.stream()

        def batch() -> Batch:
            parts = [next(items) for _ in range(self.size)]
            return {name: _stacked(name, [_single(part[name]) for part in parts]) for name in parts[0]}

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(batch)
            for step in range(self.start, self.end):
                ready = ahead.result()
                if step + 1 < self.end:
                    ahead = pool.submit(batch)
                yield step, ready


def _stacked(name: str, tensors: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise RecipeError(
            f"Samples whose {name!r} have the shapes {', '.join(map(str, shapes))} cannot share a batch: take a "
            "batch_size of 1, or views of one number."
        )
    return torch.stack(list(tensors))


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
