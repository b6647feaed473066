"""The example that `voxray demo` reconstructs: one folder a case, with its licence beside it."""

from importlib.resources import files
from pathlib import Path

EXAMPLE = "lidc0028"


def example_folder() -> Path:
    """Return the folder of the embedded example: pa.nii.gz, lateral.nii.gz, geometry.json and the true ct.nii.gz."""
    return Path(str(files("voxray.examples"))) / EXAMPLE
