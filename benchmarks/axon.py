"""The AXON-style method and super-resolution, stage by stage: `python benchmarks/axon.py`.

Inference: the embedded example, PA + lateral, with each stage of the recipe and the stages before it, once kernels are
compiled. Training: an optimiser step of each stage (loss, gradients, AdamW) on random items of the right shapes, after
a first one that takes the memory. Weights are fresh, for time does not depend on them. Each figure in a process of its
own, in seconds of its cores together: with `OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1` what an idle core takes, whatever
else the machine does. A single sample is `--set config.ensemble=1`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from reconstruct import FILES, GEOMETRY

from voxray.images.read_geometry import read_geometry
from voxray.images.read_xray import read_radiograph
from voxray.methods import Method
from voxray.methods.axon import Axon
from voxray.methods.stages import Batch, GradientStage
from voxray.methods.upsample import Upsample
from voxray.methods.upsampled import Upsampled
from voxray.recipes import load_recipe

INFERENCE = {
    "where the bridge begins": ["config.bridge=null", "config.refine=null"],
    "bridge alone": ["config.refine=null"],
    "bridge and ControlNet": [],
    "both, then 256^3": [],
}
TRAINING = ("ct", "bridge", "prior", "control", "detail")


def built(recipe: str, overrides: list[str]) -> Method:
    return load_recipe(recipe, overrides).build().eval()


def infer(row: str, recipe: str, overrides: list[str]) -> float:
    """Return the seconds of a reconstruction."""
    method, nothing = (built(recipe, [*overrides, *INFERENCE[key]]) for key in (row, "where the bridge begins"))
    if "256" in row:
        finer = built("upsample", ["grid.shape=[256, 256, 256]", "grid.spacing_mm=1.25"])
        method = Upsampled(method, finer)
    radiograph = read_radiograph(FILES, geometry=read_geometry(GEOMETRY))
    views = radiograph.views
    radiograph = radiograph.binned(views.bins(1.25, views.isocentre()))  # as `voxray.reconstruct` does for 2.5 mm
    for one in (nothing, method):  # the first compiles the projector
        start = time.process_time()
        one.reconstruct(radiograph, rng=torch.Generator().manual_seed(0))
        seconds = time.process_time() - start
    return seconds


def items(method: Method, stage: GradientStage) -> Batch:
    """Return a batch with the keys and shapes of what the method's preparations make."""
    size, grid = stage.options.batch_size, method.grid
    if isinstance(method, Upsample):
        return {"fine": torch.rand(size, *grid.shape), "given": torch.rand(size, *grid.coarser(2).shape)}
    assert isinstance(method, Axon)
    if stage.name == "ct":
        return {"ct": torch.rand(size, *grid.shape)}
    places = grid.coarser(method.factor).shape
    channels = {"z_ct": method.settings.ct.sizes.latent_channels, "rays": 6, "smeared": 6}
    channels |= {"z_start": channels["z_ct"], "z_first": channels["z_ct"]}
    return {name: torch.randn(size, count, *places) for name, count in channels.items()}


def train(row: str, recipe: str, overrides: list[str], steps: int = 2) -> float:
    """Return the seconds of an optimiser step."""
    method = built("upsample" if row == "detail" else recipe, [] if row == "detail" else overrides)
    (stage,) = [one for one in method.stages() if isinstance(one, GradientStage) and one.name == row]
    method.requires_grad_(False)
    stage.network.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(stage.network.parameters(), stage.options.learning_rate)
    batch, seconds = items(method, stage), []
    for step in range(steps + 1):
        start = time.process_time()
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = stage.loss(batch, step, torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        optimiser.step()
        seconds.append(time.process_time() - start)
    return sum(seconds[1:]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="axon-small")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe, as in voxray train")
    parser.add_argument("--rows", nargs="+", default=[*INFERENCE, *TRAINING], choices=[*INFERENCE, *TRAINING])
    parser.add_argument("--here", action="store_true", help="measure the row in this process")
    options = parser.parse_args()
    if options.here:
        row = options.rows[0]
        seconds = (infer if row in INFERENCE else train)(row, options.recipe, options.set)
        print(json.dumps({"s": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
        return
    print(f"{options.recipe}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| | core s | peak, GiB |\n|---|---|---|")
    for row in options.rows:
        more = [f"--set={setting}" for setting in options.set]
        command = [sys.executable, __file__, "--here", "--recipe", options.recipe, *more, "--rows", row]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        what = row if row in INFERENCE else f"a step of {row}"
        print(f"| {what} | {found['s']:.1f} | {found['gib']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
