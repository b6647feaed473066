"""Training: the stages of a method, one after another, into a model folder."""

from voxray.training.run import train_recipe

__all__ = ["train_recipe"]
