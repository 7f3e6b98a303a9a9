"""The page: results, curves, images, errors, gradients, and what was run, each a section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from mult.draw.html import Html, join, tag
from mult.evaluation.compare import Comparison
from mult.report.curves import render_training
from mult.report.diagnostics import render_errors, render_gradients, render_reference
from mult.report.examples import GalleryEntry
from mult.report.gallery import render_gallery
from mult.report.read import RunRecord
from mult.report.results import render_results


def render_page(
    runs: Sequence[RunRecord],
    stem: str | None,
    entries: Sequence[GalleryEntry] | str,
    comparisons: Mapping[str, Comparison] = MappingProxyType({}),
    note: str = "",
) -> str:
    """One self-contained HTML page of one run, or of several side by side.

    stem: the evaluation whose errors and images are shown (see `choose_evaluation`). entries: its images, or why there are
    none. comparisons: by the evaluation's stem, of rows named by the runs' folders. note: a text above the results. The same
    arguments give the same bytes.
    """
    title = "mult: " + ", ".join(run.name for run in runs)
    sections = {
        "Results": render_results(runs, comparisons, note),
        "Training": render_training(runs),
        "Images": render_gallery(runs, stem, entries),
        "Errors": render_errors(runs, stem),
        "Gradients": render_gradients(runs),
        "Reference": render_reference(runs),
        "What was run": join(*map(_render_provenance, runs)),
    }
    sections = {name: content for name, content in sections.items() if content}
    links = [tag("a", name, href=f"#{_to_anchor(name)}") for name in sections]
    body = [tag("header", tag("h1", title), tag("nav", *links, aria_label="sections"))]
    body += [tag("section", tag("h2", name), content, id=_to_anchor(name)) for name, content in sections.items()]
    viewport = tag("meta", name="viewport", content="width=device-width, initial-scale=1")
    head = tag("head", tag("meta", charset="utf-8"), viewport, tag("title", title), tag("style", _read_style()))
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", tag("main", *body)), lang="en") + "\n"


def _to_anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


@cache
def _read_style() -> Html:
    return Html(files("mult.report").joinpath("style.css").read_text(encoding="utf-8"))


def _render_provenance(run: RunRecord) -> Html:
    provenance = json.dumps(run.provenance, indent=2, ensure_ascii=False)
    return join(
        tag("h3", run.name),
        tag("details", tag("summary", "config"), tag("pre", run.config, tabindex="0")),
        tag("details", tag("summary", "provenance"), tag("pre", provenance, tabindex="0")),
    )
