"""A first model card: what is known without measuring."""

from collections.abc import Sequence
from pathlib import Path

from voxray.data.store import CaseRecord
from voxray.images.disclaimer import DISCLAIMER
from voxray.images.report import hashed_name
from voxray.recipes import Recipe


def model_card(recipe: Recipe, records: Sequence[CaseRecord], split: str, radiographs: Sequence[str] = ()) -> str:
    """Write the card of a trained model.

    A model is made to be handed on, so scans and their files are named by hashes alone: both may name a patient.
    Of radiographs, there are hashes of their content.
    """
    told = [f"And {len(radiographs)} radiographs, by the first 16 digits of their files' SHA-256:", "",
            ", ".join(sha256[:16] for sha256 in radiographs), ""]  # fmt: skip
    lines = [
        f"# {recipe.name}", "", recipe.description, "", DISCLAIMER, "",
        "## Training data", "", f"Split `{split}`, {len(records)} scans:", "",
        "Names are given as the first 16 digits of their SHA-256.", "",
        "| scan | source | licence |", "|---|---|---|",
        *(
            f"| {hashed_name(Path(record.id))} | {hashed_name(Path(record.source))} | {record.licence or 'unknown'} |"
            for record in records
        ),
        "", *(told if radiographs else []), "The recipe is in recipe.yaml.", "",
    ]  # fmt: skip
    return "\n".join(lines)
