"""The pixels of a DICOM X-ray: decoded as they are stored, then turned so that bone is high."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder

from voxray.errors import InputError, VoxrayWarning
from voxray.images.gdcm import BY_GDCM, decode

Pixels = npt.NDArray[np.float32]


def stored_pixels(path: Path, dataset: Dataset, frame: int) -> npt.NDArray[np.integer]:
    """Decode one frame (from 0) into its stored values, (rows, columns), signed where the tags say so.

    Raises:
        InputError: if the frame is not what the tags say.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in BY_GDCM:
        return np.asarray(decode(str(path), dataset)[frame])
    return np.asarray(get_decoder(syntax).as_array(dataset, index=frame)[0])


def bone_high(stored: npt.NDArray[np.integer], dataset: Dataset, label: str) -> Pixels:
    """Turn stored values into grey values in which bone is high; the one place that decides on polarity.

    Where the image is made for viewing (CR, DX "for presentation", secondary capture), the chain that DICOM
    prescribes for showing it decides (PS3.4 N.2): modality LUT or rescale, VOI LUT sequence, and an inversion
    for MONOCHROME1 or PresentationLUTShape INVERSE, since bone is shown bright. A window is left out: it is
    linear, and clips. A tag that is wrong is obeyed all the same.

    Where nobody has looked at it, the physics decides (PS3.3 C.8.11.3.1.2): for DX "for processing"
    PixelIntensityRelationshipSign; for XA and RF with the relationship LIN or LOG the values grow with the
    intensity of the beam (C.8.7.1.1.2) unless the sign says otherwise. Their LUTs, which serve other purposes,
    are not applied. For processing, values that are linear in the beam (LIN) become their negative logarithm, as LOG
    is; the scale is left as it is otherwise, in XA and RF too, where no tag tells raw images from shown ones.

    Padding pixels (PixelPaddingValue, to PixelPaddingRangeLimit) become the lowest of the others.

    Args:
        stored: (rows, columns).
        dataset: the tags.
        label: the file, for messages.

    Returns:
        float32, (rows, columns).

    Raises:
        InputError: if all pixels are padding.
    """
    values = stored.astype(np.float32)
    sign, decides = _beam_sign(dataset)
    if decides:
        values = values if sign < 0 else sum(_stored_range(dataset)) - values
        processing = dataset.get("PresentationIntentType") == "FOR PROCESSING"
        if processing and dataset.get("PixelIntensityRelationship") == "LIN":
            low, high = _stored_range(dataset)
            values = np.log(high - low) - np.log(np.maximum(high - values, 1))
    else:
        values = _as_shown(stored, dataset, sign, label)
    padding = _padding(stored, dataset)
    if padding.all():
        raise InputError(f"{label}: all pixels are padding (PixelPaddingValue).")
    values[padding] = values[~padding].min()
    return np.ascontiguousarray(values, dtype=np.float32)


def _as_shown(stored: npt.NDArray[np.integer], dataset: Dataset, sign: int, label: str) -> Pixels:
    """Walk the chain that DICOM prescribes for display, without the window."""
    ends = np.array(_stored_range(dataset), dtype=np.int32)
    values = stored.astype(np.int32)
    if not _beam_lut(dataset):
        values, ends = (apply_modality_lut(array, dataset) for array in (values, ends))
        if dataset.get("ModalityLUTSequence"):
            ends = np.array([0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1])
    if dataset.get("VOILUTSequence"):
        _, first, bits = dataset.VOILUTSequence[0].LUTDescriptor
        values = apply_voi_lut(np.clip(np.rint(values), first, first + 65535).astype(np.int32), dataset)
        ends = np.array([0, 2**bits - 1])
    white_is_low = dataset.PhotometricInterpretation == "MONOCHROME1"
    shape = str(dataset.get("PresentationLUTShape", "")).upper()
    if (shape == "INVERSE") != white_is_low and shape in ("INVERSE", "IDENTITY"):
        _doubt(f"{label}: the tags PhotometricInterpretation and PresentationLUTShape ({shape}) disagree")
    elif sign and (sign > 0) != white_is_low and not dataset.get("VOILUTSequence"):
        _doubt(f"{label}: the tags PhotometricInterpretation and PixelIntensityRelationshipSign ({sign}) disagree")
    if white_is_low or shape == "INVERSE":
        values = ends.sum() - values
    return values.astype(np.float32)


def _doubt(reason: str) -> None:
    warnings.warn(
        f"{reason} about what is bright; the image is taken as it would be shown (--invert turns it round).",
        VoxrayWarning,
        stacklevel=5,
    )


def _beam_sign(dataset: Dataset) -> tuple[int, bool]:
    """Return 1 if values grow with the beam, -1 if they fall, 0 if unknown; and whether this decides."""
    sign = dataset.get("PixelIntensityRelationshipSign")
    sign = int(sign) if sign in (1, -1) else 0
    relationship = str(dataset.get("PixelIntensityRelationship", "")).upper()
    if dataset.get("Modality") in ("XA", "RF") and relationship in ("LIN", "LOG"):
        return sign or 1, True
    return sign, bool(sign) and dataset.get("PresentationIntentType") == "FOR PROCESSING"


def _beam_lut(dataset: Dataset) -> bool:
    """Tell whether the modality LUT leads back to the beam's intensity instead of to the display."""
    relationship = str(dataset.get("PixelIntensityRelationship", "")).upper()
    return dataset.get("Modality") in ("XA", "RF") and relationship in ("LOG", "DISP")


def _padding(stored: npt.NDArray[np.integer], dataset: Dataset) -> npt.NDArray[np.bool_]:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    """Return the least and the greatest value that the stored bits can hold."""
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
