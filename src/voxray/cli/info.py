"""`voxray info`: what voxray sees in a file, folder or model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from voxray.cli.arguments import read_geometry
from voxray.cli.output import show, show_table
from voxray.errors import InputError

if TYPE_CHECKING:
    from voxray.geometry import VolumeGrid

Facts = Sequence[tuple[str, object]]


def info(
    path: Annotated[
        Path | None, Argument(help="X-ray, CT, DICOM folder, geometry, store or model; without it: voxray itself.")
    ] = None,
) -> None:
    """Show what voxray sees in a file; nothing of it tells who the patient is."""
    if path is None:
        show_facts(_voxray())
    elif not path.exists():
        raise InputError(f"There is no file or folder {str(path)!r}.")
    elif path.is_dir():
        _folder(path)
    elif path.suffix.lower() == ".json":
        _geometry(path)
    else:
        _image(path)


def show_facts(facts: Facts) -> None:
    """Show what is known, a line each."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        show(f"{name:<{width}}  {value}")


def _voxray() -> Facts:
    from voxray.api import list_models
    from voxray.geometry import PRESETS
    from voxray.images.disclaimer import DISCLAIMER, made_by
    from voxray.methods import method_names
    from voxray.recipes import recipe_names

    return [
        ("version", made_by()),
        ("models", ", ".join(model.name for model in list_models()) or "none"),
        ("methods", ", ".join(method_names())),
        ("recipes", ", ".join(recipe_names())),
        ("set-ups", ", ".join(PRESETS)),
        ("note", DISCLAIMER),
    ]


def _folder(path: Path) -> None:
    from voxray.data.store import CASES
    from voxray.images.read_ct import list_series
    from voxray.models.folder import RECIPE

    if (path / RECIPE).is_file():
        _model(path)
    elif (path / CASES).is_dir():
        _store(path)
    else:
        rows = [
            (series.modality, series.slices, " x ".join(f"{mm:.4g}" for mm in series.spacing_mm), series.uid)
            for series in list_series(path)
        ]
        show_table(("modality", "images", "spacing, mm", "series (for --series)"), rows)


def _model(path: Path) -> None:
    from voxray.images.reading import reading
    from voxray.models import load_model
    from voxray.models.folder import CARD

    model = load_model(path)
    recipe = model.info.recipe
    show_facts([
        ("model", recipe.name),
        ("method", recipe.method),
        ("grid", f"{recipe.grid.shape} voxels (z, y, x) of {recipe.grid.spacing_mm:g} mm"),
        ("weights", f"SHA-256 {model.weights_sha256}"),
    ])  # fmt: skip
    card = path / CARD
    if card.is_file():
        with reading(card):
            text = card.read_text(encoding="utf-8")
        show()
        show(text.strip())


def _store(path: Path) -> None:
    from voxray.data.store import Store

    store = Store.open(path)
    splits: dict[str, int] = {}
    for name in store.cases():
        split = store.records[name].split
        splits[split] = splits.get(split, 0) + 1
    show_table(("split", "cases"), sorted(splits.items()))


def _geometry(path: Path) -> None:
    views = read_geometry(path)
    show_facts([("views", len(views)), ("isocentre, LPS mm", views.isocentre().round(2).tolist())])
    rows = [
        (
            name,
            " x ".join(map(str, views.shapes[i])),
            views.source_mm[i].round(1).tolist(),
            views.centre_mm[i].round(1).tolist(),
        )
        for i, name in enumerate(views.names)
    ]
    show_table(("view", "rows x columns", "source, LPS mm", "middle of the detector"), rows)


def _image(path: Path) -> None:
    """Show a file as an X-ray, or else as a CT; if it is neither, say why for both."""
    readers: tuple[Callable[[Path], None], ...] = (_xray, _ct)
    reasons = []
    for read in readers:
        try:
            read(path)
            return
        except InputError as error:
            reasons.append(str(error))
    raise InputError(f"{str(path)!r} is neither an X-ray nor a CT. As an X-ray: {reasons[0]} As a CT: {reasons[1]}")


def _xray(path: Path) -> None:
    from voxray.images.read_xray import read_xray

    for image in read_xray(path):
        tags, pixels = image.tags, image.pixels
        show_facts([
            ("X-ray", "line integrals" if image.kind == "line_integral" else "grey values, bone high"),
            ("view", tags.name or "not said"),
            ("rows x columns", " x ".join(map(str, tags.shape))),
            ("pixel, mm", _known(tags.pixel_mm) + (" in the patient" if tags.pixel_in_patient else "")),
            ("source to detector, mm", _known(tags.source_detector_mm)),
            ("source to patient, mm", _known(tags.source_patient_mm)),
            ("shown right, bottom", _known(tags.orientation)),
            ("values", f"{float(pixels.min()):.4g} to {float(pixels.max()):.4g}"),
        ])  # fmt: skip


def _ct(path: Path) -> None:
    from voxray.images.read_ct import read_ct

    volume = read_ct(path)
    show_facts([("CT", "Hounsfield units"), *_grid(volume.grid),
                ("HU", f"{float(volume.hu.min()):.4g} to {float(volume.hu.max()):.4g}")])  # fmt: skip


def _grid(grid: "VolumeGrid") -> Facts:
    return [
        ("voxels (z, y, x)", " x ".join(map(str, grid.shape))),
        ("spacing (x, y, z), mm", " x ".join(f"{mm:.4g}" for mm in grid.spacing_mm)),
        ("middle, LPS mm", grid.centre_mm.round(2).tolist()),
    ]


def _known(value: object) -> str:
    if value is None:
        return "not said"
    return " x ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
