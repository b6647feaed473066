"""The methods, each in one file, found by themselves."""

import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points

from voxray.errors import RecipeError
from voxray.methods.base import Estimate, Method, MethodConfig, Stage
from voxray.methods.reconstruction import Reconstruction

__all__ = ["Estimate", "Method", "MethodConfig", "Reconstruction", "Stage", "method_named", "method_names"]

# Packages may bring methods of their own under this group of entry points.
ENTRY_POINTS = "voxray.methods"

# Files of this folder that are no methods.
_SHARED = {
    "anatomy", "autoencoding", "base", "latent_unets", "lifted", "one_pass", "projections", "reconstruction", "slices",
    "stages", "upsampled",
}  # fmt: skip


def method_names() -> list[str]:
    """List the methods that a recipe can name: one for each file or folder here, and those of installed packages."""
    return sorted(_own() | {entry.name for entry in entry_points(group=ENTRY_POINTS)})


def method_named(name: str) -> type[Method]:
    """Return the class of a method. Only built-in and installed methods have a name; a path or module has none.

    Raises:
        RecipeError: if there is no such method.
    """
    if name not in method_names():
        raise RecipeError(f"There is no method {name!r}; the methods are {', '.join(method_names())}.")
    if name not in _own():
        loaded: type[Method] = entry_points(group=ENTRY_POINTS)[name].load()
        return loaded
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = (
        value for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
    )  # fmt: skip
    return found


def _own() -> set[str]:
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    return {name for name in names if name not in _SHARED and not name.startswith("_")}
