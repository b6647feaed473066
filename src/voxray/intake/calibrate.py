"""Soft tissue is as dense as soft tissue: what a result says about the scale of the line integrals it was made from."""

from voxray.images import CTVolume

# Voxels from here on are tissue and bone; this quantile of them, of the training scans' volumes: mean (its standard
# deviation is 23 HU, 2 % of the density). Muscle and organs, where fat and lung at its borders are less, bone is more.
_TISSUE_HU, _QUANTILE, _USUAL_HU = -300.0, 0.75, 66.0
# By how much the density of tissue in results of accord's second weights goes with the line integrals of the training
# scans, when these are 15 % too low or too high (logarithms; 0.57 to 0.88): the rest goes into the body's outline, and
# what was learned.
_FOLLOWS = 0.73
# What is corrected at most; beyond this something else is wrong. The part of a volume that is tissue, at least. Ours.
_LARGEST, _FEWEST = 1.35, 0.05


def tissue_factor(volume: CTVolume) -> float:
    """Return the factor of line integrals by which a result's soft tissue would get the usual density.

    Without a calibrated exposure, the tone curve makes every chest as dense as chests that look like it usually are.
    The density of muscle and organs hardly differs from person to person; that of a result does, where the curve was
    wrong. 1 where the volume holds hardly any tissue.

    Args:
        volume: made from estimated line integrals.
    """
    tissue = volume.hu[volume.hu > _TISSUE_HU]
    if len(tissue) < _FEWEST * volume.hu.numel():
        return 1.0
    found = float(tissue.kthvalue(round(_QUANTILE * len(tissue))).values)
    factor = float(((1000 + _USUAL_HU) / (1000 + found)) ** (1 / _FOLLOWS))
    return min(max(factor, 1 / _LARGEST), _LARGEST)
