"""X-rays as a user without tags has them: `python benchmarks/disturbed.py STORE [SPLIT [MODEL [DRAWS]]]`.

Scans of a store are projected in PA and lateral, but not as the preset says: each view is turned by up to 3 degrees
about a random axis, 0.85 to 1.15 times as large, and up to 20 mm aside in rows and columns; and what is shown is no
line integral, but 12 bits behind an unknown exposure and a random curve. The table holds the 3D PSNR (-1024..1476 HU
as 0..1) of what a model makes of that: of clean line integrals in the true geometry; of the grey values as they are;
behind `voxray.intake`; with the views aligned; and with the tissue calibrated, as by default. Each as it comes, and
registered to the scan by a similarity transform, over the voxels that both hold: where in space two such X-rays show a
body, and how large, nobody can know.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from torch import Tensor

from voxray.data.store import Case, Store
from voxray.errors import VoxrayWarning
from voxray.evaluation.metrics import psnr
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.images.types import Known
from voxray.intake import take_in, tissue_factor
from voxray.methods.base import Method
from voxray.models import load_model
from voxray.physics import Projector
from voxray.physics.attenuation import HU_RANGE, hu_to_mu, to_unit_range

# What is drawn, evenly: degrees, factor of the size, mm at the isocentre; exponent of the curve, and the line integral
# that is as bright as can be.
TURN_DEG, SIZE, SHIFT_MM, GAMMA, TOP = 3.0, (0.85, 1.15), 20.0, (0.6, 1.6), (6.0, 9.0)


def disturbed(views: ViewGeometry, rng: np.random.Generator) -> ViewGeometry:
    """Return where source and detector truly stood, while everybody believes `views` about the origin."""
    arrays = {name: np.array(getattr(views, name)) for name in ("source_mm", "centre_mm", "u_mm", "v_mm")}
    for n in range(len(views)):
        axis = rng.normal(size=3)
        turn = SimpleITK.VersorTransform(
            tuple(axis / np.linalg.norm(axis)), np.deg2rad(rng.uniform(-TURN_DEG, TURN_DEG))
        )
        matrix = np.reshape(turn.GetMatrix(), (3, 3))
        u, v = arrays["u_mm"][n], arrays["v_mm"][n]
        columns_mm, rows_mm = rng.uniform(-SHIFT_MM, SHIFT_MM, 2)
        aside = columns_mm * u / np.linalg.norm(u) + rows_mm * v / np.linalg.norm(v)
        away = np.linalg.norm(arrays["centre_mm"][n] - arrays["source_mm"][n]) / np.linalg.norm(arrays["source_mm"][n])
        arrays["centre_mm"][n] += away * aside
        size = rng.uniform(*SIZE)
        for name in ("u_mm", "v_mm"):
            arrays[name][n] *= size
        for name in arrays:
            arrays[name][n] = matrix @ arrays[name][n]
    return ViewGeometry(**arrays, shapes=views.shapes, names=views.names, isocentre_mm=views.isocentre_mm)


def shown(line_integrals: Tensor, rng: np.random.Generator) -> Tensor:
    """Return grey values of 12 bits: an unknown exposure, and a curve."""
    gamma, top = rng.uniform(*GAMMA), rng.uniform(*TOP)
    return ((line_integrals / top).clamp(0, 1) ** gamma * 4095).round()


def registered(result: CTVolume, truth: CTVolume) -> tuple[Tensor, Tensor]:
    """Return a result (HU) brought onto the truth by the best similarity, and where it has values."""
    images = []
    for volume in (truth, result):
        images.append(SimpleITK.GetImageFromArray(volume.hu.clamp(*HU_RANGE).numpy()))
        images[-1].SetSpacing(truth.grid.spacing_mm.tolist())
        images[-1].SetOrigin((-(np.array(truth.grid.shape[::-1]) - 1) / 2 * truth.grid.spacing_mm).tolist())
    registration = SimpleITK.ImageRegistrationMethod()
    registration.SetMetricAsMeanSquares()
    registration.SetMetricSamplingStrategy(registration.REGULAR)
    registration.SetMetricSamplingPercentage(0.05)
    registration.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 80)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetShrinkFactorsPerLevel([2])
    registration.SetSmoothingSigmasPerLevel([1])
    transform = SimpleITK.Similarity3DTransform()
    registration.SetInitialTransform(transform, True)
    registration.Execute(*images)
    nowhere = -1e6
    moved = SimpleITK.Resample(images[1], images[0], transform, SimpleITK.sitkLinear, nowhere)
    hu = torch.from_numpy(SimpleITK.GetArrayFromImage(moved))
    return hu, hu > nowhere


def scores(result: CTVolume, truth: CTVolume) -> tuple[float, float]:
    """Return the 3D PSNR as it comes, and registered, dB."""
    moved, both = registered(result, truth)
    true, found = to_unit_range(truth.hu), to_unit_range(result.hu)
    return psnr(true, found, data_range=1.0), psnr(true[both], to_unit_range(moved)[both], data_range=1.0)


def reconstructed(method: Method, xrays: Radiograph) -> CTVolume:
    """Return what a model makes of X-rays, binned as `voxray reconstruct` bins them."""
    fine = xrays.views.bins(float(method.grid.spacing_mm.min()) / 2, xrays.views.isocentre())
    return method.reconstruct(xrays.binned(fine), rng=torch.Generator().manual_seed(0)).volume


def xrays_of(case: Case, rng: np.random.Generator) -> tuple[Radiograph, Radiograph]:
    """Return clean line integrals, and the disturbed grey values that the user has."""
    views, mu = ViewGeometry.biplanar(), hu_to_mu(case.scan.hu)
    grid = case.scan.grid.shifted(-case.isocentre_mm)
    clean, disturbed_images = (tuple(Projector(grid, v).forward(mu)) for v in (views, disturbed(views, rng)))
    known = (Known(size="nobody", facing=False, centre=False),) * len(views)
    grey = tuple(shown(image, rng) for image in disturbed_images)
    return Radiograph(clean, views), Radiograph(grey, views, "display", known=known)


def results(method: Method, clean: Radiograph, grey: Radiograph) -> dict[str, CTVolume]:
    """Return what a model makes of clean line integrals, and of grey values, by what is done to these before."""
    aligned = take_in(grey, method.grid)
    first = reconstructed(method, aligned.radiograph)
    return {
        "clean": reconstructed(method, clean),
        "as they are": reconstructed(method, grey),
        "intake": reconstructed(method, take_in(grey, method.grid, aligned=False).radiograph),
        "aligned": first,
        "and calibrated": reconstructed(method, aligned.times(tissue_factor(first)).radiograph),
    }


def main() -> None:
    """Print the table."""
    arguments = sys.argv[1:]
    store = Store.open(Path(arguments[0]))
    split = arguments[1] if len(arguments) > 1 else "val"
    method = load_model(arguments[2] if len(arguments) > 2 else "accord").method
    draws = int(arguments[3]) if len(arguments) > 3 else 1
    warnings.simplefilter("ignore", VoxrayWarning)
    rng = np.random.default_rng(0)
    rows: list[list[float]] = []
    for name in store.cases(split):
        case = store.load(name)
        for _ in range(draws):
            found = results(method, *xrays_of(case, rng))
            if not rows:
                print("| scan | " + " | ".join(f"{way} | registered" for way in found) + " |")
                print("|---" * (1 + 2 * len(found)) + "|")
            rows.append([value for volume in found.values() for value in scores(volume, case.volume)])
            print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in rows[-1]) + " |", flush=True)
    print("| mean | " + " | ".join(f"{value:.2f}" for value in np.mean(rows, 0)) + " |")


if __name__ == "__main__":
    main()
