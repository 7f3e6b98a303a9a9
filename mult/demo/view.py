"""What the page shows, as HTML: the maps that each model makes of a photograph, their values at a point, and its attention.

A photograph is predicted once; a point is read from what was predicted.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.data.disk.images import read_photograph
from mult.draw import TokenAttention, draw_attention_page, overlay
from mult.draw.colours import Limits, to_photo
from mult.draw.grid import Grid, render_html
from mult.draw.html import Html, join, tag
from mult.models.attention_maps import AttentionMap
from mult.predict import Maps, Predictor, attend, describe_source
from mult.tasks import TASKS, Task

LARGEST = 1600
"""The longer side of a picture on the page, in pixels: beyond it, drawing and sending take longer than predicting."""
HEADS = {1: 4, 2: 2}
"""Number of models -> of how many heads the attention is drawn, besides the mean, so that pages fit beside each other."""


@dataclass(frozen=True)
class Model:
    """A predictor and the path that it was loaded from."""

    path: str
    predictor: Predictor


@dataclass(frozen=True)
class View:
    """A photograph, RGB and upright; the maps that each model makes of it; its attention maps, none of a model without.

    step: pictures show every step-th pixel along each side. pixels: the photograph that small, (3, H, W) in [0, 1].
    """

    photograph: Image.Image
    maps: Sequence[Maps]
    attention: Sequence[Sequence[AttentionMap]]
    step: int
    pixels: NDArray[np.float32]


def look(models: Sequence[Model], path: Path) -> View:
    """Predict a photograph with every model. UserError where it cannot be read, or is too narrow."""
    photograph = read_photograph(path)
    predictors = [model.predictor for model in models]
    for predictor in predictors:
        predictor.input_size(photograph)
    maps = [predictor(photograph) for predictor in predictors]
    attention = [predictor.attention(photograph) if predictor.map_owners() else [] for predictor in predictors]
    step = -(-max(photograph.size) // LARGEST)
    pixels = np.asarray(photograph.reduce(step), np.float32).transpose(2, 0, 1) / 255
    return View(photograph, maps, attention, step, pixels)


def list_tasks(models: Sequence[Model]) -> list[Task]:
    """The tasks that any of the models has, in the order of TASKS."""
    return [task for name, task in TASKS.items() if any(name in model.predictor.tasks for model in models)]


# --- The maps ---


def render_maps(models: Sequence[Model], view: View) -> Html:
    """The photograph and every map, with its colour bar or legend; of a task, all models have the same colours."""
    photograph = _encode(to_photo(view.pixels))
    figures = [tag("div", _render_figure(Html(""), "photograph", photograph, Html("")), class_="task")]
    figures += [_render_task(task, models, view) for task in list_tasks(models)]
    switch = tag("label", tag("input", type="checkbox"), " at the photograph's own size", class_="switch")
    width = f"--width:{view.photograph.width}px"
    return join(switch, tag("div", *figures, class_="maps pairs" if len(models) > 1 else "maps", style=width))


def _render_task(task: Task, models: Sequence[Model], view: View) -> Html:
    colours = task.colours
    shown = [maps[task.name][..., :: view.step, :: view.step] if task.name in maps else None for maps in view.maps]
    limits = colours.limits(np.concatenate([values for values in shown if values is not None], axis=-1), None)
    figures = []
    for letter, model, values in zip(letter_models(models), models, shown, strict=True):
        if values is None:
            figures.append(tag("p", letter, f"does not predict {to_words(task.name)}", class_="hint"))
            continue
        painted = colours.paint(values, None, limits)
        if task.categorical:
            painted = overlay(view.pixels, painted)
        key = _render_bar(task, limits) if limits else _render_legend(task, model.predictor, values)
        figures.append(_render_figure(letter, to_words(task.name), _encode(Image.fromarray(painted)), key))
    return tag("div", *figures, class_="task")


def _render_figure(letter: Html, title: str, source: str, key: Html) -> Html:
    picture = tag("div", tag("img", src=source, alt=title, draggable="false"), class_="map")
    return tag("figure", tag("figcaption", letter, title), picture, key)


def _render_bar(task: Task, limits: Limits) -> Html:
    """The colours between the two limits, with the unit."""
    ramp = Image.fromarray(task.colours.paint(np.linspace(*limits, 256)[None], None, limits))
    low, high = f"{limits[0]:.3g}", f"{limits[1]:.3g} {task.unit}"
    return tag("div", tag("span", low), tag("img", src=_encode(ramp), alt=""), tag("span", high), class_="bar")


def _render_legend(task: Task, predictor: Predictor, values: NDArray[Any]) -> Html:
    keys = task.colours.keys([values], predictor.classes.get(task.name))
    entries = []
    for swatch, text in keys:  # one of 16 pixels is as high as the text
        picture = tag("img", src=_encode(Image.fromarray(swatch)), alt="", style=f"height:{len(swatch) / 16:g}em")
        entries.append(tag("span", picture, text))
    return tag("div", *entries, class_="key")


def _encode(picture: Image.Image) -> str:
    """A picture as the address of an image."""
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


# --- A point ---


def render_values(models: Sequence[Model], view: View, x: int, y: int) -> Html:
    """What each model predicts at pixel (x, y), a row a task; of two models also by how much they differ."""
    heads = ["", *({1: ["value"], 2: ["A", "B", "difference"]}[len(models)]), "unit"]
    rows = [[to_words(task.name), *_read_point(task, models, view, x, y), task.unit] for task in list_tasks(models)]
    width, height = view.photograph.size
    return render_html(Grid(heads, rows), f"at ({x}, {y}) of {width} x {height}")


def render_mark(view: View, x: int, y: int) -> Html:
    """What puts the ring of the pictures around pixel (x, y)."""
    width, height = view.photograph.size
    return tag("style", Html(f":root{{--x:{100 * (x + 0.5) / width:.3f}%;--y:{100 * (y + 0.5) / height:.3f}%}}"))


def _read_point(task: Task, models: Sequence[Model], view: View, x: int, y: int) -> list[str]:
    """The text of each model's value and, of two models, of the difference, with a unit where that is not the task's."""
    values = [maps[task.name][..., y, x] if task.name in maps else None for maps in view.maps]
    classes = [model.predictor.classes.get(task.name, []) for model in models]
    texts = ["—" if value is None else _format_value(task, value, names) for value, names in zip(values, classes, strict=True)]
    if len(values) == 1:
        return texts
    first, second = values
    if first is None or second is None:
        return [*texts, "—"]
    if task.categorical:  # by name: the two may number their classes differently
        return [*texts, "same" if texts[0] == texts[1] else "differs"]
    error = task.colours.error(second[..., None, None], first[..., None, None]).item()
    return [*texts, f"{error:.3g} {task.colours.error_unit or ''}".strip()]


def _format_value(task: Task, value: NDArray[Any], classes: Sequence[str]) -> str:
    """The prediction at one pixel, a class id () or (C,) in the task's unit; of a class its name."""
    if task.categorical:
        return dict(enumerate(classes)).get(int(value), f"class {value}")
    if len(value) == 1:
        return f"{value.item():.4g}"
    return ", ".join(f"{number:+.3f}" for number in value)


def render_attention(models: Sequence[Model], view: View, task: str, x: int, y: int) -> Html:
    """What pixel (x, y) attends to in every decoder stage of every model, in the maps that the task uses."""
    width, height = view.photograph.size
    point = ((x + 0.5) / width, (y + 0.5) / height)
    sections = []
    for letter, model, attention in zip(letter_models(models), models, view.attention, strict=True):
        predictor = model.predictor
        stages_of = attend(attention, predictor.input_size(view.photograph), point, predictor.model.reference_shares())
        heading = tag("h3", letter, model.path) if letter else Html("")
        title = f"What ({x}, {y}) attends to"
        sections.append(tag("section", heading, _render_stages(model, view, stages_of, task, title, HEADS[len(models)])))
    return tag("div", *sections, class_="attention")


def _render_stages(
    model: Model, view: View, stages_of: Mapping[str, Sequence[TokenAttention]], task: str, title: str, heads: int
) -> Html:
    if not stages_of:
        decoder = model.predictor.model.arguments["decoder"]
        return tag("p", f"No attention to show: the model has none (decoder {decoder}).", class_="hint")
    owner = next(iter(stages_of)) if len(stages_of) == 1 else task
    if owner not in stages_of:
        return tag("p", f"No attention to show: the model does not predict {to_words(task)}.", class_="hint")
    title = f"{title}: {describe_source(owner, list(stages_of), model.predictor.model.reference_shares())}"
    page = draw_attention_page(view.pixels, title, stages_of[owner], limit=heads)
    return tag("img", src=_encode(page), alt=f"attention of {model.path}")


def to_words(task: str) -> str:
    """A task's name for people."""
    return task.replace("_", " ")


def letter_models(models: Sequence[Model]) -> list[Html]:
    """The marks of A and B for two models, nothing for one."""
    return [tag("b", letter, class_="letter") for letter in "AB"] if len(models) == 2 else [Html("")]
