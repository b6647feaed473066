"""Which X-ray image is which view: by tags, by the names of files, by order."""

import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from voxray.errors import GeometryError, InputError, VoxrayWarning
from voxray.geometry import ViewGeometry
from voxray.geometry.view_names import canonical, mismatch, with_side
from voxray.images.xray import XrayImage

_SUFFIX = re.compile(r"\.(nii|gz|dcm|dicom|png|jpe?g|tiff?|mha|mhd|nrrd|nhdr)$", re.IGNORECASE)
_WORDS = {
    "pa": "pa", "ap": "ap", "lateral": "lateral", "lat": "lateral", "l": "lateral",
    "ll": "left_lateral", "rl": "right_lateral",
}  # fmt: skip


def view_in_name(path: Path) -> str | None:
    """Return the view that a file's name names in a whole word, or None: `patient7_PA.png` -> "pa".

    The words are pa, ap, lateral, lat, l, ll, rl, and left or right before lateral or lat, in any case. A name that
    names two views names none.
    """
    words = _words(path)
    found = {_WORDS[word] for word in words if word in _WORDS}
    for first, second in pairwise(words):
        if first in ("left", "right") and second in ("lateral", "lat"):
            found = found - {"lateral"} | {f"{first}_lateral"}
    return found.pop() if len(found) == 1 else None


def named_views(images: Sequence[XrayImage], views: Sequence[str] | None) -> tuple[list[XrayImage], list[str]]:
    """Find the view of every image without a geometry.

    Returns:
        The images, and the name of the view of each: in the order of `views` where they are given.

    Raises:
        InputError: if numbers differ, the view of an image is not known, the tags contradict `views`, or two images
            are the same view.
    """
    images = list(images)
    if views is None:
        names = [image.tags.name or view_in_name(image.origin.path) for image in images]
        if None in names:
            file = images[names.index(None)].origin.path
            raise InputError(
                f"Nothing says which view {str(file)!r} is. Name the views in the order of the files, for instance "
                "--views pa,lateral (pa, ap, lateral, left_lateral, right_lateral, or an angle in degrees)."
            )
    elif len(views) != len(images):
        raise InputError(f"{_count(images)}, but {len(views)} views: {', '.join(views)}.")
    else:
        views = [_WORDS.get(view.lower(), view.lower()) for view in views]
        images = [images[i] for i in _order(images, views)]
        names = [with_side(view, image.tags.view) for image, view in zip(images, views, strict=True)]
    found = [str(name) for name in names]
    _refuse_twins(images, found)
    return images, found


def geometry_views(images: Sequence[XrayImage], geometry: ViewGeometry) -> tuple[list[XrayImage], list[int]]:
    """Find the view of a geometry that each image belongs to: by name, else by order.

    Returns:
        The images in the order of the geometry's views, and the numbers of their views.

    Raises:
        InputError: if two images are the same view, too few or too many are given, or a tag contradicts.
        GeometryError: if an image has another shape than its view.
    """
    named = [_named_in(image, geometry.names) for image in images]
    rest = [i for i in range(len(geometry)) if i not in named]
    unnamed = named.count(None)
    if unnamed > len(rest) or (unnamed and len(images) != len(geometry)):
        raise InputError(
            f"{_count(images)}, but the geometry has {len(geometry)} views: {', '.join(geometry.names)}. "
            "Name each file after its view, or give one file a view, in that order."
        )
    order = iter(rest)
    numbers = [next(order) if i is None else i for i in named]
    pairs = sorted(zip(numbers, range(len(images)), strict=True))
    images, numbers = [images[i] for _, i in pairs], [number for number, _ in pairs]
    _refuse_twins(images, [geometry.names[i] for i in numbers])
    for image, number in zip(images, numbers, strict=True):
        name, shape = geometry.names[number], geometry.shapes[number]
        if mismatch(image.tags.name, name) >= 1:
            raise InputError(
                f"{str(image.origin.path)!r} would be view {name!r}, but its tags say {image.tags.name!r}."
            )
        if image.tags.shape != shape:
            raise GeometryError(
                f"{str(image.origin.path)!r} has {image.tags.shape} pixels (rows, columns), but the geometry says "
                f"{shape} for the view {name!r}."
            )
    return images, numbers


def _order(images: Sequence[XrayImage], views: Sequence[str]) -> list[int]:
    """Return the image of each view: the given order, unless tags or names of files fit another one better."""
    hints = [image.tags.name or view_in_name(image.origin.path) for image in images]
    cost = np.array([[mismatch(hint, view) for hint in hints] for view in views])
    count = len(views)
    distance = np.abs(np.arange(count)[:, None] - np.arange(count)) / (100.0 * count * count)
    order = [int(i) for i in linear_sum_assignment(cost + distance)[1]]
    for view, i in zip(views, order, strict=True):
        said, path = images[i].tags.name, str(images[i].origin.path)
        if mismatch(said, view) >= 1:
            raise InputError(f"{path!r} cannot be the view {view!r}: its tags say that it is {said!r}.")
        if mismatch(said, view) > 0:
            warnings.warn(f"{path!r} is read as {view!r}, though its tags say {said!r}.", VoxrayWarning, stacklevel=4)
    if order != list(range(count)):
        pairs = ", ".join(f"{images[i].tags.label} = {view}" for view, i in zip(views, order, strict=True))
        warnings.warn(
            f"The order of the files contradicts their tags or names; taken as {pairs}.", VoxrayWarning, stacklevel=4
        )
    return order


def _named_in(image: XrayImage, names: Sequence[str]) -> int | None:
    """Return the number of the view that the file's name or the tags of an image name, or None."""
    words = _words(image.origin.path)
    found = {}
    for number, name in enumerate(names):
        parts = re.split(r"[^a-z0-9]+", name.lower())
        if any(words[i : i + len(parts)] == parts for i in range(len(words))):
            found[number] = len(parts)
    best = [number for number, length in found.items() if length == max(found.values())]
    if not best:
        hint = image.tags.name or view_in_name(image.origin.path)
        best = [i for i, name in enumerate(names) if hint is not None and mismatch(hint, name) == 0]
    return best[0] if len(best) == 1 else None


def _refuse_twins(images: Sequence[XrayImage], names: Sequence[str]) -> None:
    """Refuse two images of the same view, and the same file for two views."""
    seen: dict[str, XrayImage] = {}
    for image, name in zip(images, names, strict=True):
        twin = seen.setdefault(canonical(name), image)
        if twin is not image:
            raise InputError(
                f"{str(twin.origin.path)!r} and {str(image.origin.path)!r} are both the view {name!r}; each view is "
                "given once. If one of them is another view, say which: --views pa,lateral."
            )
    files = {image.origin.path.resolve() for image in images if image.tags.angles_deg is None}
    if len(files) < sum(image.tags.angles_deg is None for image in images):
        raise InputError("The same file is given for two views.")


def _words(path: Path) -> list[str]:
    stem = path.name
    while _SUFFIX.search(stem):
        stem = _SUFFIX.sub("", stem)
    return [word for word in re.split(r"[^a-z0-9]+", stem.lower()) if word]


def _count(images: Sequence[XrayImage]) -> str:
    return f"{len(images)} X-ray images" if len(images) > 1 else "1 X-ray image"
