"""Hounsfield units of the tissues of the phantom."""

from dataclasses import dataclass

# Ranges are those of radiology's textbooks for scans without contrast agent (Buzug, Computed Tomography, 2008,
# table of Hounsfield units; Prokop and Galanski, Spiral and Multislice CT of the Body, 2003), each narrowed to
# its usual part. They agree with the densities of ICRU Report 44 (1989) in kg/l, in brackets: at CT energies
# soft tissues attenuate like water of their density, within some 10 HU; adipose tissue lies about 50 HU below
# its density and bone, with its calcium, far above. A source that gives no range is named beside the line.
TISSUE_HU: dict[str, tuple[float, float]] = {
    "air": (-1000.0, -1000.0),
    "airway": (-1000.0, -985.0),  # air, blurred by walls that are not resolved (our choice)
    "lung": (-910.0, -800.0),  # deep breath; medians of 13 training scans: -936 .. -824 (docs/phantom.md)
    "fat": (-118.0, -92.0),  # [0.95]
    "muscle": (38.0, 60.0),  # [1.05]
    "skin": (10.0, 40.0),  # [1.09]; less, because it is thinner than a voxel (our choice)
    "blood": (32.0, 48.0),  # [1.06]
    "heart": (38.0, 52.0),  # muscle of the heart [1.05]
    "vessel_wall": (30.0, 50.0),
    "liver": (45.0, 68.0),  # [1.06]
    "spleen": (42.0, 55.0),  # [1.06]
    "kidney": (25.0, 40.0),  # [1.05]
    "fluid": (0.0, 20.0),  # contents of stomach; water is 0
    "disc": (60.0, 100.0),  # cartilage [1.10]
    "cartilage": (70.0, 160.0),  # cartilage [1.10] of ribs, which calcifies with age (our choice)
    "canal": (10.0, 30.0),  # cord [1.04] in fluid
    "gland": (10.0, 45.0),  # breast [1.02]
    # Compact bone [1.92] is 1000 .. 1900 HU where it is resolved. Shells are 1 mm or more thick here, thicker
    # than the true ones, so that they get less (our choice).
    "cortical": (500.0, 850.0),
    # Vertebrae of adults: Pickhardt et al., Ann. Intern. Med. 158 (2013) put osteoporosis below 110 .. 160; the
    # ends are our choice.
    "spongy": (90.0, 240.0),
}


@dataclass(frozen=True)
class Tissues:
    """The HU of each tissue in one phantom; every field lies in its range of `TISSUE_HU`."""

    air: float
    airway: float
    lung: float
    fat: float
    muscle: float
    skin: float
    blood: float
    heart: float
    vessel_wall: float
    liver: float
    spleen: float
    kidney: float
    fluid: float
    disc: float
    cartilage: float
    canal: float
    gland: float
    cortical: float
    spongy: float
