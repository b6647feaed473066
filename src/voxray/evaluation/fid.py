"""FID, the Fréchet inception distance of two sets of images (Heusel et al. 2017, arXiv 1706.08500, equation 6).

The sets are the slices of all reconstructions of a group and those of their truths, in unit range. Each axis has a
figure, and the headline is the mean of the three, as in MAISI (Guo et al. 2024, arXiv 2409.11169). It says whether
slices look like those of a CT, not whether they are this patient's: no case has an FID.

Features are kept as float16, 1.6 MB for a volume of 128^3, so that an evaluation goes on where it was stopped. The
weights are a file that the user has (`inception`), in the folder that `VOXRAY_LPIPS` names.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from voxray.errors import CheckpointError, InputError
from voxray.evaluation.csv_text import csv_text
from voxray.evaluation.folder import FID, ResultsFolder
from voxray.evaluation.inception import Inception, inception_features
from voxray.evaluation.lpips import FOLDER_VARIABLE
from voxray.evaluation.planes import NAMES
from voxray.evaluation.results import Group, Row
from voxray.images import CTVolume
from voxray.images.atomic import atomic_path, write_text_atomic
from voxray.images.reading import reading
from voxray.images.weights_file import read_weights
from voxray.physics.attenuation import to_unit_range

NAME = "fid"  # as it is asked for

# Fewer volumes of 128^3 give fewer than 6400 slices an axis for a covariance of 2048 features, and an FID that is far
# too high (the number is ours; Heusel et al. advise 10,000 images).
FEWEST_CASES = 50
BATCH = 16  # slices at once: 1 GB at 299 x 299 pixels

# Name -> whether it is TensorFlow's network, in the order in which they are looked for.
_WEIGHTS = {"pt_inception-2015-12-05": True, "inception_v3_google": False}
_COLUMNS = ("protocol", "views", "model", "cases", *(f"fid_{name}" for name in NAMES), "fid", "weights")


# ---------------------------------------------------------------- two sets of features


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, sum, and sum of outer products of features: what a set is known by; two of them add up.

    Attributes:
        count: images.
        total, products: float64.
    """

    count: int
    total: Float[Tensor, " d"]
    products: Float[Tensor, "d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "Moments":
        """Return those of some images."""
        x = features.double()
        return cls(len(x), x.sum(0), x.T @ x)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the features."""
        return self.total / self.count

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Their covariance, with n - 1."""
        return (self.products - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return `|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2))` of Gaussians with these means and covariances.

    With `A = R R^T`, the eigenvalues of `A B` are those of `R^T B R`, which is symmetric: they are real and not
    negative where covariances are singular, too, as those of features that are always 0. A general square root of
    `A B` (`scipy.linalg.sqrtm`) is complex or not finite there.
    """
    first, second = a.covariance, b.covariance
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt()
    inner = torch.linalg.eigvalsh(root.T @ second @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + first.trace() + second.trace() - 2 * inner
    return max(float(distance), 0.0)


# ---------------------------------------------------------------- weights


def checked_weights(metrics: Sequence[str], cases: int, folder: Path | None) -> Path | None:
    """Return the file of weights where FID is asked for, None where it is not.

    Args:
        metrics: names, as they are asked for.
        cases: how many there are.
        folder: of the results; None where they are not kept.

    Raises:
        InputError: if there are too few cases, no folder, or no weights.
    """
    if NAME not in metrics:
        return None
    if cases < FEWEST_CASES:
        raise InputError(
            f"FID of fewer than {FEWEST_CASES} cases is far too high and says nothing, and there are {cases}: leave "
            "fid out of the metrics, or take more cases (--split all)."
        )
    if folder is None:
        raise InputError(
            "FID is of all cases together, and needs a folder for what it knows of each: give one (--out)."
        )
    return find_weights()


def find_weights() -> Path:
    """Return the file of weights in the folder of `VOXRAY_LPIPS`; TensorFlow's, where it has both.

    Raises:
        InputError: if there is none.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    found = (file for name in _WEIGHTS for file in sorted(Path(named).glob(f"{name}*"))) if named else ()
    files = [file for file in found if file.suffix in (".pth", ".safetensors") and file.is_file()]
    if not files:
        where = f"the folder {named!r} has none" if named else f"{FOLDER_VARIABLE} names no folder"
        raise InputError(
            f"FID needs weights, and {where}: put pt_inception-2015-12-05-6726825d.pth of pytorch-fid or "
            f"inception_v3_google-0cc3c7bd.pth of torchvision into a folder, and name it in {FOLDER_VARIABLE}."
        )
    return files[0]


def weights_name(file: Path) -> str:
    """Return what the weights of a file are called."""
    return next(name for name in _WEIGHTS if file.name.startswith(name))


@lru_cache(maxsize=1)
def load_inception(file: Path, device: torch.device) -> Inception:
    """Return the network with the weights of a file.

    Raises:
        CheckpointError: if it is damaged, or another network's.
    """
    with torch.device("meta"):  # no weights are drawn
        model = Inception(ported=_WEIGHTS[weights_name(file)])
    weights, expected = read_weights(file), model.state_dict()
    counters = {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}  # not in all files
    weights = counters | weights
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    if wrong:
        raise CheckpointError(
            f"{str(file)!r} does not hold InceptionV3: missing or of another shape are {', '.join(wrong[:10])}."
        )
    model.load_state_dict({name: weights[name] for name in expected}, assign=True)
    return model.requires_grad_(False).float().eval().to(device)


# ---------------------------------------------------------------- of volumes


@dataclass(frozen=True, eq=False)
class Keeper:
    """Keeps the features of reconstructions and of their truths in a folder of results.

    Attributes:
        results: the folder.
        weights: file of the network.
    """

    results: ResultsFolder
    weights: Path

    def __call__(self, row: Row, volume: CTVolume, truth: CTVolume, device: torch.device) -> None:
        """Keep those of a reconstruction; those of its truth are kept once for all models.

        Raises:
            CheckpointError: if the weights cannot be used.
        """
        model = load_inception(self.weights, device)
        for path, shown in zip(self.results.features(row), (volume, truth), strict=True):
            if shown is truth and path.is_file():
                continue
            with atomic_path(path) as temporary:
                temporary.write_bytes(save(volume_features(model, shown.hu)))


def volume_features(model: Inception, hu: Float[Tensor, "z y x"]) -> dict[str, Float[Tensor, "n 2048"]]:
    """Return the features of every slice of each axis, float16; HU -1024..1476 as unit range."""
    unit, device = to_unit_range(hu), next(model.parameters()).device
    return {
        name: torch.cat([
            inception_features(model, slices.to(device)).half().cpu() for slices in unit.movedim(axis, 0).split(BATCH)
        ])
        for axis, name in enumerate(NAMES)
    }  # fmt: skip


# ---------------------------------------------------------------- of an evaluation


@dataclass(frozen=True)
class FidLine:
    """The FID of a group.

    Attributes:
        group, cases: of which volumes.
        axes: of axial, coronal and sagittal slices.
        weights: name of the network's weights.
    """

    group: Group
    cases: int
    axes: tuple[float, ...]
    weights: str

    @property
    def mean(self) -> float:
        """The mean of the three axes."""
        return float(np.mean(self.axes))


def fid_lines(results: ResultsFolder) -> list[FidLine]:
    """Return the FID of every group that has features of enough cases.

    Raises:
        InputError: if a file is damaged.
    """
    found = []
    for group, rows in results.evaluation().by_group.items():
        files = [files for files in map(results.features, rows) if all(file.is_file() for file in files)]
        if len(files) < FEWEST_CASES:
            continue
        made, true = zip(*files, strict=True)
        axes = tuple(frechet_distance(_moments(made, name), _moments(true, name)) for name in NAMES)
        found.append(FidLine(group, len(files), axes, results.manifest.fid))
    return found


def _moments(files: Iterable[Path], axis: str) -> Moments:
    return reduce(Moments.__add__, (Moments.of(_read(file, axis)) for file in files))


def _read(path: Path, axis: str) -> Tensor:
    with reading(path), safe_open(path, "pt") as file:
        features: Tensor = file.get_tensor(axis)
    return features


def write_fid(results: ResultsFolder) -> None:
    """Write `fid.csv` into a folder of results, where FID was asked for."""
    if not results.manifest.fid:
        return
    rows = [
        (line.group.protocol, line.group.views, line.group.model, line.cases, *line.axes, line.mean, line.weights)
        for line in fid_lines(results)
    ]
    write_text_atomic(results.path / FID, csv_text(_COLUMNS, rows))


def read_fid(folder: Path) -> list[FidLine]:
    """Read the `fid.csv` of a folder of results; nothing where there is none.

    Raises:
        InputError: if it is damaged.
    """
    path = folder / FID
    if not path.is_file():
        return []
    with reading(path), path.open(encoding="utf-8", newline="") as file:
        return [
            FidLine(
                Group(row["protocol"], row["views"], row["model"]), int(row["cases"]),  # type: ignore[arg-type]
                tuple(float(row[f"fid_{name}"]) for name in NAMES), row["weights"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
