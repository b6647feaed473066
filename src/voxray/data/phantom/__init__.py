"""Digital phantoms: a random thorax to train on, and a body with markers to test geometry with."""

from voxray.data.phantom.markers import MarkerPhantom, marker_phantom

__all__ = ["MarkerPhantom", "marker_phantom"]
