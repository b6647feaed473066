"""What tests of comparisons share: few pixels, few metrics, few iterations."""

from voxray.api import EvaluateOptions
from voxray.geometry import Setup

TINY = Setup(1800.0, 1550.0, 25.6, (16, 16))
OPTIONS = EvaluateOptions(protocols=("closed",), setup=TINY, metrics=("main", "calibration", "psnr_dvg", "ssim_dvg"))
QUICK = ":config.iterations=1:config.detail_iterations=1"
VIEWS = (["pa"], 1, 3)
