"""What every contract test may use."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a recipe in one process (`--dist loadgroup`), which trains its model once for all of them."""
    for item in items:
        here = item.path.parent == Path(__file__).parent
        if here and isinstance(item, pytest.Function) and hasattr(item, "callspec") and "name" in item.callspec.params:
            item.add_marker(pytest.mark.xdist_group(item.callspec.params["name"]))


@pytest.fixture(autouse=True)
def global_random_state() -> Iterator[None]:
    """D3: whatever a test does with a method leaves the global generators alone."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # type: ignore[index]
