"""What every result says about itself."""

from importlib.metadata import version

SYNTHETIC = "SYNTHETIC - NOT FOR DIAGNOSIS"
DISCLAIMER = "Research software, not a medical device. Synthetic: not for diagnosis."


def made_by() -> str:
    """Return the name and version of the software, as in `voxray 0.1.0`."""
    return f"voxray {version('voxray')}"
