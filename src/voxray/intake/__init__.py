"""From X-rays as hospitals export them to line integrals of a chest, and how far the result can be trusted."""

from voxray.intake.calibrate import tissue_factor
from voxray.intake.findings import Finding, NoChestError, refuse_others
from voxray.intake.judge import judge
from voxray.intake.take_in import Intake, can_take_in, take_in

__all__ = ["Finding", "Intake", "NoChestError", "can_take_in", "judge", "refuse_others", "take_in", "tissue_factor"]
