"""Super-resolution of true scans: `python benchmarks/upsample.py [MODEL [STORE [SPLIT]]]`.

Scans of a store (`val` of it, if nothing is said; without a store, the embedded example) are made coarse as `voxray
prepare` would, and fine again by interpolation and by MODEL; both against the scan itself, which was never interpolated
from coarser voxels. PSNR of -1024..1476 HU as 0..1, mean absolute error inside the body; seconds and the peak of the
whole process.
"""

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from voxray.data.store import Store
from voxray.evaluation.metrics import psnr
from voxray.examples import example_folder
from voxray.images import CTVolume
from voxray.images.read_ct import read_ct
from voxray.methods.upsample import coarsened
from voxray.methods.upsampled import interpolated
from voxray.models import load_model
from voxray.physics.attenuation import to_unit_range


def scans(arguments: list[str]) -> Iterator[tuple[str, CTVolume]]:
    if not arguments:
        yield "example", read_ct(example_folder() / "ct.nii.gz")
        return
    store = Store.open(Path(arguments[0]))
    for name in store.cases(arguments[1] if len(arguments) > 1 else "val"):
        yield name, store.load(name).volume


def main() -> None:
    """Print a table."""
    ways = {"interpolated": interpolated}
    if len(sys.argv) > 1:
        ways[sys.argv[1]] = load_model(sys.argv[1]).method.finer
    print("| scan | | 3D PSNR, dB | MAE, HU | s | peak, GiB |\n|---|---|---|---|---|---|")
    for name, truth in scans(sys.argv[2:]):
        given = CTVolume(coarsened(truth.hu[None])[0], truth.grid.coarser(2))
        body = truth.hu > -900
        for way, finer in ways.items():
            start = time.perf_counter()
            with torch.no_grad():
                found = finer(given).hu
            seconds = time.perf_counter() - start
            decibels = psnr(to_unit_range(truth.hu), to_unit_range(found), data_range=1.0)
            error = float((found - truth.hu)[body].abs().mean())
            gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            label = Path(way).name
            print(f"| {name} | {label} | {decibels:.2f} | {error:.1f} | {seconds:.1f} | {gib:.2f} |", flush=True)


if __name__ == "__main__":
    main()
