"""Which models are compared, as they are written on a command line."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from voxray.errors import InputError
from voxray.evaluation.results import is_plain_mean
from voxray.evaluation.run import Contender

# A setting begins after a colon, as in `dvg-net:config.consistency.final=false`; any other colon is of a path or value.
_SETTING = re.compile(r":(?=[A-Za-z_][\w.]*=)")
_UPSAMPLE = "upsample="


@dataclass(frozen=True)
class ModelSpec:
    """A model and the settings that are changed in it.

    Attributes:
        model: name or folder.
        overrides: settings of its recipe, as `config.sampler.steps=20`; and `upsample=OTHER` for another model that
            brings its results onto finer voxels.
    """

    model: str
    overrides: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Read `MODEL`, or `MODEL:KEY=VALUE` with as many settings as wanted.

        Raises:
            InputError: if there is no model before the first setting.
        """
        model, *overrides = _SETTING.split(text)
        if not model:
            raise InputError(f"{text!r} names no model: write MODEL, or MODEL:KEY=VALUE with settings to change.")
        return cls(model, tuple(overrides))

    @property
    def settings(self) -> tuple[str, ...]:
        """Return the settings of the recipe alone."""
        return tuple(override for override in self.overrides if not override.startswith(_UPSAMPLE))

    @property
    def upsampled(self) -> tuple[str, ...]:
        """Return the model that brings results onto finer voxels, or none.

        Raises:
            InputError: if several are named.
        """
        found = tuple(o.removeprefix(_UPSAMPLE) for o in self.overrides if o.startswith(_UPSAMPLE))
        if len(found) > 1:
            raise InputError(f"{self.model!r} is to be upsampled by {' and by '.join(found)}: name one.")
        return found

    def label(self, name: str) -> str:
        """Return what the model is called in tables: its name, and the settings without `config.` before them."""
        finer = (f"{_UPSAMPLE}{Path(model).name}" for model in self.upsampled)
        return " ".join([name, *(setting.removeprefix("config.") for setting in self.settings), *finer])


def check_labels(contenders: Iterable[Contender]) -> None:
    """Check that no two models go by the same name.

    Raises:
        InputError: if they do, or one is called like a plain mean.
    """
    counts = Counter(contender.label for contender in contenders)
    twice = [label for label, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"Two models are called {twice[0]!r}: rename the folder of one, or name each only once.")
    for label in filter(is_plain_mean, counts):
        raise InputError(f"A model called {label!r} cannot be told from a plain mean volume: rename its folder.")
