"""The parts of a recipe: the grid of the result, the data to train on, and how to train."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from voxray.data.dataset import MixedViews, RandomViews
from voxray.errors import GeometryError
from voxray.geometry import ViewGeometry
from voxray.geometry.presets import setup_named


class Strict(BaseModel):
    """Base of every section: unknown keys and other types are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# At most 1024: a volume of 4 GB, far beyond what an X-ray can tell; ours.
_Side = Annotated[int, Field(ge=8, le=1024)]
# At most 64: the published studies end at 20 views; ours.
_Count = Annotated[int, Field(ge=1, le=64)]
_Range = tuple[float, float]


def _as_range(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


class GridRecipe(Strict):
    """The grid of the result, about the isocentre; within the limits of `PrepareOptions`."""

    shape: tuple[_Side, _Side, _Side] = Field(default=(128, 128, 128), strict=False, description="voxels along z, y, x")
    spacing_mm: float = Field(default=2.5, ge=0.1, le=20, description="side of a voxel")


class ViewsRecipe(Strict):
    """One choice of views: by `names`, a random `count`, or evenly on a circle (`circular`)."""

    names: tuple[str, ...] | None = Field(
        default=None, strict=False, min_length=1, description="as in `ViewGeometry.from_names`: pa, lateral, '45', ..."
    )
    count: Annotated[tuple[_Count, _Count], BeforeValidator(_as_range), Field(strict=False)] | None = Field(
        default=None, description="so many views at random angles; a range for a new number every time"
    )
    circular: _Count | None = Field(default=None, description="so many views, spread evenly over the primary range")
    primary_deg: Annotated[_Range, Field(strict=False)] | None = Field(
        default=None, description="range of the primary angle; null: -180 to 180, of views on a circle 0 to 180"
    )
    secondary_deg: _Range = Field(
        default=(0.0, 0.0), strict=False, description="range of the secondary angle of random views"
    )
    setup: str = Field(default="chest", description="preset of the geometry")
    share: float = Field(default=1.0, gt=0, description="how often this choice is drawn, beside the others")

    @model_validator(mode="after")
    def _makes_sense(self) -> "ViewsRecipe":
        if sum(way is not None for way in (self.names, self.count, self.circular)) != 1:
            raise ValueError("a choice of views has exactly one of names, count and circular")
        if self.count is not None and self.count[0] > self.count[1]:
            raise ValueError(f"the range of count ends before it begins: {list(self.count)}")
        try:
            setup_named(self.setup)
            self.build()
        except GeometryError as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> ViewGeometry | RandomViews:
        """Return the views, about the origin."""
        if self.names is not None:
            return ViewGeometry.from_names(self.names, setup=self.setup)
        if self.circular is not None:
            start, end = self.primary_deg or (0.0, 180.0)
            return ViewGeometry.circular(self.circular, end - start, start, setup=self.setup)
        assert self.count is not None
        return RandomViews(self.count, self.primary_deg or (-180.0, 180.0), self.secondary_deg, self.setup)


class DataRecipe(Strict):
    """What a learned method is trained on; methods that are fitted in one go do not use it."""

    views: tuple[ViewsRecipe, ...] = Field(
        default=(ViewsRecipe(names=("pa", "lateral")),), strict=False, min_length=1, description="drawn for each sample"
    )
    closed: float = Field(
        default=0.3, ge=0, le=1, description="share of the samples whose X-rays are projected from the cube alone"
    )
    estimated: float = Field(
        default=0.0, ge=0, le=1,
        description="share of the samples whose line integrals are as estimated from radiographs (`Randomisation`)",
    )  # fmt: skip
    augment: bool = Field(default=True, description="vary the patients (`AugmentOptions`)")
    shape: float = Field(
        default=0.0, ge=0, le=1,
        description="bring patients up to this part of the way to the shape of another one (`ShapeModel`; half a "
        "second a case when training begins); 0 for not at all",
    )  # fmt: skip
    mixed: float = Field(
        default=0.0, ge=0, le=1,
        description="chance that parts of another patient, in the same shape, take the place of a patient's own (needs "
        "`shape`)",
    )  # fmt: skip
    phantoms: int = Field(default=0, ge=0, description="random thoraxes in every epoch, beside the cases")
    photons: float | None = Field(default=None, gt=0, description="a pixel, for Poisson noise; null for none")
    variants: int = Field(
        default=40, ge=0, description="epochs that differ and are kept on disk, then come again; 0: all are new"
    )
    seed: int = Field(default=0, ge=0, description="of the samples; that of the training is another")

    @model_validator(mode="after")
    def _mixed_in_one_shape(self) -> "DataRecipe":
        if self.mixed and not (self.shape and self.augment):
            raise ValueError("patients are mixed (`mixed`) in one shape: it needs `augment`, and `shape` above 0")
        return self

    def mixed_views(self) -> MixedViews:
        """Return what draws the views of a sample."""
        return MixedViews(tuple(choice.build() for choice in self.views), tuple(choice.share for choice in self.views))


class TrainingRecipe(Strict):
    """How the networks of a learned method are trained, beside the options of its stages."""

    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="of the networks' arithmetic; weights are kept in fp32 either way"
    )
    seed: int = Field(default=0, ge=0, description="of first weights, order of the samples, and noise")
