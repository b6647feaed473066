"""Draw docs/images/phantom.png: three random chests, as sums along the beam and in three planes."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from voxray.data.phantom import thorax_phantom
from voxray.geometry import VolumeGrid

SEEDS = (3, 7, 12)
TITLES = ("front to back", "right to left", "axial", "coronal", "sagittal")


def main() -> None:
    """Write the picture beside this file."""
    grid = VolumeGrid.centred(shape=(160, 160, 160), spacing_mm=2.0)
    figure, rows = plt.subplots(len(SEEDS), 5, figsize=(10, 2 * len(SEEDS) + 0.3), dpi=80)
    for row, seed in zip(rows, SEEDS, strict=True):
        hu = thorax_phantom(grid, rng=torch.Generator().manual_seed(seed)).volume.hu
        density = (hu / 1000 + 1).clamp(min=0)
        sums = density.sum(dim=1).flip(0), density.sum(dim=2).flip(0, 1)
        planes = hu[84], hu[:, 72].flip(0), hu[:, :, 80].flip(0)
        for axes, image in zip(row, sums, strict=False):
            axes.imshow(image, cmap="gray")
        for axes, image in zip(row[2:], planes, strict=True):
            axes.imshow(image, cmap="gray", vmin=-1000, vmax=500)
        for axes in row:
            axes.axis("off")
    for axes, title in zip(rows[0], TITLES, strict=True):
        axes.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.2)
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
