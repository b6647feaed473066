"""Time of voxray's projector beside RTK's and nanodrr's, on the same rays: `python benchmarks/projector.py`.

Eight views of 256 x 256 pixels over 180 degrees (preset `chest`) of a random volume in a 320-mm cube, on the CPU,
with 1 and with 2 threads each. All contenders run in turn, so that a busy machine slows all of them alike; the table
gives medians. "difference" is the relative difference of a result from voxray's, away from the surface of the cube:
RTK's Joseph sums the same samples, nanodrr takes others of the same integral, and RTK's voxel back-projector is no
adjoint but the usual substitute for one.

RTK and nanodrr are needed: `pip install itk-rtk roma torchio platformdirs` and `pip install --no-deps nanodrr`.
With `--cpu`, process CPU time is measured instead of wall time: for machines that others use at the same time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SIZES, VIEWS, REPEATS = (128, 256), 8, 10
# What takes longer than this is repeated three times only.
SLOW_S = 3.0

Runs = dict[str, Callable[[], object]]


def voxray_runs(size: int, volume: np.ndarray, images: np.ndarray) -> Runs:
    import torch

    from voxray.physics import Projector

    projector, mu = Projector(*set_up(size)), torch.from_numpy(volume)
    p = [torch.from_numpy(image) for image in images]
    return {
        "forward: voxray": lambda: torch.stack(projector.forward(mu)).numpy(),
        "adjoint: voxray": lambda: projector.adjoint(p).numpy(),
    }


def set_up(size: int):
    from voxray.geometry import ViewGeometry, VolumeGrid

    return VolumeGrid.centred(shape=(size,) * 3, spacing_mm=320 / size), ViewGeometry.circular(VIEWS)


def rtk_runs(size: int, volume: np.ndarray, images: np.ndarray) -> Runs:
    import itk
    from itk import RTK as rtk  # noqa: N811

    grid, views = set_up(size)
    Image = itk.Image[itk.F, 3]
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    for source, centre, u, v in zip(views.source_mm, views.centre_mm, views.u_mm, views.v_mm, strict=True):
        geometry.AddProjection(*[tuple(x) for x in (source, centre, u / np.linalg.norm(u), v / np.linalg.norm(v))])

    def image(array: np.ndarray, spacing: np.ndarray, origin: np.ndarray):
        result = itk.image_from_array(array)
        result.SetSpacing(spacing.tolist())
        result.SetOrigin(origin.tolist())
        return result

    step = np.array([1.6, 1.6, 1.0])
    corner = np.array([-127.5 * 1.6, -127.5 * 1.6, 0.0])
    mu, p = image(volume, grid.spacing_mm, grid.origin_mm), image(images, step, corner)
    no_mu = image(np.zeros_like(volume), grid.spacing_mm, grid.origin_mm)
    no_p = image(np.zeros_like(images), step, corner)

    def run(kind, start, argument) -> np.ndarray:
        run = kind.New()
        run.SetInput(0, start)
        run.SetInput(1, argument)
        run.SetGeometry(geometry)
        run.InPlaceOff()
        run.Update()
        return itk.array_from_image(run.GetOutput())

    return {
        "forward: RTK Joseph": lambda: run(rtk.JosephForwardProjectionImageFilter[Image, Image], no_p, mu),
        "adjoint: RTK Joseph": lambda: run(rtk.JosephBackProjectionImageFilter[Image, Image], no_mu, p),
        "adjoint: RTK voxel": lambda: run(rtk.BackProjectionImageFilter[Image, Image], no_mu, p),
    }


def nanodrr_runs(size: int, volume: np.ndarray, images: np.ndarray) -> Runs:
    import torch
    from nanodrr.data import Subject
    from nanodrr.drr.renderer import render

    grid, views = set_up(size)
    affine = torch.from_numpy(grid.affine.astype(np.float32))
    mu = torch.from_numpy(volume)[None, None]
    subject = Subject(
        mu, torch.zeros_like(mu), affine, torch.linalg.inv(affine), Subject._make_voxel_to_grid(mu.shape),
        torch.zeros(3), max_label=0, convert_to_mu=False,
    )  # fmt: skip
    rays = [
        (torch.tensor(views.source_mm[i], dtype=torch.float32).reshape(1, 1, 3),
         torch.tensor(views.pixels_mm(i), dtype=torch.float32).reshape(1, -1, 3))
        for i in range(VIEWS)
    ]  # fmt: skip
    one = torch.eye(4)[None]

    def project(view: int) -> torch.Tensor:
        source, pixels = rays[view]
        return render(subject, one[:, :3, :3], one, torch.ones(1), 256, 256, size, src=source, tgt=pixels)[0, 0]

    def forward() -> np.ndarray:
        with torch.no_grad():
            return torch.stack([project(view) for view in range(VIEWS)]).numpy()

    def adjoint() -> np.ndarray:
        leaf = subject._image_hu = torch.zeros_like(mu).requires_grad_()
        for view in range(VIEWS):
            project(view).backward(torch.from_numpy(images[view]))
        subject._image_hu = mu
        return leaf.grad[0, 0].numpy()

    return {"forward: nanodrr": forward, "adjoint: nanodrr": adjoint}


def measure(runs: Runs, clock: Callable[[], float]) -> dict[str, tuple[float, np.ndarray]]:
    """Return for each contender the median time in seconds and its result, with all of them run in turn."""
    results = {name: np.asarray(run()) for name, run in runs.items()}  # compiles, and warms caches
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(REPEATS):
        for name, run in runs.items():
            if repeat < 3 or times[name][0] < SLOW_S:
                start = clock()
                run()
                times[name].append(clock() - start)
    return {name: (statistics.median(times[name]), results[name]) for name in runs}


def report(threads: int, clock: Callable[[], float]) -> None:
    rng = np.random.default_rng(0)
    for size in SIZES:
        inside = (slice(size // 8, -size // 8),) * 3
        volume, images = np.zeros((size,) * 3, np.float32), rng.random((VIEWS, 256, 256), np.float32)
        volume[inside] = rng.random(volume[inside].shape, np.float32)
        runs = voxray_runs(size, volume, images) | rtk_runs(size, volume, images) | nanodrr_runs(size, volume, images)
        measured = measure(runs, clock)
        for name in sorted(measured, reverse=True):
            direction = name.split(":")[0]
            ours_s, ours = measured[f"{direction}: voxray"]
            theirs_s, theirs = measured[name]
            if direction == "adjoint":
                ours, theirs = ours[inside], theirs[inside]
            difference = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
            numbers = f"{1e3 * theirs_s:.0f} | {theirs_s / ours_s:.2f} | {difference:.0e}"
            print(f"| {size}^3 | {threads} | {name} | {numbers} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="measure process CPU time, with one thread")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    if options.threads:
        report(options.threads, clock)
        return
    unit = "CPU time" if options.cpu else "time"
    print(f"| volume | threads | | {unit}, ms | times voxray's | difference |\n|---|---|---|---|---|---|", flush=True)
    for threads in (1,) if options.cpu else (1, 2):
        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
        subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--threads", str(threads)],
            env=os.environ | dict.fromkeys(names, str(threads)),
            check=True,
        )


if __name__ == "__main__":
    main()
