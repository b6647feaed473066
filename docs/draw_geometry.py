"""Draw docs/images/geometry.png from voxray's own geometry: `python docs/draw_geometry.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Rectangle

from voxray.data.phantom import marker_phantom
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

BLUE, ORANGE, GREY = "#1f5fa8", "#d9701e", "#777777"
# Closer than a chest stand, so that source and detector fit into the drawing.
SKETCH = Setup(900.0, 620.0, 4.0, (100, 100))


def draw_view(axes: Axes, views: ViewGeometry, view: int, across: tuple[int, int], colour: str, label: str) -> None:
    """Draw source, detector, cone and central ray of a view in the plane of two patient axes."""
    a, b = across
    source, centre = views.source_mm[view], views.centre_mm[view]
    along = views.u_mm[view] if abs(views.v_mm[view][list(across)]).max() < 1e-6 else views.v_mm[view]
    half = along * views.shapes[view][0] / 2
    ends = np.stack([centre - half, centre + half])
    for end in ends:
        axes.plot([source[a], end[a]], [source[b], end[b]], color=colour, lw=0.6, alpha=0.6)
    axes.plot([source[a], centre[a]], [source[b], centre[b]], color=colour, lw=0.8, ls="--")
    axes.plot(ends[:, a], ends[:, b], color=colour, lw=3)
    axes.plot(source[a], source[b], "o", color=colour, ms=7)
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8}
    axes.annotate("", xy=(centre + 0.95 * half)[[a, b]], xytext=centre[[a, b]], arrowprops=arrow)
    offset = (8, 4) if source[a] < 300 else (-100, 8)
    axes.annotate(label, (source[a], source[b]), textcoords="offset points", xytext=offset, color=colour)


def patient(axes: Axes, width: float, height: float) -> None:
    """Draw a body and the cube of the default grid around it."""
    axes.add_patch(Ellipse((0, 0), width, height, color="#e8ded2"))
    axes.add_patch(Rectangle((-160, -160), 320, 320, fill=False, ls=":", color=GREY))
    axes.set_aspect("equal")


def draw_top(axes: Axes) -> None:
    """From the feet upwards, as axial slices are shown: the patient's left at the right, the front at the top."""
    patient(axes, 300, 210)
    views = ViewGeometry.from_names(["pa", "lateral", "30"], setup=SKETCH)
    draw_view(axes, views, 0, (0, 1), BLUE, "source of PA (angle 0)")
    draw_view(axes, views, 1, (0, 1), ORANGE, "source of left lateral (90)")
    turn = np.deg2rad(np.linspace(2, 62, 40))
    axes.plot(330 * np.sin(turn), -330 * np.cos(turn), color="black", lw=1.2)
    tip = {"arrowstyle": "-|>", "color": "black"}
    end = (330 * np.sin(turn[-1]), -330 * np.cos(turn[-1]))
    axes.annotate("", xy=end, xytext=(330 * np.sin(turn[-2]), -330 * np.cos(turn[-2])), arrowprops=tip)
    axes.text(225, -330, "the detector moves this way\nas the primary angle grows", fontsize=8)
    for text, place in {"A (front)": (0, -128), "P (back)": (0, 138), "L": (162, 0), "R": (-175, 0)}.items():
        axes.text(*place, text, ha="center", va="center", fontsize=9)
    axes.set(title="seen from the feet", xlabel="x (mm), to the patient's left", ylabel="y (mm), to the back")
    axes.set(xlim=(-720, 620), ylim=(700, -420))


def draw_side(axes: Axes) -> None:
    """From the patient's left side."""
    patient(axes, 210, 300)
    draw_view(axes, ViewGeometry.from_names(["pa"], setup=SKETCH), 0, (1, 2), BLUE, "source of PA")
    tilted = ViewGeometry.from_angles([0], [20], setup=SKETCH)
    draw_view(axes, tilted, 0, (1, 2), GREY, "secondary angle 20")
    for text, place in {"S (head)": (0, 175), "I (feet)": (0, -178)}.items():
        axes.text(*place, text, ha="center", va="center", fontsize=9)
    axes.set(title="seen from the patient's left", xlabel="y (mm), to the back", ylabel="z (mm), to the head")
    axes.set(xlim=(-420, 760), ylim=(-420, 420))


def draw_images(figure_axes: list[Axes]) -> None:
    """The marker phantom as it is shown in each view."""
    grid = VolumeGrid.centred()
    phantom = marker_phantom(grid)
    views = ViewGeometry.from_names(["pa", "ap", "lateral", "right_lateral"])
    for view, image in enumerate(Projector(grid, views).forward(hu_to_mu(phantom.volume.hu))):
        axes = figure_axes[view]
        axes.imshow(image.numpy(), cmap="gray")
        for name, place in phantom.markers.items():
            row, column = views.project_mm(place, view)
            axes.text(column + 12, row, name, color=ORANGE, fontsize=11, weight="bold", va="center")
        axes.set(title=views.names[view], xticks=[], yticks=[])
        axes.annotate("", xy=(70, 8), xytext=(6, 8), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 2})
        axes.annotate("", xy=(8, 70), xytext=(8, 6), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 2})
        axes.text(74, 10, "u: columns", color=BLUE, fontsize=8, va="center")
        axes.text(4, 76, "v: rows", color=BLUE, fontsize=8, va="top")


def main() -> None:
    """Write the figure."""
    figure = plt.figure(figsize=(13, 10.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.5, 1])
    left, right = top.subplots(1, 2)
    draw_top(left)
    draw_side(right)
    draw_images(list(bottom.subplots(1, 4)))
    figure.savefig(Path(__file__).parent / "images" / "geometry.png", dpi=80)


if __name__ == "__main__":
    main()
