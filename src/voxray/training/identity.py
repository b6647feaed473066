"""What a run is: its recipe and its data; and of what its prepared items are made."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from voxray.data.store import Store
from voxray.errors import InputError, RecipeError
from voxray.images.atomic import write_text_atomic
from voxray.images.reading import reading
from voxray.methods import Method
from voxray.methods.stages import AnyStage, GradientStage, Preparation, StageOptions
from voxray.recipes import Recipe

RUN = "run.json"
_VERSION = 1
# To be raised when the same recipe and data begin to give other samples: what lies in caches is then made anew.
_SAMPLES = 3


@dataclass(frozen=True)
class Identity:
    """What must stay the same from the beginning of a run to its end; JSON values."""

    recipe: dict[str, Any]
    split: str
    cases: dict[str, str]
    real: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, store: Store, split: str, real: tuple[str, ...] = ()) -> "Identity":
        """Describe a run before it begins; `real` are hashes of the radiographs that it learns from."""
        records = {name: store.records[name] for name in store.cases(split)}
        cases = {name: _digest([r.sha256, r.options, r.isocentre_mm]) for name, r in records.items()}
        return cls(_whole(recipe), split, cases, real)

    def claim(self, run: Path, *, resume: bool, force: bool) -> bool:
        """Write what the run is into its folder; where one was begun, compare them first.

        Args:
            run: the folder.
            resume: whether a run may have been begun there.
            force: whether it may have been another one.

        Returns:
            Whether it was another one.

        Raises:
            InputError: if it may not be so, or `run` is no folder of a run.
        """
        begun = run.exists() and (not run.is_dir() or any(entry.name != RUN for entry in run.iterdir()))
        if begun and not resume:
            raise InputError(f"'{run}' exists already: go on with it (--resume), or choose another folder.")
        path, changes = run / RUN, []
        if begun:
            if not path.is_file():
                raise InputError(f"'{run}' is no folder of a training (it has no {RUN}): choose another one.")
            changes = list(_differences(_read(path), self._json()))
            if changes and not force:
                more = f"; and {len(changes) - 10} more" if len(changes) > 10 else ""
                raise InputError(
                    f"'{run}' was begun with another recipe or other data ({'; '.join(changes[:10])}{more}): go on "
                    "with those, begin a new run in another folder, or go on all the same with --force."
                )
        run.mkdir(exist_ok=True)
        write_text_atomic(path, json.dumps(self._json(), indent=1) + "\n")
        return bool(changes)

    def _json(self) -> dict[str, Any]:
        real = {"real": list(self.real)} if self.real else {}
        return {"version": _VERSION, "recipe": self.recipe, "split": self.split, "cases": self.cases, **real}


def weights_hash(method: Method) -> str:
    """Return the SHA-256 of all weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in method.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def item_hashes(
    identity: Identity, recipe: Recipe, stages: Sequence[AnyStage], weights: Sequence[str]
) -> dict[str, str]:
    """Return a hash of all that the items of each preparation depend on, by the preparation's name.

    That is the data, the method's settings (but not how its stages are trained), and the weights as they were
    before the first stage that uses the preparation: no later stage changes what it needs.

    Args:
        identity: of the run.
        recipe: of the run.
        stages: of the method.
        weights: hashes before each stage, as far as training has come.
    """
    data = recipe.data.model_dump(mode="json", exclude={"variants", "phantoms"})  # these only say how many there are
    config = _without_options(recipe.method_config())
    made_of = [_SAMPLES, identity.cases, recipe.grid.model_dump(mode="json"), data, recipe.method, config]
    hashes: dict[str, str] = {}
    for stage, before in zip(stages, weights, strict=False):
        for preparation in _chain(stage):
            hashes.setdefault(preparation.name, _digest([*made_of, preparation.name, before])[:16])
    return hashes


def _chain(stage: AnyStage) -> Iterator[Preparation]:
    preparation = stage.preparation if isinstance(stage, GradientStage) else None
    while preparation is not None:
        yield preparation
        preparation = preparation.after


def _without_options(value: Any) -> Any:
    """Return settings without how stages are trained, in JSON."""
    if isinstance(value, BaseModel):
        return {name: _without_options(part) for name, part in value if not isinstance(part, StageOptions)}
    if isinstance(value, tuple):
        return [_without_options(part) for part in value if not isinstance(part, StageOptions)]
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    with reading(path):
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            raise InputError(f"'{path}' is no description of a run of version {_VERSION}: begin a new run elsewhere.")
        with suppress(ValidationError, RecipeError):  # settings that are new since then had their defaults
            data["recipe"] = _whole(Recipe.model_validate(data["recipe"]))
        return data


def _whole(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe with all values of its method's configuration."""
    return recipe.model_dump(mode="json") | {"config": recipe.method_config().model_dump(mode="json")}


def _differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """Yield each value that differs, with its place."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif before != now:
        yield f"{where}: {_told(before)} before, {_told(now)} now"


def _told(value: Any) -> str:
    text = json.dumps(value)
    return "nothing" if value is None else text if len(text) <= 60 else f"{text[:57]}..."
