"""One X-ray image as it was read, and what the user says about how to read it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from voxray.errors import InputError
from voxray.geometry.placing import ViewOptions, ViewTags
from voxray.images.types import Kind, Origin


@dataclass(frozen=True)
class ReadOptions(ViewOptions):
    """How X-rays are read; what is known of their set-up stands in `ViewOptions`.

    Attributes:
        invert: turn the grey values of pictures and DICOM files round, after all tags have been obeyed.
        frame: the frame to take of multi-frame files, from 1 as DICOM counts.
        allow_mixed: accept images of different patients, studies or dates.
        force_modality: accept DICOM files of any modality.
        force_chest: accept images that do not look like the chest, for a model of chests.
        align: correct what was estimated of grey values of a chest by what the views have in common, and by the result.

    Raises:
        InputError: if the frame is not positive.
    """

    invert: bool = False
    frame: int | None = None
    allow_mixed: bool = False
    force_modality: bool = False
    force_chest: bool = False
    align: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame is not None and self.frame < 1:
            raise InputError(f"Frames are counted from 1; there is no frame {self.frame}.")


@dataclass(frozen=True, eq=False)
class XrayImage:
    """One image of one view, bone high, before it is matched with a view.

    Attributes:
        pixels: float32, (rows, columns).
        kind: `display` for pictures and DICOM, `line_integral` for NIfTI, MetaImage and NRRD.
        origin: the file and, for DICOM, its patient and study.
        tags: what is known about the pose; everything but the shape may be unknown.
    """

    pixels: Float[Tensor, "rows columns"]
    kind: Kind
    origin: Origin
    tags: ViewTags
