"""A run, or several side by side, as one HTML page that needs nothing else: no network, no other file, no script."""

from mult.report.examples import GalleryEntry, Picture, RankedView
from mult.report.page import render_page
from mult.report.read import RunRecord, choose_evaluation, read_run

__all__ = ["GalleryEntry", "Picture", "RankedView", "RunRecord", "choose_evaluation", "read_run", "render_page"]
