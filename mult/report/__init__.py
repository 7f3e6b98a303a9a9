"""A run, or several side by side, as one HTML page that needs nothing else: no network, no other file, no script."""

from mult.report.examples import Example, Shown, choose, draw_prediction, draw_truth, image_values
from mult.report.page import page
from mult.report.read import RunRecord, default_evaluation, read_run

__all__ = [
    "Example",
    "RunRecord",
    "Shown",
    "choose",
    "default_evaluation",
    "draw_prediction",
    "draw_truth",
    "image_values",
    "page",
    "read_run",
]
