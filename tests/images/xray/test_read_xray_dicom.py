from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from voxray.errors import InputError, VoxrayWarning
from voxray.images import reading
from voxray.images.read_xray import read_xray
from voxray.images.xray import ReadOptions

FULL = 4095


def read(path: Path, **options: object) -> np.ndarray:
    (image,) = read_xray(path, ReadOptions(**options))
    assert image.kind == "display"
    assert image.pixels.dtype == torch.float32
    return image.pixels.numpy()


def lut(values: list[int], first: int, bits: int = 16) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = values
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return [item]


# ---------------------------------------------------------------- I1, I3: what is accepted


def test_I1_empty_text_and_a_picture_called_dcm_are_no_dicom(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.dcm.*empty"):
        read_xray(path)
    path.write_text("This is no image.\n" * 40)
    with pytest.raises(InputError, match=r"x\.dcm' is not a DICOM file \(it is text\)"):
        read_xray(path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, "PNG")
    with pytest.raises(InputError, match=r"x\.dcm' is not a DICOM file \(it is PNG"):
        read_xray(path)
    with pytest.raises(InputError, match="There is no file"):
        read_xray(tmp_path / "missing.dcm")


def test_I1_content_decides_where_the_name_says_nothing(make_xray, small_xray):
    assert np.array_equal(read(make_xray("IM0001")), small_xray)


def test_I1_without_preamble_only_a_whole_implicit_xray_is_read(make_xray, small_xray, tmp_path):
    dataset = dcmread(make_xray())
    del dataset.file_meta
    dataset.preamble = None
    path = tmp_path / "bare.dcm"
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert np.array_equal(read(path), small_xray)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="3740 bytes of pixels instead of 3840"):
        read(path)
    dataset.PixelData += bytes(100)
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    with pytest.raises(InputError, match="3940 bytes of pixels instead of 3840"):
        read(path)
    dataset.PixelData = dataset.PixelData[:-100]
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(InputError, match="no DICM mark and is not in implicit VR"):
        read(path)
    del dataset.Rows
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    with pytest.raises(InputError, match="lacks Rows"):
        read(path)


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "SR", "RTSTRUCT", ""])
def test_I3_wrong_modality_is_refused_unless_forced(make_xray, small_xray, modality):
    path = make_xray(Modality=modality)
    with pytest.raises(InputError, match=r"CR, DX, RF, XA.*--force-modality"):
        read(path)
    with pytest.warns(VoxrayWarning, match="force-modality"):
        assert np.array_equal(read(path, force_modality=True), small_xray)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"HighBit": 15}, "high bit 15"),
        ({"BitsStored": 20}, "20 bits in 16"),
        ({"PhotometricInterpretation": None}, "lacks PhotometricInterpretation"),
        ({"PixelData": None}, "no pixels, or was cut off.*3840 bytes"),
    ],
)
def test_I4_pixels_of_another_kind_are_refused(make_xray, tags, message):
    with pytest.raises(InputError, match=message):
        read(make_xray(**tags))


# ---------------------------------------------------------------- I4: all end with bone high


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_I4_monochrome1_and_2_of_the_same_object_give_equal_arrays(make_xray, small_xray, bits):
    image = (small_xray.astype(np.int64) * (2**bits - 1) // FULL).astype(np.uint8 if bits == 8 else np.uint16)
    two = read(make_xray("two.dcm", image, BitsStored=bits))
    one = read(make_xray("one.dcm", 2**bits - 1 - image, BitsStored=bits, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(two, image)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_I4_compression_does_not_change_the_pair(make_xray, small_xray, syntax):
    assert np.array_equal(read(make_xray("two.dcm", syntax=syntax)), small_xray)
    one = make_xray("one.dcm", FULL - small_xray, syntax=syntax, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read(one), small_xray)


def test_I4_signed_pixels(make_xray, small_xray):
    signed = small_xray.astype(np.int16) - 2048
    two = read(make_xray("two.dcm", signed))
    assert np.array_equal(two, signed)
    one = read(make_xray("one.dcm", -1 - signed, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(one, two)


def test_I4_unused_bits_are_ignored(make_xray, small_xray):
    assert np.array_equal(read(make_xray(pixels=small_xray | 0xA000)), small_xray)


def test_I4_rescale_is_applied_before_the_inversion(make_xray, small_xray):
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": 10, "RescaleType": "US"}
    two = read(make_xray("two.dcm", **rescale))
    assert np.array_equal(two, small_xray * np.float32(0.5) + 10)
    one = make_xray("one.dcm", FULL - small_xray, PhotometricInterpretation="MONOCHROME1", **rescale)
    assert np.allclose(read(one), two)
    falling = make_xray("falling.dcm", FULL - small_xray, RescaleSlope=-1, RescaleIntercept=FULL, RescaleType="US")
    assert np.array_equal(read(falling), small_xray)


def test_I4_lut_sequences(make_xray, small_xray):
    curve = [int(65535 * np.sqrt(i / FULL)) for i in range(FULL + 1)]
    expected = np.array(curve)[small_xray]
    assert np.array_equal(read(make_xray("modality.dcm", ModalityLUTSequence=lut(curve, 0))), expected)
    assert np.array_equal(read(make_xray("voi.dcm", VOILUTSequence=lut(curve, 0))), expected)
    falling = make_xray("falling.dcm", FULL - small_xray, VOILUTSequence=lut(curve[::-1], 0))
    assert np.array_equal(read(falling), expected)
    one = {"PhotometricInterpretation": "MONOCHROME1", "VOILUTSequence": lut([65535 - v for v in curve], 0)}
    assert np.array_equal(read(make_xray("one.dcm", **one)), expected)


def test_I4_a_voi_lut_clamps_at_its_ends(make_xray, small_xray):
    path = make_xray(VOILUTSequence=lut(list(range(100, 1100)), 1000))
    assert np.array_equal(read(path), np.clip(small_xray.astype(int) - 900, 100, 1099))


def test_I4_a_window_is_not_applied(make_xray, small_xray):
    assert np.array_equal(read(make_xray(WindowCenter=1000, WindowWidth=10)), small_xray)


def test_I4_presentation_lut_shape_says_the_same_as_the_photometric_interpretation(make_xray, small_xray):
    two = make_xray("two.dcm", PresentationLUTShape="IDENTITY")
    one = make_xray(
        "one.dcm", FULL - small_xray, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"
    )
    assert np.array_equal(read(two), small_xray)
    assert np.array_equal(read(one), small_xray)
    odd = make_xray("odd.dcm", FULL - small_xray, PresentationLUTShape="INVERSE")
    with pytest.warns(VoxrayWarning, match=r"odd\.dcm.*PresentationLUTShape.*disagree"):
        assert np.array_equal(read(odd), small_xray)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_I4_for_processing_the_beam_decides(make_xray, small_xray, photometric):
    raw = {"Modality": "DX", "PresentationIntentType": "FOR PROCESSING", "PhotometricInterpretation": photometric}
    rising = make_xray("up.dcm", FULL - small_xray, PixelIntensityRelationshipSign=1, **raw)
    falling = make_xray("down.dcm", PixelIntensityRelationshipSign=-1, **raw)
    assert np.array_equal(read(rising), small_xray)
    assert np.array_equal(read(falling), small_xray)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("signed", [False, True])
def test_I4_values_linear_in_the_beam_end_as_their_logarithm(make_xray, small_xray, sign, signed):
    """LIN and LOG of one object differ by a straight line alone."""
    raw = {"Modality": "DX", "PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationshipSign": sign}
    raw["BitsStored"] = 16
    beam = np.rint(65535 * np.exp(-small_xray.astype(float) / 1000)).astype(np.int64)
    stored = (beam if sign > 0 else 65535 - beam) - 32768 * signed
    path = make_xray(pixels=stored.astype(np.int16 if signed else np.uint16), PixelIntensityRelationship="LIN", **raw)
    assert np.allclose(read(path), small_xray / 1000, atol=0.01)


def test_I4_a_pixel_without_any_beam_is_finite(make_xray, small_xray):
    dead = FULL - small_xray
    dead[5, 5] = 0
    path = make_xray(
        pixels=dead, Modality="DX", PresentationIntentType="FOR PROCESSING", PixelIntensityRelationship="LIN",
        PixelIntensityRelationshipSign=1,
    )  # fmt: skip
    image = read(path)
    assert np.isfinite(image).all()
    assert image[5, 5] == image.max()


def test_I4_for_presentation_a_contradicting_sign_is_said(make_xray, small_xray):
    path = make_xray(Modality="DX", PresentationIntentType="FOR PRESENTATION", PixelIntensityRelationshipSign=1)
    with pytest.warns(VoxrayWarning, match="PixelIntensityRelationshipSign"):
        assert np.array_equal(read(path), small_xray)


@pytest.mark.parametrize("relationship", ["LIN", "LOG", "DISP"])
def test_I4_angiography(make_xray, small_xray, relationship):
    """Beam values (LIN, LOG) grow with the beam; the LUT that leads back to it is never applied to display values."""
    back = lut(list(range(FULL, -1, -1)), 0)
    stored = small_xray if relationship == "DISP" else FULL - small_xray
    path = make_xray(pixels=stored, Modality="XA", PixelIntensityRelationship=relationship, ModalityLUTSequence=back)
    assert np.array_equal(read(path), small_xray)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_I4_padding_becomes_air(make_xray, small_xray, photometric):
    stored = small_xray if photometric == "MONOCHROME2" else FULL - small_xray
    stored = stored.copy()
    stored[:, :3] = 4000
    stored[:, -1] = 4004
    path = make_xray(
        pixels=stored, PhotometricInterpretation=photometric, PixelPaddingValue=4000, PixelPaddingRangeLimit=4010
    )
    image = read(path)
    assert np.array_equal(image[:, 3:-1], small_xray[:, 3:-1])
    assert (image[:, [0, 1, 2, -1]] == small_xray[:, 3:-1].min()).all()
    with pytest.raises(InputError, match="padding"):
        read(make_xray(pixels=np.full_like(small_xray, 4000), PixelPaddingValue=4000))


def test_I4_invert_turns_round_what_the_tags_gave(make_xray, small_xray):
    with pytest.warns(VoxrayWarning, match="looks inverted.*without --invert"):
        inverted = read(make_xray(), invert=True)
    assert np.array_equal(inverted, small_xray.min() + small_xray.max() - small_xray.astype(np.float32))


# ---------------------------------------------------------------- several frames


def test_I4_a_frame_of_several_is_chosen_or_the_file_refused(make_xray, small_xray):
    frames = np.stack([small_xray, small_xray // 2, small_xray // 3])
    path = make_xray(pixels=frames, Modality="XA", PositionerPrimaryAngle=0)
    with pytest.raises(InputError, match=r"3 frames.*--frame 1 \.\.\. 3"):
        read(path)
    assert np.array_equal(read(path, frame=2), frames[1])
    with pytest.raises(InputError, match="no frame 4"):
        read(path, frame=4)
    with pytest.raises(InputError, match="counted from 1"):
        ReadOptions(frame=0)


def test_I4_frames_of_a_moving_positioner_are_views(make_xray, small_xray):
    frames = np.stack([small_xray, small_xray // 2, small_xray // 3])
    path = make_xray(
        pixels=frames, syntax=RLELossless, Modality="XA", PositionerPrimaryAngle=-30,
        PositionerPrimaryAngleIncrement=[0, 30, 60],
    )  # fmt: skip
    images = read_xray(path)
    assert [image.tags.name for image in images] == ["-30", "0", "30"]
    assert np.array_equal(images[1].pixels.numpy(), frames[1])


# ---------------------------------------------------------------- I10


def test_I10_pixels_are_counted_in_the_header(make_xray, monkeypatch):
    path = make_xray(Rows=60000, Columns=60000)
    with pytest.raises(InputError, match=r"3\.6e"):
        read(path)
    monkeypatch.setattr(reading, "MAX_PIXELS", 48 * 40 - 1)
    with pytest.raises(InputError):
        read(make_xray())


def test_I10_a_deflated_file_is_refused_before_it_is_inflated(make_xray):
    path = make_xray()
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    with pytest.raises(InputError, match=r"transfer syntax Deflated.*readable are .*RLE"):
        read(path)
