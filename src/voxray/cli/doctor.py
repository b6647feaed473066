"""`voxray doctor`: what this machine can do for voxray."""

import os
import platform
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from voxray.cli.info import Facts, show_facts

_EXTRAS = {"cluster": "distributed", "jpeg-lossless": "libjpeg", "benchmarks": "itk"}


def doctor() -> None:
    """Show what this machine has: libraries, codecs, memory, disk, accelerator, extras."""
    show_facts([*_software(), *_machine(), *_codecs(), *_extras()])


def _software() -> Facts:
    import numba
    import SimpleITK as sitk  # noqa: N813
    import torch

    from voxray.images.disclaimer import made_by

    return [
        ("voxray", made_by()),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("numba", numba.__version__),
        ("SimpleITK", sitk.Version.VersionString()),
        ("GPU", _gpus()),
    ]


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use: everything runs on the CPU"
    count = torch.cuda.device_count()
    return ", ".join(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count))


def _machine() -> Facts:
    facts = [("cores", str(os.cpu_count()))]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts.append(("memory", f"{total / 1e9:.1f} GB"))
    for name, folder in (("disk here", Path.cwd()), ("disk for temporary files", Path(tempfile.gettempdir()))):
        facts.append((name, f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"))
    return facts


def _codecs() -> Facts:
    """Say which kinds of DICOM files can be decoded, and by what; SimpleITK's GDCM takes what pydicom cannot."""
    from pydicom import uid
    from pydicom.pixels import get_decoder

    by_gdcm = (uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGExtended12Bit)
    syntaxes = (
        uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGBaseline8Bit, *by_gdcm, uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    )  # fmt: skip
    facts = []
    for syntax in syntaxes:
        decoder = "SimpleITK" if syntax in by_gdcm else "pydicom" if get_decoder(syntax).is_available else "no codec"
        facts.append((f"DICOM, {syntax.name}", decoder))
    return facts


def _extras() -> Facts:
    return [
        (f"extra {name}", "there" if find_spec(module) else f"not there (pip install 'voxray[{name}]')")
        for name, module in _EXTRAS.items()
    ]
