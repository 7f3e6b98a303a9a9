"""Metrics of a model on a split, their intervals, and what may be compared with what (README.md beside this file)."""
