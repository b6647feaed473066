"""How the X-rays of an evaluation are made from a prepared case."""

import hashlib
from typing import Literal, get_args

import torch

from voxray.data.store import Case
from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.base import Outside
from voxray.physics import Projector
from voxray.physics.attenuation import add_photon_noise, hu_to_mu
from voxray.physics.sampling import ray_march

Protocol = Literal["closed", "clinical"]
PHOTONS = 2e5


def check_protocol(name: str) -> Protocol:
    """Return the name if it is a protocol's.

    Raises:
        InputError: if it is not.
    """
    if name not in get_args(Protocol):
        raise InputError(f"There is no protocol {name!r}; the protocols are {', '.join(get_args(Protocol))}.")
    return name  # type: ignore[return-value]


def check_views(views: ViewGeometry, grid: VolumeGrid) -> None:
    """Check that X-rays of a cube can be made.

    Raises:
        GeometryError: if a source stands inside it.
    """
    Projector(grid, views)


def make_xrays(case: Case, views: ViewGeometry, protocol: Protocol, seed: int) -> tuple[Radiograph, Outside]:
    """Make the X-rays of a case, with its isocentre at the origin, and say what is outside the volume.

    `closed`: projected from the very cube that is scored, without noise, as the papers do; outside it is air.
    `clinical`: projected from the whole scan without couch, by samples of half a voxel, with Poisson noise of 2e5
    photons a pixel (our choice); outside the cube the body goes on, as in life.

    Args:
        case: as the store holds it.
        views: about the origin.
        protocol: see above.
        seed: of the noise; each case has noise of its own.
    """
    if protocol == "closed":
        grid = case.volume.grid.shifted(-case.isocentre_mm)
        return Radiograph(tuple(Projector(grid, views).forward(hu_to_mu(case.volume.hu))), views), "air"
    grid = case.scan.grid.shifted(-case.isocentre_mm)
    digest = hashlib.sha256(f"{seed} {case.id}".encode()).digest()
    rng = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    images = ray_march(hu_to_mu(case.scan.hu), grid, views, step_voxels=0.5)
    return Radiograph(tuple(add_photon_noise(image, PHOTONS, rng=rng) for image in images), views), "body"
