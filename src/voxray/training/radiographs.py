"""Radiographs to learn a style from: a folder of files, taken in as `reconstruct` takes them, and kept."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from voxray.errors import InputError, VoxrayWarning
from voxray.images.atomic import atomic_path
from voxray.images.read_xray import read_radiograph, read_xray
from voxray.images.report import sha256_file
from voxray.images.view_matching import view_in_name
from voxray.images.xray_files import xray_files
from voxray.intake import can_take_in, refuse_others, take_in
from voxray.methods.style import Style
from voxray.training.progress import Told
from voxray.training.stop import Stop

# To be raised when the same file begins to be taken in otherwise: what lies in caches is then made anew.
_VERSION = 2


@dataclass(frozen=True)
class Radiographs:
    """The X-ray files below a folder, by the SHA-256 of their content."""

    files: dict[str, Path]

    @classmethod
    def below(cls, folder: Path) -> "Radiographs":
        """List the files.

        Raises:
            InputError: if there is no such folder, or no X-ray in it.
        """
        if not folder.is_dir():
            raise InputError(f"--real takes a folder of X-rays; '{folder}' is none.")
        files = xray_files(sorted(path for path in folder.rglob("*") if path.is_file()))
        if not files:
            raise InputError(f"There is no X-ray file in '{folder}' (--real).")
        return cls({sha256_file(path): path for path in files})

    def taken_in(self, style: Style, cache: Path, stop: Stop, progress: Told | None) -> Tensor:
        """Return what the style learns from (`Style.laid_out`), (n, 2, p, p); a file each is kept in the cache.

        Files that are no chest, no grey values, of another view or not readable are left out, with a `VoxrayWarning`.
        Ends early where `stop` has a reason.

        Raises:
            InputError: if nothing is left.
        """
        shaping = style.settings.model_dump(mode="json", include={"angle_deg", "pixels", "side_mm", "scale"})
        made_of = [_VERSION, shaping, style.grid.size_mm.tolist()]
        folder = cache / f"radiographs-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        found, left_out = [], []
        for done, (sha256, path) in enumerate(sorted(self.files.items())):
            if stop.reason:
                break
            kept = folder / f"{sha256}.safetensors"
            if not kept.exists():
                try:
                    image = _laid_out(path, style)
                except InputError as error:
                    left_out.append(f"{path.name} ({error})")
                    continue
                with atomic_path(kept) as temporary:
                    temporary.write_bytes(save({"image": image.half().contiguous()}))
            found.append(load_file(kept)["image"])
            if progress is not None:
                progress("taking in radiographs", done + 1, len(self.files))
        if left_out:
            _say(left_out, len(self.files))
        if not found and not stop.reason:
            raise InputError(f"None of the {len(self.files)} files of --real shows a chest in a view of this style.")
        return torch.stack(found) if found else torch.zeros_like(style.real)


def _laid_out(path: Path, style: Style) -> Tensor:
    """Return one file as the style is given it; where nothing says which view it is, it is one of the style's.

    Raises:
        InputError: if it cannot be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)  # what is assumed of each of a thousand files
        image = read_xray(path)[0]
        view = image.tags.name or view_in_name(path) or f"{style.settings.angle_deg:g}"
        radiograph = read_radiograph([path], views=[view])
        if not style.own(radiograph.views):
            raise InputError(f"a view {view!r}, which is not the style's")
        if not can_take_in(radiograph):
            raise InputError("no grey values")
        intake = take_in(radiograph, style.grid)
        refuse_others(intake.findings, [path.name])
        seen = intake.findings[0].sighting
        if seen.looks_inverted or (seen.other_side is not None and seen.other_side > seen.best):
            raise InputError("it looks inverted, or taken from another side")
    return style.laid_out(intake.radiograph)[0]


def _say(left_out: Sequence[str], files: int) -> None:
    more = f", and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    warnings.warn(
        f"{len(left_out)} of {files} files of --real are left out: {'; '.join(left_out[:5])}{more}.",
        VoxrayWarning,
        stacklevel=3,
    )
