"""The images of a page: the best, median and worst of each task, to be looked at side by side or one over the other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from mult.draw.html import Html, join, tag
from mult.report.examples import GalleryEntry, Picture, draw_legend
from mult.report.read import RunRecord
from mult.tasks import TASKS

VIEWS = {
    "beside": "all side by side",
    "prediction": "prediction",
    "truth": "truth",
    "error": "error",
    "input": "input",
}
"""What the buttons of the gallery choose from; the style sheet has a rule for each."""


def render_gallery(runs: Sequence[RunRecord], stem: str | None, entries: Sequence[GalleryEntry] | str) -> Html:
    """The entries by task, under buttons that choose what is shown; a text, why there are none, stands in their place."""
    if isinstance(entries, str):
        return tag("p", entries)
    if not entries:
        return Html("")
    buttons = [
        tag("label", tag("input", type="radio", name="view", id=f"view-{view}", checked=view == "beside"), f" {text}")
        for view, text in VIEWS.items()
    ]
    hint = "With one at a time, point at an image, or move to it with the tab key, to see the truth."
    choice = tag("fieldset", tag("legend", "Show"), *buttons, tag("span", hint, class_="hint"))
    ranking = f"Ranked by the metric of each image alone, of {runs[0].name}, {stem}." if stem else ""
    evaluation = next((run.evaluations[stem] for run in runs if stem in run.evaluations), None) if stem else None
    parts = [tag("p", ranking), choice]
    for task in TASKS:
        figures = [_render_entry(runs, entry) for entry in entries if entry.view.task == task]
        if figures:
            classes = None if evaluation is None else evaluation.classes(task)
            swatches = [
                tag("span", _render_image(png, "image/png", "", 16 if len(png) < 400 else 28), f" {text}")
                for png, text in draw_legend(task, classes)
            ]
            key = tag("p", *swatches, class_="key") if swatches else Html("")
            parts += [tag("h3", task), key, tag("div", *figures, class_="gallery")]
    return tag("div", *parts, class_="examples")


def _render_entry(runs: Sequence[RunRecord], entry: GalleryEntry) -> Html:
    view, has_several = entry.view, len(runs) > 1
    unit = f" {view.unit}" if view.unit else ""
    values = [
        f"{run.name} {value:.4g}{unit}" if has_several else f"{value:.4g}{unit}"
        for run, value in zip(runs, view.values, strict=True)
    ]
    stacks = []
    for number, run in enumerate(runs):
        pictures = [_render_picture(runs, entry, picture) for picture in entry.pictures if picture.run in (None, number)]
        label = f"{view.rank} of {view.task}, {view.id}" + (f", {run.name}" if has_several else "")
        stacks.append(tag("div", *pictures, class_="stack", tabindex="0", role="group", aria_label=label))
    caption = join(tag("strong", view.rank), f" {view.metric} {', '.join(values)}", tag("br"), view.id)
    scale = join(tag("br"), entry.scale) if entry.scale else Html("")
    return tag("figure", *stacks, tag("figcaption", caption, scale))


def _render_picture(runs: Sequence[RunRecord], entry: GalleryEntry, picture: Picture) -> Html:
    of_run = f" of {runs[picture.run].name}" if picture.run is not None and len(runs) > 1 else ""
    alt = f"{picture.kind}{of_run}: {entry.view.task} of {entry.view.id}"
    return tag(
        "div",
        _render_image(picture.jpeg, "image/jpeg", alt, *picture.size),
        tag("span", picture.kind + of_run, class_="what", aria_hidden="true"),
        class_=f"picture {picture.kind}",
    )


def _render_image(content: bytes, kind: str, alt: str, width: int, height: int | None = None) -> Html:
    source = f"data:{kind};base64,{b64encode(content).decode()}"
    return tag("img", src=source, alt=alt, width=str(width), height=str(height or width), loading="lazy", decoding="async")
