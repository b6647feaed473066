"""PA + lateral to volume: `python benchmarks/reconstruct.py [MODEL ...]`, the default model beside the atlas.

The embedded example. "in process": a second reconstruction in a process that has done one, reading and loading
included. "command": `voxray reconstruct` from start to end, with files, preview and report. Each in a process of its
own, for its peak memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from voxray.defaults import DEFAULT_MODEL
from voxray.examples import example_folder

FILES = [example_folder() / name for name in ("pa.nii.gz", "lateral.nii.gz")]
GEOMETRY = example_folder() / "geometry.json"


def in_process(model: str) -> dict[str, float]:
    """Reconstruct twice in this process."""
    import voxray

    for _ in range(2):
        start = time.perf_counter()
        voxray.reconstruct(FILES, model=model, geometry=GEOMETRY)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def command(model: str) -> dict[str, float]:
    """Run the whole command."""
    program = str(Path(sys.executable).with_name("voxray"))
    with tempfile.TemporaryDirectory() as folder:
        arguments = [program, "reconstruct", *map(str, FILES), "--geometry", str(GEOMETRY), "--model", model]
        start = time.perf_counter()
        subprocess.run([*arguments, "-o", folder, "--overwrite"], check=True, capture_output=True)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}


KINDS = {"in process": in_process, "command": command}


def main() -> None:
    """Print a table; with a kind and a model, the figures of that."""
    if sys.argv[1:2] and sys.argv[1] in KINDS:
        print(json.dumps(KINDS[sys.argv[1]](sys.argv[2])))
        return
    print("| | model | s | times the atlas | peak, GiB |\n|---|---|---|---|---|")
    for kind in KINDS:
        found = {}
        for model in ("atlas", *(sys.argv[1:] or [DEFAULT_MODEL])):
            done = subprocess.run([sys.executable, __file__, kind, model], check=True, capture_output=True, text=True)
            found[model] = json.loads(done.stdout.splitlines()[-1])
            ratio = found[model]["seconds"] / found["atlas"]["seconds"]
            print(f"| {kind} | {model} | {found[model]['seconds']:.1f} | {ratio:.1f} | {found[model]['gib']:.2f} |")


if __name__ == "__main__":
    main()
