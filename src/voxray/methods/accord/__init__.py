"""Accord, voxray's own method: what networks learned of chests, in agreement with the X-rays."""

from voxray.methods.accord.method import Accord

__all__ = ["Accord"]
