"""The compiled projector in its surroundings: where nothing can be written, and beside torch."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector

_SCRIPT = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]  # as in a container that is read-only
import torch
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector
views = ViewGeometry.biplanar().resized([(8, 8)] * 2)
(pa, lateral) = Projector(VolumeGrid.centred(shape=(8, 8, 8), spacing_mm=20), views).forward(torch.ones(8, 8, 8))
assert float(pa.max()) > 0
import glob, tempfile
assert glob.glob(tempfile.gettempdir() + "/voxray-numba-*/*"), "compiled code is kept for this process"
"""


def test_T1_projector_runs_where_no_folder_can_be_written_to(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True, env=environment)
    assert not list(tmp_path.glob("voxray-numba-*")), "nothing is left behind"


def test_D3_projecting_leaves_the_threads_of_torch_alone() -> None:
    before = torch.get_num_threads()
    views = ViewGeometry.biplanar()
    projector = Projector(VolumeGrid.centred(shape=(64, 64, 64), spacing_mm=5), views)
    try:
        torch.set_num_threads(1)
        projector.adjoint(projector.forward(torch.ones(64, 64, 64)))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
