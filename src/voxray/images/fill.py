"""What stands in place of pixels that are no measurements."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage


def fill(
    image: Float[np.ndarray, "rows columns"], missing: Bool[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """Give pixels that are missing the values of the nearest others."""
    if not missing.any() or missing.all():
        return image
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)])
