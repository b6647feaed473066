"""Where the lungs are in a CT, and the point that a chest is centred on."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from voxray.data.body_mask import block_means
from voxray.errors import InputError
from voxray.geometry._frozen import FloatArray
from voxray.images import CTVolume

# Air and lung are below, fat is above; also the threshold of the body mask.
LUNG_BELOW_HU = -400.0

# Less than this is lung bases of an abdominal scan, or bowel gas; adults hold 2 to 6 litres.
_LEAST_ML = 1000.0

# The trachea above and the recesses below are left out: slices count from this share of the largest one.
_SHARE_OF_LARGEST = 0.05

# Air beyond the skin, in the margin of the body mask, is no lung.
_SKIN_MM = 5.0


def lung_mask(
    hu: Float[np.ndarray, "z y x"], body: Bool[np.ndarray, "z y x"], spacing_mm: FloatArray, *, cut_off: bool = False
) -> Bool[np.ndarray, "z y x"]:
    """Mark the lungs: the largest part below -400 HU well within the skin, and the second if more than a tenth of it.

    Airways that are joined to them are part of them, vessels denser than that are not. The rule is our choice.

    Args:
        hu: axial slices along the first axis.
        body: the patient (`body_mask`).
        spacing_mm: sides of a voxel, (z, y, x).
        cut_off: the body goes on beyond the sides of the volume, which so are no skin, as of a cube cut out of a scan.
    """
    steps = [round(_SKIN_MM / mm) for mm in spacing_mm[1:]]
    square = np.ones((1, 2 * steps[0] + 1, 2 * steps[1] + 1))
    inner = ndimage.binary_erosion(body, square, border_value=int(cut_off))
    return _two_largest_parts(inner & (hu < LUNG_BELOW_HU))


def lung_centre(volume: CTVolume, mask: Bool[Tensor, "z y x"]) -> FloatArray:
    """Return the point that a chest CT is centred on.

    Along the patient: the middle of the slices that hold lung. From side to side and from front to back: the
    middle of the body's bounding box, so that as much of the body as possible fits into a cube about it.

    The rule is our choice: it comes closest to the isocentres that the reference chests were made with. Over the
    23 thoraxes of the shared data the median difference is 1.3 mm along each axis; it exceeds 10 mm in y where an
    arm or a lead lies in front (2 scans), and in z where those isocentres seem to have taken bowel gas for lung (2).

    Args:
        volume: axial slices along the first array axis, in HU.
        mask: the patient, on the volume's grid (`body_mask`).

    Returns:
        LPS position in mm, (3,).

    Raises:
        InputError: if there is less than one litre of lung.
    """
    hu, factors, spacing_mm = block_means(volume)
    share = F.avg_pool3d(mask[None, None].float(), factors, ceil_mode=True, count_include_pad=False)
    body = share[0, 0].numpy() > 0.5
    lungs = lung_mask(hu, body, spacing_mm)
    millilitres = float(lungs.sum() * spacing_mm.prod() / 1000)
    if millilitres < _LEAST_ML:
        raise InputError(
            f"No lungs were found to centre on ({millilitres:.0f} ml of lung, at least {_LEAST_ML:.0f} are "
            "needed). For another region give --centre body, --centre X,Y,Z, --box or --mask."
        )
    area = lungs.sum((1, 2))
    slices = np.nonzero(area > _SHARE_OF_LARGEST * area.max())[0]
    middle = _box_middle(body)
    middle[2] = (slices[0] + slices[-1]) / 2
    return volume.grid.index_to_mm((middle + 0.5) * factors[::-1] - 0.5)


def box_centre(volume: CTVolume, mask: Bool[Tensor, "z y x"]) -> FloatArray:
    """Return the middle of the bounding box of `mask`, (3,) in LPS mm.

    Raises:
        InputError: if the mask is empty.
    """
    if not bool(torch.any(mask)):
        raise InputError("The mask to centre on is empty.")
    return volume.grid.index_to_mm(_box_middle(mask.numpy()))


def _box_middle(mask: np.ndarray) -> FloatArray:
    """Return the middle (i, j, k) of the smallest box around a mask with axes (z, y, x)."""
    ends = [np.nonzero(mask.any(axis=axes))[0][[0, -1]] for axes in ((0, 1), (0, 2), (1, 2))]
    return np.mean(ends, axis=1)


def _two_largest_parts(mask: np.ndarray) -> np.ndarray:
    """Keep the largest part, and the second where it is more than a tenth of it."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    first_two = np.argsort(sizes)[-2:]
    return np.isin(labels, [label for label in first_two if sizes[label] > 0.1 * sizes.max()])
