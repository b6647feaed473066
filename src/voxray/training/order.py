"""Which samples a step sees, and what chance it has: pure functions of the seed, the stage and the step.

That is why a checkpoint needs no state of any random generator, and why the number of processes does not change
which samples make up a step.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

# A sample: (epoch of the dataset, index).
Key = tuple[int, int]


def generator(*key: object) -> torch.Generator:
    """Return a generator (CPU) that depends on the key alone."""
    return torch.Generator().manual_seed(_number(*key))


@contextmanager
def seeded(*key: object) -> Iterator[torch.Generator]:
    """Lend `generator(*key)`; the global generators of torch depend on the key inside, and are restored after.

    The first weights of layers and dropout are drawn from those.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(_number("global", *key))
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(_number("global", *key))
        yield generator(*key)


def keys_of_step(
    step: int, *, samples: int, batch_size: int, variants: int, seed: int, stage: str, first_variant: int = 0
) -> list[Key]:
    """Return the samples of a step (from 0), over all processes.

    Epoch after epoch goes through all samples in a new order. Epochs repeat the augmentation of the one `variants`
    before; with 0 variants they never do. The first is number `first_variant`.
    """
    keys = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        epoch, position = divmod(place, samples)
        variant = first_variant + (epoch % variants if variants else epoch)
        keys.append((variant, _permutation(seed, stage, epoch, samples)[position]))
    return keys


@lru_cache(maxsize=4)
def _permutation(seed: int, stage: str, epoch: int, samples: int) -> list[int]:
    order: list[int] = torch.randperm(samples, generator=generator("order", seed, stage, epoch)).tolist()
    return order


def _number(*key: object) -> int:
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
