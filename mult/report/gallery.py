"""The images of a page: the best, median and worst of each task, to be looked at side by side or one over the other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from mult.draw.html import Html, join, tag
from mult.report.examples import Example, Shown, legend
from mult.report.read import RunRecord
from mult.tasks import TASKS

VIEWS = {
    "beside": "all side by side",
    "prediction": "prediction",
    "truth": "truth",
    "error": "error",
    "input": "input",
}
"""What the buttons of the gallery choose; the style sheet has a rule for each."""


def gallery_section(runs: Sequence[RunRecord], stem: str | None, examples: Sequence[Example] | str) -> Html:
    if isinstance(examples, str):
        return tag("p", examples)
    if not examples:
        return Html("")
    buttons = [
        tag("label", tag("input", type="radio", name="view", id=f"view-{view}", checked=view == "beside"), f" {text}")
        for view, text in VIEWS.items()
    ]
    hint = "With one at a time, point at an image, or move to it with the tab key, to see the truth."
    choice = tag("fieldset", tag("legend", "Show"), *buttons, tag("span", hint, class_="hint"))
    ranked = f"Ranked by the metric of each image alone, of {runs[0].name}, {stem}." if stem else ""
    parts = [tag("p", ranked), choice]
    for task in (task for task in TASKS if any(example.task == task for example in examples)):
        own = [example for example in examples if example.task == task]
        classes = next((run.columns[str(stem)].get(f"total/{task}/classes") for run in runs if stem in run.columns), None)
        swatches = [
            tag("span", _image(png, "image/png", "", 16 if len(png) < 400 else 28), f" {text}")
            for png, text in legend(task, None if classes is None else classes.tolist())
        ]
        key = tag("p", *swatches, class_="key") if swatches else Html("")
        parts += [tag("h3", task), key, tag("div", *(_example(runs, example) for example in own), class_="gallery")]
    return tag("div", *parts, class_="examples")


def _example(runs: Sequence[RunRecord], example: Example) -> Html:
    several = len(runs) > 1
    amount = f" {example.unit}" if example.unit else ""
    values = [
        f"{run.name} {value:.4g}{amount}" if several else f"{value:.4g}{amount}"
        for run, value in zip(runs, example.values, strict=True)
    ]
    cells = []
    for number in range(len(runs)):
        shown = [_picture(runs, example, picture) for picture in example.pictures if picture.run in (None, number)]
        told = f"{example.rank} of {example.task}, {example.id}" + (f", {runs[number].name}" if several else "")
        cells.append(tag("div", *shown, class_="stack", tabindex="0", role="group", aria_label=told))
    said = join(tag("strong", example.rank), f" {example.metric} {', '.join(values)}", tag("br"), example.id)
    scale = join(tag("br"), example.scale) if example.scale else Html("")
    return tag("figure", *cells, tag("figcaption", said, scale))


def _picture(runs: Sequence[RunRecord], example: Example, picture: Shown) -> Html:
    whose = f" of {runs[picture.run].name}" if picture.run is not None and len(runs) > 1 else ""
    alt = f"{picture.kind}{whose}: {example.task} of {example.id}"
    return tag(
        "div",
        _image(picture.jpeg, "image/jpeg", alt, *picture.size),
        tag("span", picture.kind + whose, class_="what", aria_hidden="true"),
        class_=f"picture {picture.kind}",
    )


def _image(content: bytes, kind: str, alt: str, width: int, height: int | None = None) -> Html:
    source = f"data:{kind};base64,{b64encode(content).decode()}"
    return tag("img", src=source, alt=alt, width=str(width), height=str(height or width), loading="lazy", decoding="async")
