"""A first model card: what is known without measuring."""

from collections.abc import Sequence
from pathlib import Path

from voxray.data.store import CaseRecord
from voxray.images.disclaimer import DISCLAIMER
from voxray.images.report import hashed_name
from voxray.recipes import Recipe


def model_card(recipe: Recipe, records: Sequence[CaseRecord], split: str) -> str:
    """Write the card of a trained model.

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
