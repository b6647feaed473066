"""Arrays that cannot change after they have been checked."""

import numpy as np
import numpy.typing as npt

from voxray.errors import GeometryError

FloatArray = npt.NDArray[np.float64]


def frozen_array(value: object, shape: tuple[int, ...], name: str) -> FloatArray:
    """Copy `value` into a read-only float64 array of `shape`.

    Raises:
        GeometryError: if the shape is another or a number is not finite.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"{name} must be numbers of shape {shape}, not {value!r}.") from error
    if array.shape != shape:
        raise GeometryError(f"{name} must have shape {shape}, not {array.shape}.")
    if not np.isfinite(array).all():
        raise GeometryError(f"{name} has numbers that are not finite: {array.tolist()}.")
    array.setflags(write=False)
    return array
