"""Where voxels, X-ray sources and detectors stand: patient coordinates (LPS), millimetres, float64."""

from voxray.geometry._frozen import FloatArray
from voxray.geometry.grid import VolumeGrid
from voxray.geometry.presets import PRESETS, Setup
from voxray.geometry.views import ViewGeometry

__all__ = ["PRESETS", "FloatArray", "Setup", "ViewGeometry", "VolumeGrid"]
