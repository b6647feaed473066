"""How long a random thorax takes one core: median CPU time of five after one to warm up."""

import statistics
import time

import torch

from voxray.data.phantom import thorax_phantom
from voxray.geometry import VolumeGrid


def seconds(shape: int, spacing_mm: float, repeats: int = 5) -> float:
    grid = VolumeGrid.centred(shape=(shape, shape, shape), spacing_mm=spacing_mm)
    times = []
    for seed in range(repeats + 1):
        start = time.process_time()
        thorax_phantom(grid, rng=torch.Generator().manual_seed(seed))
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def main() -> None:
    torch.set_num_threads(1)
    for shape, spacing_mm in ((32, 10.0), (64, 5.0), (128, 2.5)):
        print(f"{shape}^3 at {spacing_mm:g} mm: {seconds(shape, spacing_mm):.2f} s")


if __name__ == "__main__":
    main()
