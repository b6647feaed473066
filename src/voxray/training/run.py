"""From a recipe and a store to a model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxray.data.store import Case, CaseRecord, Store
from voxray.geometry import VolumeGrid
from voxray.images.atomic import refuse_existing
from voxray.images.disclaimer import DISCLAIMER
from voxray.images.report import hashed_name
from voxray.methods.base import Progress, check_case
from voxray.models import save_model
from voxray.recipes import Recipe


def train_recipe(
    recipe: Recipe,
    store: Store,
    out: Path,
    *,
    split: str = "train",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train every stage of a recipe's method on a split of a store, and save the model.

    Args:
        recipe: what to train.
        store: prepared cases.
        out: the model folder.
        split: of the store.
        overwrite: replace a model that is there.
        progress: called with (cases done, cases) in each stage.

    Returns:
        The model folder.

    Raises:
        InputError: if there is no such split, it does not fit the recipe, or `out` exists.
    """
    refuse_existing(out, overwrite)
    names = store.cases(split)
    method = recipe.build()
    for stage in method.stages():
        stage.fit(_Cases(store, names, method.grid), progress)
    records = [store.records[name] for name in names]
    recipe = recipe.model_copy(update={"trained_on": tuple(sorted(record.sha256 for record in records))})
    card = _card(recipe, records, split)
    save_model(method, recipe, out, card, overwrite=overwrite)
    return out


class _Cases(Sequence[Case]):
    """Cases that are read, and checked, when they are asked for: a thousand whole scans fill any memory."""

    def __init__(self, store: Store, names: Sequence[str], grid: VolumeGrid) -> None:
        self.store, self.names, self.grid = store, names, grid

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        case = self.store.load(self.names[index])
        check_case(case, self.grid)
        return case


def _card(recipe: Recipe, records: Sequence[CaseRecord], split: str) -> str:
    """Write a first model card: what is known without measuring.

    A model is made to be handed on, so scans and their files are named by hashes alone: both may name a patient.
    """
    lines = [
        f"# {recipe.name}", "", recipe.description, "", DISCLAIMER, "",
        "## Training data", "", f"Split `{split}`, {len(records)} scans:", "",
        "Names are given as the first 16 digits of their SHA-256.", "",
        "| scan | source | licence |", "|---|---|---|",
        *(
            f"| {hashed_name(Path(record.id))} | {hashed_name(Path(record.source))} | {record.licence or 'unknown'} |"
            for record in records
        ),
        "", "The recipe is in recipe.yaml.", "",
    ]  # fmt: skip
    return "\n".join(lines)
