"""Methods are found by name: those of voxray, and those of installed packages."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

import voxray.methods
from voxray.errors import RecipeError
from voxray.methods import method_named, method_names
from voxray.methods.atlas import Atlas


class Guest(Atlas):
    name = "guest"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings a method `guest`, and one that claims the name of voxray's own."""

    def entry_points(group: str) -> EntryPoints:
        assert group == "voxray.methods"
        return EntryPoints([
            EntryPoint("guest", "guests_package:Guest", group), EntryPoint("atlas", "guests_package:Guest", group)
        ])  # fmt: skip

    monkeypatch.setattr(voxray.methods, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Guest)


def test_an_installed_package_can_bring_a_method() -> None:
    assert method_names() == sorted({*method_names(), "atlas", "guest"})
    assert method_named("guest") is Guest


def test_M1_no_package_takes_the_name_of_voxrays_own_method() -> None:
    assert method_named("atlas") is Atlas


def test_M1_a_name_that_nobody_brings_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no method 'ghost'; the methods are accord, atlas, .*guest"):
        method_named("ghost")
