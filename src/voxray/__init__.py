"""From X-ray images to a CT volume. Research software, not a medical device.

What stands in `__all__` is loaded when it is first used, so that `import voxray` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxray.api import (
        compare,
        evaluate,
        list_models,
        nodule_test,
        prepare,
        project,
        reconstruct,
        report,
        train,
    )
    from voxray.geometry import ViewGeometry, VolumeGrid
    from voxray.images import CTVolume, Radiograph

_HOME = {
    "reconstruct": "api", "project": "api", "prepare": "api", "train": "api", "evaluate": "api", "compare": "api",
    "nodule_test": "api", "report": "api", "list_models": "api",
    "ViewGeometry": "geometry", "VolumeGrid": "geometry", "CTVolume": "images", "Radiograph": "images",
}  # fmt: skip

__all__ = [
    "CTVolume", "Radiograph", "ViewGeometry", "VolumeGrid", "compare", "evaluate", "list_models", "nodule_test",
    "prepare", "project", "reconstruct", "report", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("voxray")
    if name not in _HOME:
        raise AttributeError(f"module 'voxray' has no attribute {name!r}")
    return getattr(import_module(f"voxray.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
