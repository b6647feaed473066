"""From a recipe and a store to a model folder."""

from pathlib import Path

from voxray.data.store import Case, Store
from voxray.errors import InputError
from voxray.images.atomic import refuse_existing
from voxray.images.disclaimer import DISCLAIMER
from voxray.methods.base import Progress
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
        InputError: if the split is empty, does not fit the recipe, or `out` exists.
    """
    refuse_existing(out, overwrite)
    cases = [store.load(name) for name in store.cases(split)]
    if not cases:
        raise InputError(f"The split {split!r} of '{store.path}' has no cases to train on.")
    if any(case.volume.grid.shape != recipe.grid.shape for case in cases):
        raise InputError(
            f"The store's volumes have {cases[0].volume.grid.shape} voxels, the recipe's {recipe.grid.shape}."
        )
    method = recipe.build()
    for stage in method.stages():
        stage.fit(cases, progress)
    save_model(method, recipe, out, _card(recipe, cases, split), overwrite=overwrite)
    return out


def _card(recipe: Recipe, cases: list[Case], split: str) -> str:
    """Write a first model card: what is known without measuring."""
    lines = [
        f"# {recipe.name}", "", recipe.description, "", DISCLAIMER, "",
        "## Training data", "", f"Split `{split}`, {len(cases)} scans:", "",
        "| scan | source | licence |", "|---|---|---|",
        *(f"| {c.id} | {c.record.source} | {c.record.licence or 'unknown'} |" for c in cases),
        "", "## Recipe", "", "```yaml", recipe.to_yaml().rstrip(), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)
