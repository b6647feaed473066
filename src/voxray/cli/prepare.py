"""`voxray prepare`: CTs into a store to train on and to evaluate with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from voxray.cli.arguments import flattened, split_numbers
from voxray.cli.output import note, progress, show, show_table
from voxray.errors import InputError

if TYPE_CHECKING:
    from voxray.data.options import PrepareOptions

_WORDS = ("lungs", "body", "scan")


@dataclass(frozen=True)
class PrepareArguments:
    """The fields of `PrepareOptions`, as text."""

    shape: Annotated[str, Option(metavar="N or Z,Y,X", help="Voxels of the cube.")] = "128"
    spacing_mm: Annotated[float, Option(help="Side of its voxels, mm.")] = 2.5
    pipeline: Annotated[
        Literal["voxray", "x2ct"], Option(help="x2ct: resampled as X2CT-GAN and the papers after it do.")
    ] = "voxray"
    body_mask: Annotated[
        str, Option(metavar="threshold|none|PATH", help="What is body: found, all, or a mask (or a folder of them).")
    ] = "threshold"
    centre: Annotated[
        str, Option(metavar="lungs|body|scan|X,Y,Z", help="Where the middle of the cube goes; a point in LPS mm.")
    ] = "lungs"
    box: Annotated[
        str | None, Option(metavar="X,Y,Z,X,Y,Z", help="Two corners in LPS mm; their middle is the centre.")
    ] = None
    mask: Annotated[
        Path | None, Option(help="The centre is the middle of this mask's box: a file, or a folder of them.")
    ] = None
    finest_mm: Annotated[float, Option(help="Keep the whole scan with voxels of at least this size; 0: its own.")] = 0.0
    table: Annotated[
        Path | None, Option(help="CSV: id, and split, patient, licence, iso_x, iso_y, iso_z as far as known.")
    ] = None
    fractions: Annotated[
        str | None, Option(metavar="NAME=SHARE,...", help="Of every split; without it train=0.8,val=0.1,test=0.1.")
    ] = None
    protocol: Annotated[
        Literal["hash", "lidc916"], Option(help="How patients are split; lidc916: the published 916/102 of LIDC-IDRI.")
    ] = "hash"
    assume_ras: Annotated[
        bool, Option("--assume-ras", help="Read files without orientation as right, front, head.")
    ] = False
    resample_tilt: Annotated[bool, Option("--resample-tilt", help="Accept a tilted gantry; the scan is resampled.")] = (
        False
    )
    workers: Annotated[int, Option(help="Processes; 0: one a core, as far as memory goes.")] = 0
    scheduler: Annotated[str, Option(help="Address of a Dask scheduler, for a cluster.")] = ""

    def options(self) -> "PrepareOptions":
        """Return the checked options.

        Raises:
            InputError: if a text cannot be read, or the values do not go together.
        """
        from voxray.data.options import PrepareOptions

        values: dict[str, Any] = dict(vars(self))
        values["shape"] = _shape(self.shape)
        values["body_mask"] = self.body_mask if self.body_mask in ("threshold", "none") else Path(self.body_mask)
        values["centre"] = self.centre if self.centre in _WORDS else _point_or_word(self.centre)
        values["box"] = split_numbers(self.box, 6, "--box") if self.box is not None else None
        values["centre_mask"] = values.pop("mask")
        values["fractions"] = _shares(self.fractions) if self.fractions is not None else None
        return PrepareOptions(**values)


@flattened
def prepare(
    cts: Annotated[
        list[Path], Argument(help="Any mix of files (NIfTI, NRRD, MHA, zips) and folders of them and of DICOM series.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The store: a new folder, or one to go on with.")],
    choices: PrepareArguments,
) -> None:
    """Prepare CT scans for training and evaluation; run again, it goes on where it was stopped."""
    from voxray.api import prepare as run

    with progress("Preparing") as draw:
        summary = run(cts, out, choices.options(), progress=draw)
    for name, messages in summary.warnings.items():
        for message in messages:
            note(f"note: {name}: {message}")
    for path, reason in summary.skipped.items():
        note(f"left out: {path}: {reason}")
    show(f"{str(out)!r}: {len(summary.made)} prepared, {len(summary.kept)} there already.")
    show_table(("split", "cases"), sorted(summary.splits.items()))
    if summary.failed:
        reasons = "".join(f"\n  {path}: {reason}" for path, reason in summary.failed.items())
        raise InputError(f"{len(summary.failed)} scans failed:{reasons}")


def _shape(text: str) -> tuple[int, int, int]:
    words = text.split(",")
    if len(words) not in (1, 3) or not all(word.strip().isdecimal() for word in words):
        raise InputError(f"--shape takes one whole number, or three (z,y,x); not {text!r}.")
    numbers = [int(word) for word in words]
    z, y, x = numbers * 3 if len(numbers) == 1 else numbers
    return z, y, x


def _point_or_word(text: str) -> tuple[float, ...]:
    try:
        return split_numbers(text, 3, "--centre")
    except InputError:
        raise InputError(f"--centre takes {', '.join(_WORDS)} or X,Y,Z in mm; not {text!r}.") from None


def _shares(text: str) -> dict[str, float]:
    shares = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        shares[name.strip()] = split_numbers(share, 1, f"--fractions {name.strip()}")[0]
    return shares
