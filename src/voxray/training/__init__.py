"""Training: the stages of a method, one after another, into the folder of a run."""

from voxray.training.options import TrainOptions
from voxray.training.run import TrainSummary, train_recipe

__all__ = ["TrainOptions", "TrainSummary", "train_recipe"]
