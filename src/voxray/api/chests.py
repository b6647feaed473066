"""What `reconstruct` does with X-rays of chests: from grey values to line integrals, and a verdict in the end."""

from voxray.images import Radiograph
from voxray.images.quality import Quality
from voxray.images.xray import ReadOptions
from voxray.intake import Intake, can_take_in, judge, refuse_others, take_in
from voxray.methods.base import Estimate
from voxray.models import LoadedModel


def is_for_chests(model: LoadedModel) -> bool:
    """Tell whether a model was made for chests."""
    return "CHEST" in model.info.recipe.body_parts


def taken_in(radiograph: Radiograph, model: LoadedModel, options: ReadOptions) -> Intake | None:
    """Return grey values as a model of chests takes them; None for other X-rays or models.

    Args:
        radiograph: as it was read.
        model: of any body part.
        options: whether to take also what does not look like a chest, and whether to align.

    Raises:
        NoChestError: if an X-ray shows something else.
    """
    if not is_for_chests(model) or not can_take_in(radiograph):
        return None
    intake = take_in(radiograph, model.method.grid, aligned=options.align)
    if not options.force_chest:
        files = [origin.path.name for origin in radiograph.origins] or list(radiograph.views.names)
        refuse_others(intake.findings, files)
    return intake


def judged(xrays: Radiograph, estimate: Estimate, model: LoadedModel, intake: Intake | None) -> Quality | None:
    """Return the verdict on a result, or None where the model is not one of chests.

    Args:
        xrays: as the model saw them.
        estimate: the result.
        model: that it came from.
        intake: where the X-rays were grey values.
    """
    if not is_for_chests(model):
        return None
    return judge(xrays, estimate.volume, estimate.reprojections, intake.findings if intake is not None else ())
