"""The names of views: which are the same, which are alike, and which contradict each other."""

import re

_ANGLES = {0: "pa", 180: "ap", 90: "left_lateral", 270: "right_lateral"}


def canonical(name: str) -> str:
    """Return one name for what has several: lateral = left_lateral, 0 = pa, -30 = 330.0, and so on."""
    name = name.lower()
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", name):
        angle = float(name) % 360
        return _ANGLES.get(angle, f"{angle:g}")  # type: ignore[call-overload]
    return "left_lateral" if name == "lateral" else name


def family(name: str) -> str | None:
    """Return `frontal` for pa and ap, `lateral` for both sides, else None."""
    name = canonical(name)
    return "frontal" if name in ("pa", "ap") else "lateral" if name in ("left_lateral", "right_lateral") else None


def mismatch(hint: str | None, view: str) -> float:
    """Return 0 if a hint fits a view or says nothing, 0.1 if it says a similar one, 1 if it contradicts."""
    if hint is None or canonical(hint) == canonical(view):
        return 0.0
    families = [family(name) for name in (hint, view)]
    if view == families[0]:  # any lateral is a "lateral"
        return 0.0
    return 0.1 if None in families or families[0] == families[1] else 1.0


def with_side(view: str, tag: str | None) -> str:
    """Return the view of a tag where `view` leaves the side to it: "lateral" with a tag right_lateral is that."""
    return tag if tag is not None and family(tag) == view else view
