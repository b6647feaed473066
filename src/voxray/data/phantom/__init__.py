"""Digital phantoms: a random thorax to train on, and a body with markers to test geometry with."""

from voxray.data.phantom.lungs import Nodule
from voxray.data.phantom.markers import MarkerPhantom, marker_phantom
from voxray.data.phantom.parameters import ThoraxParameters, draw_parameters
from voxray.data.phantom.thorax import Phantom, thorax_phantom

__all__ = [
    "MarkerPhantom",
    "Nodule",
    "Phantom",
    "ThoraxParameters",
    "draw_parameters",
    "marker_phantom",
    "thorax_phantom",
]
