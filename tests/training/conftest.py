"""A store of phantoms, and a method that learns in moments."""

from pathlib import Path

import pytest
import tiny_learner
from small_models import write_store

from voxray.data.store import Store


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that brings the method `tiny_learner` where it is on the path of Python."""
    return tiny_learner.install(tmp_path_factory.mktemp("package"))


@pytest.fixture
def tiny_method(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package))


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("phantoms") / "store", {"train": [0, 1, 2]}))
