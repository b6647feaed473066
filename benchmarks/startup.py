"""Time to start: `python benchmarks/startup.py`. Medians of ten runs, beside a bare `python -c pass`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import voxray": [sys.executable, "-c", "import voxray"],
    "voxray --help": [str(Path(sys.executable).with_name("voxray")), "--help"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(11):  # the first fills the disk's cache
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    print("| | ms |\n|---|---|")
    for name, values in times.items():
        print(f"| {name} | {1e3 * statistics.median(values[1:]):.0f} |")


if __name__ == "__main__":
    main()
