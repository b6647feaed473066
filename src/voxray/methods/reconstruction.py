"""The result of a reconstruction, and how it is written."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from voxray.errors import InputError
from voxray.images import CTVolume, Radiograph
from voxray.images.atomic import refuse_existing
from voxray.images.preview import write_preview
from voxray.images.report import Report
from voxray.images.write_dicom import write_dicom_series
from voxray.images.write_volume import write_volume

FORMATS = {"nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha"}

# Everything that `save` ever writes but the report, in the folder and in dicom/.
_WRITTEN = re.compile(rf"preview\.png|(ct|std|low90|high90|sample_\d+)({'|'.join(map(re.escape, FORMATS.values()))})")
_SLICE = re.compile(r"synthetic_\d{4,}\.dcm")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed CT and everything that belongs to it.

    Attributes:
        volume: the CT; the mean, where the method is probabilistic.
        samples: equally plausible CTs, where more than one was asked for.
        std: standard deviation of each voxel in HU, where it is known.
        interval: lower and upper end of the 90 % interval of each voxel in HU, where it is known.
        radiograph: the X-rays that went in, at the resolution that the method saw.
        reprojections: line integrals of the result, one image a view.
        report: what went in, what was assumed, what came out.
    """

    volume: CTVolume
    samples: tuple[CTVolume, ...]
    std: CTVolume | None
    interval: tuple[CTVolume, CTVolume] | None
    radiograph: Radiograph
    reprojections: tuple[Tensor, ...]
    report: Report

    def save(
        self,
        folder: Path | str,
        *,
        formats: Sequence[str] = ("nifti",),
        overwrite: bool = False,
        keep_phi: bool = False,
        truth: CTVolume | None = None,
    ) -> list[Path]:
        """Write the volume, preview.png and report.json; the report comes last, so that it stands for completeness.

        Args:
            folder: made if it is missing.
            formats: of `nifti` (ct.nii.gz), `nrrd` (ct.nrrd), `mha` (ct.mha) and `dicom` (the series dicom/).
            overwrite: replace a former run; whatever it wrote is removed first, so that no two results are mixed.
            keep_phi: copy patient name and ID into the DICOM series.
            truth: the true CT, to be shown in the preview beside the result.

        Returns:
            What was written.

        Raises:
            InputError: if a format is unknown, or a file exists and may not be overwritten.
            ResourceError: if the disk is full.
        """
        folder = Path(folder)
        unknown = [name for name in formats if name not in (*FORMATS, "dicom")]
        if unknown:
            raise InputError(f"Unknown format {unknown[0]!r}; the formats are {', '.join(FORMATS)}, dicom.")
        volumes = [("ct", self.volume), *((f"sample_{i + 1}", sample) for i, sample in enumerate(self.samples))]
        if self.std is not None:
            volumes.append(("std", self.std))
        if self.interval is not None:
            volumes += zip(("low90", "high90"), self.interval, strict=True)
        files = {folder / (name + FORMATS[f]): volume for f in formats if f != "dicom" for name, volume in volumes}
        preview, report, series = folder / "preview.png", folder / "report.json", folder / "dicom"
        former = _former(folder)
        for path in (*files, *former, preview, report, *([series] if "dicom" in formats else [])):
            refuse_existing(path, overwrite)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            report.unlink(missing_ok=True)  # a former run's would vouch for a mixture, if this one is stopped
            for path in former:
                path.unlink()
            with suppress(OSError):  # holds something else, or was not there
                series.rmdir()
        except OSError as error:
            raise InputError(
                f"'{folder}' cannot be written to: {error.strerror}. Choose a folder that you may write to."
            ) from error
        for path, volume in files.items():
            write_volume(volume, path, overwrite=overwrite)
        written = list(files)
        if "dicom" in formats:
            write_dicom_series(self.volume, series, radiograph=self.radiograph, keep_phi=keep_phi, overwrite=overwrite)
            written.append(series)
        title = f"{self.report.model.name} from {', '.join(self.radiograph.views.names)}"
        quality = self.report.quality
        write_preview(
            preview, self.volume, self.radiograph, self.reprojections,
            truth=truth, std=self.std, title=title, verdict=quality.summary if quality is not None else "",
            overwrite=overwrite,
        )  # fmt: skip
        self.report.write(report, overwrite=overwrite)
        return [*written, preview, report]


def _former(folder: Path) -> list[Path]:
    """List the files of a former run, but for its report."""
    return [
        path
        for place, names in ((folder, _WRITTEN), (folder / "dicom", _SLICE))
        if place.is_dir()
        for path in sorted(place.iterdir())
        if names.fullmatch(path.name) and (path.is_symlink() or path.is_file())
    ]
