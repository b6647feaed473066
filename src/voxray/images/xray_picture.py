"""X-rays as ordinary pictures: PNG, TIFF, JPEG of 8 or 16 bit."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL.TiffTags import TAGS_V2

from voxray.errors import InputError, VoxrayWarning
from voxray.geometry.placing import ViewTags
from voxray.images.reading import check_pixels, reading
from voxray.images.types import Origin
from voxray.images.xray import XrayImage

_TIFF = {info.name: tag for tag, info in TAGS_V2.items()}
_PNG_END = b"IEND\xaeB`\x82"
_GREY = ("L", "I;16", "I;16B", "I;16L")
_COLOUR = ("LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def read_picture(path: Path) -> XrayImage:
    """Read a PNG, TIFF or JPEG as it is shown: bright is bone.

    16 bits are kept. Colours become their luminance (ITU-R BT.601, as Pillow computes it) with a warning, alpha is
    dropped. The resolution that pictures carry is that of a printer or screen, so the pixel size stays unknown.

    Raises:
        InputError: if the file is damaged, incomplete or too large, or holds several pictures or other values.
    """
    with reading(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        with _opened(path) as image:
            check_pixels(path, image.width * image.height)
            _check_complete(path, image)
            _check_rotation(path, image)
            pixels = _grey(path, image)
    tags = ViewTags((pixels.shape[0], pixels.shape[1]), path.name)
    return XrayImage(torch.from_numpy(pixels), "display", Origin(path), tags)


def _opened(path: Path) -> ImageFile.ImageFile:
    """Read the header alone. `Image.open` has a limit of pixels of its own, below ours and with other words."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89PNG"):
        return PngImagePlugin.PngImageFile(path)
    if head.startswith(b"\xff\xd8"):
        return JpegImagePlugin.jpeg_factory(path)  # type: ignore[arg-type]  # a path, like its siblings
    return TiffImagePlugin.TiffImageFile(path)


def _check_complete(path: Path, image: Image.Image) -> None:
    """Refuse what Pillow lets pass: several pictures, a wrong checksum, an end that is missing."""
    count = getattr(image, "n_frames", 1)
    if count != 1:
        raise InputError(f"{str(path)!r} holds {count} pictures; save the one that is meant as a file of its own.")
    size = path.stat().st_size
    if image.format == "PNG":
        with _opened(path) as copy:
            copy.verify()
        if _PNG_END not in path.read_bytes()[-1024:]:
            raise InputError(f"{str(path)!r} is cut off: its {size} bytes do not hold the end of a PNG.")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        for offsets, lengths in (("StripOffsets", "StripByteCounts"), ("TileOffsets", "TileByteCounts")):
            parts = zip(image.tag_v2.get(_TIFF[offsets], ()), image.tag_v2.get(_TIFF[lengths], ()), strict=True)
            expected = max((offset + length for offset, length in parts), default=0)
            if expected > size:
                raise InputError(f"{str(path)!r} is cut off: it has {size} bytes instead of {expected} or more.")


def _check_rotation(path: Path, image: Image.Image) -> None:
    """Warn where a picture says that it is turned; refuse a TIFF, whose turned pixels Pillow (13) mixes up."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return
    what = f"{path.name}: its orientation tag says that the picture is turned or mirrored"
    if image.format == "TIFF":
        raise InputError(f"{what}; TIFF files are read only upright. Save it upright, without that tag.")
    warnings.warn(f"{what}; the tag is ignored. Save the picture upright if it is not.", VoxrayWarning, stacklevel=2)


def _grey(path: Path, image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if image.mode in _COLOUR:
        warnings.warn(
            f"{path.name} is a colour picture ({image.mode}); its luminance is taken, with 8 bits.",
            VoxrayWarning,
            stacklevel=2,
        )
        return np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
    if image.mode not in _GREY:
        raise InputError(
            f"{str(path)!r} has values of the kind {image.mode!r}; pictures have 8 or 16 bits. Line integrals are read "
            "from NIfTI, MetaImage (.mha) and NRRD."
        )
    white_is_zero = (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.mode != "L"  # Pillow has turned 8 bits round, but not 16
        and image.tag_v2.get(_TIFF["PhotometricInterpretation"]) == 0
    )
    pixels = np.asarray(image, dtype=np.float32)
    return 65535 - pixels if white_is_zero else np.array(pixels)
