"""`voxray nodules`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from voxray.cli.arguments import Device, Overrides, Overwrite, Seed, check_output, flattened, views_or_count
from voxray.cli.evaluating import Protocol
from voxray.cli.output import note, progress, show, show_table

if TYPE_CHECKING:
    from voxray.api import NoduleOptions, NoduleResult


@dataclass(frozen=True)
class NoduleArguments:
    """The fields of `NoduleOptions`, as they are typed."""

    split: Annotated[str, Option(help="Test on these cases of the store; `all` for all.")] = "val"
    protocol: Annotated[
        Protocol, Option(help="closed: X-rays of the cube alone, without noise; clinical: of the whole scan, with.")
    ] = Protocol.CLOSED
    range_deg: Annotated[float, Option(help="Range of a number of views.", min=0, max=360)] = 180.0
    setup: Annotated[str, Option(help="Preset of the views: chest, x2ct, perx2ct or xraysyn.")] = "chest"
    size: Annotated[
        list[float] | None,
        Option(metavar="MM", help="Diameter; give it again for more. Without it: 10, 16, 24 and 32 mm."),
    ] = None
    sites: Annotated[
        int,
        Option(min=2, help="Places in the lungs, over all cases: at least one a case, and 30 to conclude anything."),
    ] = 32
    seed: Seed = 0
    device: Device = "auto"
    workers: Annotated[int, Option(min=1, help="Processes, each with a reconstruction at a time.")] = 1
    overwrite: Overwrite = False

    def options(self) -> "NoduleOptions":
        """Return the checked options."""
        from voxray.api import NoduleOptions

        given = {name: value for name, value in vars(self).items() if name != "size"}
        sizes = {"sizes_mm": tuple(self.size)} if self.size else {}
        split = None if self.split == "all" else self.split
        return NoduleOptions(**given | sizes | {"split": split, "protocol": self.protocol.value})


@flattened
def nodules(
    model: Annotated[str, Argument(help="Name (see `voxray models`) or folder of a model.")],
    store: Annotated[Path, Argument(help="Made by `voxray prepare`.")],
    arguments: NoduleArguments,
    out: Annotated[
        Path,
        Option(
            "--out", "-o",
            help="Folder for nodules.csv; one of `voxray evaluate` or `compare`, if wanted. The same command goes on "
            "there.",
        ),
    ],
    views: Annotated[
        str, Option(help="Names with commas, or a number: so many, spread evenly over --range-deg from PA.")
    ] = "pa,lateral",
    overrides: Overrides = None,
) -> None:  # fmt: skip
    """Plant nodules in the lungs of prepared CTs, and see whether a model shows them."""
    from voxray.api import nodule_test

    check_output(out, overwrite=True)  # whether another test may be there, the test itself looks
    try:
        with progress("Planting nodules") as draw:
            result = nodule_test(
                model, store, out, views=views_or_count(views), overrides=overrides or (), options=arguments.options(),
                progress=draw,
            )  # fmt: skip
    except KeyboardInterrupt:
        note(f"The same command goes on where it was stopped ('{out}').")
        raise
    _show(result)
    show(str(out / "nodules.csv"))


def _show(result: "NoduleResult") -> None:
    rows = [
        (f"{line.diameter_mm:g}", line.sites, round(line.inserted_hu), _shown(line.recovery, line.recovery_interval),
         _shown(line.auc, line.auc_interval))
        for line in result.summary()
    ]  # fmt: skip
    show_table(("diameter, mm", "sites", "contrast, HU", "recovery [95 %]", "AUC [95 %]"), rows)


def _shown(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
