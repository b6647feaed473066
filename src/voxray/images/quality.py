"""How far a result can be trusted: the part of the report that says so in plain words."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of what stands in a report: unknown keys and other types are errors, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ViewCorrection(Strict):
    """What alignment changed in one view; the geometry and the curve of the report hold it already."""

    size: float = Field(description="true size over the size that was estimated first")
    up_mm: float = Field(description="by what everything is further up")
    factor: float = Field(description="of the line integrals")
    bend: float = Field(description="b in p^(1 + b) of the line integrals p, up to a factor")


class ViewQuality(Strict):
    """What is to be said of one X-ray."""

    view: str
    correlation: float = Field(description="of the X-ray and the re-projection of the result, -1 to 1")
    likeness: float | None = Field(
        default=None, description="to the chests that the statistics were made from; of their own kind 0.8 and more"
    )
    masked: float | None = Field(default=None, description="part of the image that is border or burnt-in letters")
    curve: list[tuple[float, float]] | None = Field(
        default=None, description="display value and line integral of each point of the tone curve"
    )
    correction: ViewCorrection | None = Field(default=None, description="of what was estimated; none without alignment")


class Quality(Strict):
    """Whether a result is plausible, and what speaks against it."""

    verdict: Literal["plausible", "doubtful"]
    reasons: list[str] = Field(description="what makes it doubtful")
    views: list[ViewQuality]
    mass_agreement: float | None = Field(
        default=None, description="correlation, row by row, of the masses that frontal and lateral view show"
    )
    lungs_litres: float | None = Field(default=None, description="of the result; adults hold 2 to 8")
    heart_left: bool | None = Field(default=None, description="more of the heart is on the patient's left")
    liver_right: bool | None = Field(
        default=None, description="what is below the lungs is denser, and the diaphragm higher, on the patient's right"
    )

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        if self.verdict == "plausible":
            return "Plausible: nothing that was checked speaks against it."
        return f"Doubtful: {'; '.join(self.reasons)}."
