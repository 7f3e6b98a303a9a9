"""Taskonomy's trees: the reader, its index of files, and the writer that gives our own views the same layout."""

from mult.data.taskonomy.dataset import Taskonomy

__all__ = ["Taskonomy"]
