"""Faults are put into the physics on purpose; the tests must find each of them.

Each mutant is a copy of the package with some lines replaced, under which the fast tests of the promises run in a
process of their own. A fault of the geometry is put into forward and adjoint alike: N1 cannot see it, so N3 or N4
(with the images of RTK) must. A fault in a single direction must break N1.

`python tests/mutants/test_mutants.py` prints the table of mutants and the tests that find them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = [f"tests/physics/test_{name}.py" for name in (
    "projector_pair", "projector_integrals", "projector_conventions", "attenuation"
)]  # fmt: skip
VIEWS, PROJECTOR = "geometry/views.py", "physics/projector.py"
GENERAL, UPRIGHT, TORCH = "physics/joseph_numba.py", "physics/joseph_upright.py", "physics/sampling.py"


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        edits: (file, text that is there, text instead).
        promises: a test of one of these must fail.
    """

    edits: tuple[tuple[str, str, str], ...]
    promises: tuple[str, ...] = ("N3", "N4")


FORWARD, ADJOINT = "volume in enumerate(mu.contiguous().numpy())", "        return mu\n"
RAYS = "rays = [self._rays(view) for view in range(len(images))]"
SHIFTED = "np.array([[0], [0.5], [0], [0]]) * r[3] for r in map(self._rays, range(len(images)))]"
HALF_PIXEL = f"rays = [r + {SHIFTED}"

MUTANTS: Mapping[str, Mutant] = {
    "roll, both": Mutant((
        (PROJECTOR, FORWARD, FORWARD.replace("contiguous()", "roll(1, -1).contiguous()")),
        (PROJECTOR, ADJOINT, "        return mu.roll(-1, -1)\n"),
    )),
    "roll, forward": Mutant(
        ((PROJECTOR, FORWARD, FORWARD.replace("contiguous()", "roll(1, -1).contiguous()")),), ("N1",)
    ),
    "roll, adjoint": Mutant(((PROJECTOR, ADJOINT, "        return mu.roll(1, -1)\n"),), ("N1",)),
    "u and v transposed, views": Mutant((
        (VIEWS, "u_mm=setup.pixel_mm * u,", "u_mm=setup.pixel_mm * v,"),
        (VIEWS, "v_mm=setup.pixel_mm * v,", "v_mm=setup.pixel_mm * u,"),
    )),
    "u and v transposed, rays": Mutant((
        (PROJECTOR, "to_voxels @ v, to_voxels @ u]", "to_voxels @ u, to_voxels @ v]"),
    )),
    "half a pixel, both": Mutant((
        (VIEWS, "(np.arange(columns) - (columns - 1) / 2)", "(np.arange(columns) - columns / 2)"),
        (PROJECTOR, "(columns - 1) / 2 * u", "columns / 2 * u"),
    )),
    "half a pixel, forward": Mutant(
        ((PROJECTOR, RAYS, f"{HALF_PIXEL} if direction == 'project' else {RAYS[7:]}"),), ("N1",)
    ),
    "half a pixel, adjoint": Mutant(
        ((PROJECTOR, RAYS, f"{HALF_PIXEL} if direction == 'backproject' else {RAYS[7:]}"),), ("N1",)
    ),
    "sign of the angle": Mutant(((VIEWS, "np.deg2rad(primary_deg)", "np.deg2rad(np.negative(primary_deg))"),)),
    "no step length, both": Mutant((
        (UPRIGHT, "return np.sqrt(x * x + y * y + z * z) / abs(", "return 1.0 + 0.0 * x * y * z * abs("),
        (GENERAL, "length = np.sqrt(x * x + y * y + z * z)", "length = 1.0 + 0.0 * x * y * z"),
        (TORCH, "length_mm = (d / along * spacing_mm).norm(dim=-1).to(mu.dtype)", "length_mm = 1.0"),
    )),
    "no step length, forward": Mutant((
        (UPRIGHT, "total[r] * real(_way_mm(rays, spacing, r, c))", "total[r]"),
        (GENERAL, "total * real(length)", "total"),
    ), ("N1",)),
    "no step length, adjoint": Mutant((
        (UPRIGHT, "image[r, c] * image.dtype.type(_way_mm(rays, spacing, r, c))", "image[r, c]"),
        (GENERAL, "real(length) * image[r, c]", "image[r, c]"),
    ), ("N1",)),
    "degrees as radians": Mutant(((VIEWS, "np.deg2rad(primary_deg)", "np.asarray(primary_deg, float)"),)),
    "SOD and SDD swapped": Mutant((
        (VIEWS, "iso - setup.source_isocentre_mm * to_detector", "iso - setup.source_detector_mm * to_detector"),
    )),
    "views swapped": Mutant(((PROJECTOR, RAYS, RAYS.replace("range(len(images))", "reversed(range(len(images)))")),)),
    "HU as attenuation": Mutant(
        (("physics/attenuation.py", "(mu_water_per_mm * (1.0 + hu / 1000.0))", "(mu_water_per_mm * hu)"),),
        ("N4", "N7"),
    ),
    "z flipped": Mutant((
        (PROJECTOR, FORWARD, FORWARD.replace("contiguous()", "flip(-3).contiguous()")),
        (PROJECTOR, ADJOINT, "        return mu.flip(-3)\n"),
    )),
    "image upside down": Mutant(((VIEWS, "v = np.cross(u, to_detector)", "v = np.cross(to_detector, u)"),)),
}  # fmt: skip


def failing_tests(mutant: Mutant) -> list[str]:
    """Run the tests of a mutant's promises on a copy of the package that has the fault, and return those that fail."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "src" / "voxray"
        shutil.copytree(ROOT / "src" / "voxray", package, ignore=shutil.ignore_patterns("__pycache__"))
        for file, there, instead in mutant.edits:
            text = (package / file).read_text()
            if text.count(there) != 1:
                raise LookupError(f"{file} has {there!r} {text.count(there)} times: bring the mutant up to date.")
            (package / file).write_text(text.replace(there, instead))
        environment = os.environ | {
            "PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": folder, "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        where = [sys.executable, "-c", "import voxray; import sys; sys.stdout.write(voxray.__file__)"]
        found = subprocess.run(where, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        if not found.startswith(folder):
            raise LookupError(f"The tests would run on {found}, not on the mutant.")
        wanted = " or ".join(mutant.promises)
        chosen = f"({wanted}) and not any_geometry"
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "-k", chosen, *TESTS],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest itself failed: {run.stdout[-2000:]} {run.stderr[-2000:]}")
    return re.findall(r"^FAILED \S+::(\S+)", run.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_copy_without_a_fault_passes() -> None:
    assert failing_tests(Mutant((), ("N1", "N3", "N4", "N7"))) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str) -> None:
    assert failing_tests(MUTANTS[name])


def table() -> str:
    """Return the mutants, and by how many tests of each promise they are found, with one test as an example."""
    lines = ["| mutant | must break | failing tests |", "|---|---|---|"]
    for name, mutant in MUTANTS.items():
        failing = failing_tests(mutant)
        names = sorted({test.split("[")[0] for test in failing})
        lines.append(f"| {name} | {' or '.join(mutant.promises)} | {len(failing)}: {', '.join(names) or 'NONE'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
