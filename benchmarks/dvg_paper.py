"""Optimiser steps of DVG-Diffusion at the paper's size, stage by stage: `python benchmarks/dvg_paper.py`.

Prints seconds and peak memory of a step (loss, gradients, AdamW, moving average; of the critics, too), each stage in a
process of its own, on the CPU, in single precision and batches of two. Items are random numbers of the right shapes,
which take as long as any others. The first step, in which the optimiser takes its memory, does not count for the time.
`--side 32` tries it on a small grid.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch.optim.swa_utils import AveragedModel

from voxray.methods.dvg import Dvg
from voxray.methods.stages import Batch, GradientStage
from voxray.recipes import load_recipe

STAGES = ("ct", "ct, critics", "lifted, critics", "coarse", "denoiser")


def items(method: Dvg, stage: GradientStage) -> Batch:
    """Return a batch with the keys and shapes of what the method's preparations make."""
    size, grid = stage.options.batch_size, method.grid
    if stage.name in ("ct", "lifted"):
        return {stage.name: torch.rand(size, *grid.shape)}
    sizes = method.settings.ct.sizes
    latents = (size, sizes.latent_channels, *(n // 2 ** (len(sizes.widths) - 1) for n in grid.shape))
    return {key: torch.rand(latents) * 2 - 1 for key in ("z_ct", "z_in", "z_new")}


def measure(recipe: str, overrides: list[str], row: str, steps: int) -> dict[str, float]:
    """Take steps of one stage in this process."""
    method = load_recipe(recipe, overrides).build()
    assert isinstance(method, Dvg)
    name, _, critics = row.partition(", ")
    (stage,) = [one for one in method.stages() if isinstance(one, GradientStage) and one.name == name]
    critic = stage.critic if critics else None
    method.requires_grad_(False)
    networks = [stage.network, *([critic.network] if critic is not None else [])]
    optimisers = [torch.optim.AdamW(net.parameters(), stage.options.learning_rate) for net in networks]
    average = AveragedModel(stage.network) if stage.options.ema is not None else None
    batch, seconds = items(method, stage), []
    for step in range(steps + 1):
        began, rng = time.perf_counter(), torch.Generator().manual_seed(step)
        losses = [lambda rng=rng: stage.loss(batch, critic.start if critic is not None else 0, rng)]
        losses += [lambda rng=rng: critic.loss(batch, rng)] if critic is not None else []
        for network, optimiser, loss in zip(networks, optimisers, losses, strict=True):
            network.requires_grad_(True).train()
            optimiser.zero_grad()
            loss()["loss"].backward()
            optimiser.step()
            network.requires_grad_(False)
        if average is not None:
            average.update_parameters(stage.network)
        seconds.append(time.perf_counter() - began)
    return {
        "parameters": sum(parameter.numel() for parameter in stage.network.parameters()) / 1e6,
        "seconds": sum(seconds[1:]) / steps,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="dvg-paper-biplanar")
    parser.add_argument("--side", type=int, default=128, help="voxels along each axis of the volume")
    parser.add_argument("--steps", type=int, default=1, help="that are timed")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe, as in voxray train")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--here", action="store_true", help="measure the stage in this process")
    options = parser.parse_args()
    if options.here:
        grid = [f"grid.shape={[options.side] * 3}", f"grid.spacing_mm={320 / options.side}"]
        print(json.dumps(measure(options.recipe, [*grid, *options.set], options.stages[0], options.steps)))
        return
    print(f"{options.recipe}, {options.side}^3, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| stage | parameters, M | s a step | peak, GiB |\n|---|---|---|---|")
    for stage in options.stages:
        more = [f"--set={setting}" for setting in options.set]
        command = [sys.executable, __file__, "--here", "--stages", stage, "--recipe", options.recipe, *more]
        command += ["--side", str(options.side), "--steps", str(options.steps)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            reason = run.stderr.strip().splitlines()[-1:] or [f"ended by signal {-run.returncode}"]
            print(f"| {stage} | | {reason[0]} | |", flush=True)
            continue
        found = json.loads(run.stdout)
        print(f"| {stage} | {found['parameters']:.2f} | {found['seconds']:.2f} | {found['gib']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
