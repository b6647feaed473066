"""Results of an evaluation of phantoms, as `compare` keeps them."""

from dataclasses import replace
from pathlib import Path

import pytest
from comparing import OPTIONS, QUICK, VIEWS
from small_models import small_method, small_recipe, write_store

from voxray.api import compare
from voxray.models import save_model


@pytest.fixture(scope="session")
def phantom_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three phantoms."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(small_method(3), small_recipe(3), folder, "")
    return folder


@pytest.fixture(scope="session")
def phantom_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three other phantoms."""
    return write_store(tmp_path_factory.mktemp("stores") / "store", {"train": [0], "val": [20, 21, 22]})


@pytest.fixture(scope="session")
def compared(phantom_model: Path, phantom_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two variants of a model and two sets of views (one asked for twice), with an uncertainty."""
    folder = tmp_path_factory.mktemp("results") / "compared"
    models = [f"{phantom_model}{QUICK}", f"{phantom_model}:config.iterations=3:config.detail_iterations=1"]
    compare(models, phantom_store, folder, views=VIEWS, options=replace(OPTIONS, samples=2))
    return folder
