"""From one CT scan to one case of a store."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from voxray.data.body_mask import AIR_HU, body_mask, without_couch
from voxray.data.inputs import VOLUME_SUFFIXES, Scan
from voxray.data.lungs import box_centre, lung_centre
from voxray.data.options import PrepareOptions
from voxray.data.resample import crop, resample, upright
from voxray.data.split import Row
from voxray.data.store import Case, CaseRecord
from voxray.errors import InputError, VoxrayWarning
from voxray.geometry import VolumeGrid
from voxray.geometry._frozen import FloatArray
from voxray.images import CTVolume
from voxray.images.read_ct import read_ct

# X2CT-GAN: 320 voxels of 1 mm (Ying et al. 2019, released code).
_X2CT_VOXELS = 320


@dataclass(frozen=True)
class Job:
    """One scan, and what is to be done with it."""

    scan: Scan
    split: str
    row: Row
    options: PrepareOptions
    stamp: str


def make_case(job: Job) -> Case:
    """Read a scan, remove the couch, find the centre and resample the cube.

    Raises:
        InputError: if the scan cannot be read, holds no body, or has no lungs to centre on.
    """
    scan, options = job.scan, job.options
    volume = upright(
        read_ct(scan.path, series=scan.series, assume_ras=options.assume_ras, resample_tilt=options.resample_tilt)
    )
    mask = _body(volume, scan.id, options)
    volume = without_couch(volume, mask)
    if options.pipeline == "x2ct":
        cube = x2ct_cube(volume, options.shape)
    else:
        centre = _centre(volume, mask, job)
        cube = resample(volume, VolumeGrid.centred(centre, options.shape, options.spacing_mm))
    padding = _padding(cube.grid, volume.grid)
    if any(low + high >= n for (low, high), n in zip(padding, cube.grid.shape, strict=True)):
        x, y, z = cube.grid.centre_mm
        raise InputError(f"The cube about ({x:.0f}, {y:.0f}, {z:.0f}) mm lies outside the scan {str(scan.path)!r}.")
    x, y, z = (float(value) for value in cube.grid.centre_mm)
    record = CaseRecord(
        id=scan.id, patient=scan.patient, split=job.split, licence=job.row.licence, source=scan.path.name,
        sha256=scan.sha256(), isocentre_mm=(x, y, z), padding=padding, stamp=job.stamp, options=options.key(),
    )  # fmt: skip
    return Case(record, cube, _whole(volume, mask, options.finest_mm))


def x2ct_cube(volume: CTVolume, shape: tuple[int, int, int] = (128, 128, 128)) -> CTVolume:
    """Return the cube as the pipeline of X2CT-GAN makes it (Ying et al. 2019; released code `CT2XRAY/ctpro.py`).

    Cubic resampling to 1 mm; cut or padded to 320^3: along z the last 320 slices of a longer scan, else padding on
    both sides (the odd slice at the end); along y and x the middle; then linear resampling to `shape`, without
    smoothing. -1024 HU where there is nothing. The authors' zoom puts the outermost voxel centres of both grids on
    top of each other, which stretches the voxels by 0.5 % (2.512 mm at 128); ours keeps the outer edges (2.5 mm).
    The cube of an oblique scan is upright about the same middle, as every cube of a store is; theirs ignores the turn.
    """
    grid = volume.grid
    millimetres = tuple(max(1, round(n * mm)) for n, mm in zip(grid.shape, grid.spacing_mm[::-1], strict=True))
    fine = resample(volume, grid.resized((millimetres[0], millimetres[1], millimetres[2])), smoothing=0, cubic=True)
    box = x2ct_box(fine.grid).resized(shape)
    return resample(fine, VolumeGrid.centred(box.centre_mm, shape, box.spacing_mm), smoothing=0)


def x2ct_box(grid: VolumeGrid) -> VolumeGrid:
    """Return the 320^3 voxels that X2CT-GAN's pipeline keeps of a grid of 1-mm voxels (see `x2ct_cube`)."""
    n = np.array(grid.shape[::-1])
    missing = np.maximum(_X2CT_VOXELS - n, 0)
    too_many = np.maximum(n - _X2CT_VOXELS, 0)
    first = too_many // 2 - missing // 2
    if too_many[2]:
        first[2] = too_many[2]
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.index_to_mm(first)
    return VolumeGrid((_X2CT_VOXELS,) * 3, affine)


def _body(volume: CTVolume, name: str, options: PrepareOptions) -> Bool[Tensor, "z y x"]:
    if options.body_mask == "none":
        return torch.ones(volume.grid.shape, dtype=torch.bool)
    if isinstance(options.body_mask, Path):
        return read_mask(options.body_mask, name, volume.grid)
    return body_mask(volume)


def _centre(volume: CTVolume, mask: Bool[Tensor, "z y x"], job: Job) -> FloatArray:
    options = job.options
    if job.row.isocentre_mm is not None:
        return np.array(job.row.isocentre_mm)
    if options.box is not None:
        return np.array(options.box).reshape(2, 3).mean(axis=0)
    if options.centre_mask is not None:
        return box_centre(volume, read_mask(options.centre_mask, job.scan.id, volume.grid))
    if options.centre == "lungs":
        return lung_centre(volume, mask if options.body_mask != "none" else body_mask(volume))
    if options.centre == "body":
        return box_centre(volume, mask)
    return volume.grid.centre_mm if options.centre == "scan" else np.array(options.centre)


def read_mask(path: Path, name: str, grid: VolumeGrid) -> Bool[Tensor, "z y x"]:
    """Read a mask (above 0.5 is inside) and bring it onto `grid`.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or a folder that holds one called `name`.
        name: the id of the case.
        grid: the grid of the CT.

    Raises:
        InputError: if there is no such file, or the mask is empty on the grid.
    """
    file = path
    if path.is_dir():
        there = [path / f"{name}{suffix}" for suffix in VOLUME_SUFFIXES if (path / f"{name}{suffix}").is_file()]
        if not there:
            raise InputError(f"{str(path)!r} holds no mask for {name!r} (one of {', '.join(VOLUME_SUFFIXES)}).")
        file = there[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)  # a mask does not look like HU, and need not
        volume = read_ct(file)
    share = CTVolume(volume.hu.clamp(0, 1), volume.grid)
    mask = resample(share, grid, smoothing=0).hu > 0.5
    if not bool(mask.any()):
        raise InputError(f"The mask {str(file)!r} is empty where the CT is.")
    return mask


def _padding(cube: VolumeGrid, scan: VolumeGrid) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Count the layers of the cube whose centres lie beyond the scan's box: (low, high) along (z, y, x)."""
    corners = cube.mm_to_index(scan.corners_mm())
    pairs = []
    for axis, n in zip((2, 1, 0), cube.shape, strict=True):
        low, high = corners[:, axis].min(), corners[:, axis].max()
        pairs.append((min(n, max(0, math.ceil(low))), min(n, max(0, n - 1 - math.floor(high)))))
    return pairs[0], pairs[1], pairs[2]


def _whole(volume: CTVolume, mask: Bool[Tensor, "z y x"], finest_mm: float) -> CTVolume:
    """Cut the scan to the body's box, and make its voxels at least `finest_mm`."""
    ends = [torch.nonzero(mask.any(dim=a).any(dim=b)).flatten()[[0, -1]].tolist() for a, b in ((2, 1), (2, 0), (1, 0))]
    (z0, z1), (y0, y1), (x0, x1) = ends
    scan = crop(volume, (z0, y0, x0), (z1 + 1, y1 + 1, x1 + 1))
    spacing = np.maximum(scan.grid.spacing_mm, finest_mm)
    if (spacing > scan.grid.spacing_mm).any():
        nz, ny, nx = np.ceil(scan.grid.size_mm / spacing)[::-1].astype(int)
        affine = np.array(scan.grid.affine)
        affine[:3, :3] = scan.grid.direction * spacing
        affine[:3, 3] += scan.grid.direction @ (spacing - scan.grid.spacing_mm) / 2
        scan = resample(scan, VolumeGrid((int(nz), int(ny), int(nx)), affine))
    return CTVolume(scan.hu.clamp(min=AIR_HU), scan.grid)
