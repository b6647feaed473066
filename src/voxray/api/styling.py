"""Models that make radiographs look like projections of CTs, before another one reconstructs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import JsonValue

from voxray.errors import InputError, ModelError
from voxray.images import Radiograph
from voxray.methods.style import Style
from voxray.models import LoadedModel, load_model
from voxray.models.folder import model_sha256


def load_style(style: str | Path, device: torch.device) -> LoadedModel:
    """Load a style by name or from its folder.

    Raises:
        ModelError: if it cannot be used, or is another model.
    """
    with _hint():
        loaded = load_model(style, device)
        if not isinstance(loaded.method, Style):
            raise ModelError(
                f"The model {loaded.info.name!r} is no style (its method is {loaded.info.recipe.method!r})."
            )
    return loaded


def style_sha256(style: str | Path) -> str:
    """Return a hash of a style.

    Raises:
        ModelError: if there is no such model.
    """
    with _hint():
        return model_sha256(style)


def translated(radiograph: Radiograph, styles: Sequence[LoadedModel]) -> tuple[Radiograph, list[JsonValue]]:
    """Return line integrals that were estimated from grey values, in the style of CTs, and what is to be reported.

    Args:
        radiograph: as a model is to see it.
        styles: each changes the views that it is for.

    Raises:
        InputError: if the X-rays are no estimates, a style is for none of their views, or two are for the same.
    """
    if styles and radiograph.kind != "estimated":
        raise InputError(
            "A style (--style) is for grey values of a chest, seen from the front or a side, and for models of chests: "
            "line integrals and other X-rays have none."
        )
    told: list[JsonValue] = []
    taken: dict[str, str] = {}
    for loaded in styles:
        style, name = loaded.method, loaded.info.name
        assert isinstance(style, Style)
        views = [radiograph.views.names[n] for n in style.own(radiograph.views)]
        if not views:
            raise InputError(
                f"The style {name!r} is for views near {style.settings.angle_deg:g} degrees (0: frontal, 90: lateral), "
                f"but the X-rays are {', '.join(radiograph.views.names)} (--style)."
            )
        for view in views:
            if view in taken:
                raise InputError(f"The styles {taken[view]!r} and {name!r} are both for the view {view!r} (--style).")
            taken[view] = name
        before, radiograph = radiograph, style.translated(radiograph)
        told.append({
            "model": name, "weights_sha256": loaded.weights_sha256, "views": list(views),
            "rms_change": [round(float((radiograph.images[n] - before.images[n]).square().mean().sqrt()), 4)
                           for n in style.own(radiograph.views)],
        })  # fmt: skip
    return radiograph, told


@contextmanager
def _hint() -> Iterator[None]:
    """Say what to do where a style cannot be used."""
    try:
        yield
    except ModelError as error:
        raise type(error)(
            f"{error} A style is trained by `voxray train style`; the folder of its run is what --style takes."
        ) from error
