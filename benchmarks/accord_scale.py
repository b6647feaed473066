"""accord from 64^3 to 256^3 voxels: `python benchmarks/accord_scale.py`.

The embedded example, PA + lateral, in a process of its own for each size, the second of two reconstructions. 64^3 is
the first block alone. At 256^3 the second block works on voxels that are half of what it was trained for, so that this
row tells what it costs, and not what networks of that size could do. PSNR: against the true CT, on its 128^3 voxels.
"""

import json
import resource
import subprocess
import sys
import time

from reconstruct import FILES, GEOMETRY

from voxray.examples import example_folder

# The networks of the first block.
_FIRST = "features: [16, 32, 64, 128], networks: [[{steps: 1}], [{steps: 1}]]"
# The edge of a voxel in mm, and what changes in the recipe.
SIZES = {
    64: (5.0, f"config.blocks=[{{{_FIRST}}}]"),
    128: (2.5, None),
    256: (1.25, f"config.blocks=[{{coarser: 4, {_FIRST}}}, {{}}]"),
}


def measure(side: int) -> dict[str, float]:
    """Reconstruct twice in this process."""
    import voxray
    from voxray.data.resample import resample
    from voxray.evaluation.metrics import psnr
    from voxray.images.read_ct import read_ct
    from voxray.physics.attenuation import to_unit_range

    spacing, blocks = SIZES[side]
    overrides = [f"grid.shape={[side] * 3}", f"grid.spacing_mm={spacing}"]
    overrides += [blocks] if blocks is not None else []
    overrides += ["config.texture=null"]  # its network needs 128^3, and it is not asked for here
    for _ in range(2):
        start = time.perf_counter()
        found = voxray.reconstruct(FILES, model="accord", geometry=GEOMETRY, overrides=overrides)
        seconds = time.perf_counter() - start
    truth = read_ct(example_folder() / "ct.nii.gz")
    hu = resample(found.volume, truth.grid).hu
    decibels = psnr(to_unit_range(hu), to_unit_range(truth.hu), data_range=1.0)
    return {
        "seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "psnr": decibels,
    }  # fmt: skip


def main() -> None:
    """Print a table; with a size, the figures of that."""
    if len(sys.argv) == 2:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    print("| voxels | s | times 128^3 | peak, GiB | 3D PSNR, dB |\n|---|---|---|---|---|")
    found = {}
    for side in SIZES:
        done = subprocess.run([sys.executable, __file__, str(side)], check=True, capture_output=True, text=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    for side, of in found.items():
        ratio = of["seconds"] / found[128]["seconds"]
        print(f"| {side}^3 | {of['seconds']:.1f} | {ratio:.2f} | {of['gib']:.2f} | {of['psnr']:.2f} |")


if __name__ == "__main__":
    main()
