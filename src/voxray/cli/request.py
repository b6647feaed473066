"""What `voxray reconstruct` is asked to do, for one patient or many."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from voxray.cli.arguments import Device, Overrides, Overwrite, Seed, XrayArguments
from voxray.defaults import DEFAULT_MODEL, UPSAMPLE_MODEL
from voxray.errors import InputError

if TYPE_CHECKING:
    from voxray.api import Reconstruction
    from voxray.cli.patients import Patient


class Format(StrEnum):
    """What a volume is written as (Typer takes a list of an enumeration, not of literals)."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    MHA = "mha"
    DICOM = "dicom"


@dataclass(frozen=True)
class MethodArguments:
    """What reconstructs, and how."""

    model: Annotated[str, Option(help="Name (see `voxray models`) or folder of a model.")] = DEFAULT_MODEL
    device: Device = "auto"
    seed: Seed = 0
    samples: Annotated[int, Option(min=1, help="Volumes to draw; from two on their spread is written, too.")] = 1
    outside: Annotated[
        Literal["body", "air"], Option(help="What lies beyond the volume: the rest of the body, or air.")
    ] = "body"
    upsample: Annotated[int, Option(min=1, max=2, help="2 for voxels half as large as the model's.")] = 1
    upsample_model: Annotated[
        str, Option(help="Name or folder of the model that makes them (`voxray train upsample`), or linear.")
    ] = UPSAMPLE_MODEL
    style: Annotated[
        list[str] | None,
        Option(help="Name or folder of a style for X-rays of one side (`voxray train style`); again for the other."),
    ] = None
    overrides: Overrides = None


@dataclass(frozen=True)
class ResultArguments:
    """What is written."""

    format: Annotated[
        list[Format] | None, Option("--format", help="Of the volume; give it again for several. Without it: nifti.")
    ] = None
    overwrite: Overwrite = False
    keep_phi: Annotated[bool, Option("--keep-phi", help="Keep names of files and patients in the results.")] = False


@dataclass(frozen=True)
class Request:
    """One run of the command: everything but the X-rays."""

    views: tuple[str, ...] | None
    geometry: Path | None
    method: MethodArguments
    reading: XrayArguments
    result: ResultArguments

    def key(self) -> str:
        """Hash of all that shapes a result; of files their content, so that a change is seen and a move is none.

        Raises:
            InputError: if the geometry cannot be read.
            ModelError: if the model cannot.
        """
        from voxray.api.styling import style_sha256
        from voxray.api.upsampling import upsampler_sha256
        from voxray.images.disclaimer import made_by
        from voxray.images.report import sha256_file
        from voxray.models.folder import model_sha256

        values = asdict(self) | {"made_by": made_by()}
        method = self.method
        values["method"]["model"] = model_sha256(method.model)
        values["method"]["upsample_model"] = upsampler_sha256(method.upsample_model) if method.upsample > 1 else None
        values["method"]["style"] = [style_sha256(style) for style in method.style or ()]
        values["geometry"] = sha256_file(self.geometry) if self.geometry is not None else None
        del values["result"]["overwrite"], values["method"]["device"]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()

    def reconstruct(self, patient: "Patient", progress: Callable[[int, int], None] | None) -> "Reconstruction":
        """Reconstruct one patient; the views of the command line stand above those that came with the patient."""
        from voxray.api import reconstruct

        views, geometry, method = self.views, self.geometry, self.method
        if views is None and geometry is None:
            views, geometry = patient.views, patient.geometry
        return reconstruct(
            patient.files,
            model=method.model,
            views=views,
            geometry=geometry,
            options=self.reading.options(),
            device=method.device,
            seed=method.seed,
            overrides=method.overrides or (),
            samples=method.samples,
            outside=method.outside,
            upsample=method.upsample,
            upsample_model=method.upsample_model,
            style=method.style or (),
            keep_phi=self.result.keep_phi,
            progress=progress,
        )

    def save(self, result: "Reconstruction", folder: Path, *, overwrite: bool = False) -> list[Path]:
        """Write a result; report.json comes last."""
        formats = tuple(format.value for format in self.result.format or (Format.NIFTI,))
        return result.save(folder, formats=formats, overwrite=overwrite, keep_phi=self.result.keep_phi)

    def refuse_inputs_in(self, out: Path, patients: "list[Patient]") -> None:
        """Refuse to write into a folder that X-rays are read from.

        Raises:
            InputError: if the folder of a result holds one of them.
        """
        for patient in patients:
            folder = (out / patient.id).resolve()
            for file in patient.files:
                if folder == file.absolute().parent.resolve():
                    raise InputError(f"{str(out)!r} holds {file.name!r}, an input: choose another folder for results.")
