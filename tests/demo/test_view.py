"""What the page shows, without a browser: maps, values at a point and attention, against the predictors' own."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mult import TASKS, Predictor
from mult.demo.view import Model, look, render_attention, render_maps, render_mark, render_values
from mult.errors import UserError
from mult.models import MulT

from .conftest import BACKBONE, PLACES, SIZE, decode, draw_expected_page


def read_table(html: str) -> dict[str, list[str]]:
    """The rows of a table, by their heads."""
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", html)
    return {unescape(head): [unescape(cell) for cell in re.findall("<td>(.*?)</td>", cells)] for head, cells in rows}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?[\d.]+(?:e[-+]?\d+)?", text)]


@pytest.mark.parametrize("place", PLACES)
def test_values_are_the_predictors(models: list[Model], photograph: Path, place: tuple[int, int]) -> None:
    x, y = place
    rows = read_table(render_values(models, look(models, photograph), x, y))
    image = Image.open(photograph)
    maps = [model.predictor(image) for model in models]
    assert list(rows) == [task.replace("_", " ") for task in maps[0]]
    assert rows["segment semantic"][:2] == [
        model.predictor.classes["segment_semantic"][own["segment_semantic"][y, x]]
        for model, own in zip(models, maps, strict=True)
    ]
    for task in ("depth_zbuffer", "normal", "reshading"):
        first, second, difference, unit = rows[task.replace("_", " ")]
        a, b = (own[task][:, y, x].astype(float) for own in maps)
        np.testing.assert_allclose(numbers(first), a, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(numbers(second), b, rtol=1e-3, atol=1e-3)
        expected = np.degrees(np.arccos(np.clip(a @ b, -1, 1))) if task == "normal" else abs(a - b).item()
        np.testing.assert_allclose(numbers(difference), [expected], rtol=1e-2, atol=1e-3)
        assert unit == TASKS[task].unit
    assert rows["normal"][2].endswith(" deg")


def test_the_mark_lies_in_the_middle_of_the_pixel(models: list[Model], photograph: Path) -> None:
    html = render_mark(look(models[:1], photograph), 34, 22)
    found = re.search(r"--x:([\d.]+)%;--y:([\d.]+)%", html)
    assert found
    np.testing.assert_allclose([float(found[1]), float(found[2])], [100 * 34.5 / 70, 100 * 22.5 / 110], atol=1e-3)


def test_maps_have_the_photograph_s_size_and_both_models_one_scale(models: list[Model], photograph: Path) -> None:
    html = render_maps(models, look(models, photograph))
    pictures = re.findall(r'<div class="map"><img src="([^"]*)" alt="([^"]*)"', html)
    image = Image.open(photograph)
    maps = [model.predictor(image) for model in models]
    assert [title for _, title in pictures] == [
        "photograph",
        *(task.replace("_", " ") for task in maps[0] for _ in models),
    ]
    assert {decode(source).shape for source, _ in pictures} == {(*SIZE[::-1], 3)}
    depths = [own["depth_zbuffer"] for own in maps]
    low, high = np.percentile(np.stack(depths), (2, 98))
    for (source, _), depth in zip([p for p in pictures if p[1] == "depth zbuffer"], depths, strict=True):
        painted = TASKS["depth_zbuffer"].colours.paint(depth, None, (float(low), float(high)))
        assert np.array_equal(decode(source), painted)
    assert html.count(f"<span>{high:.3g} m</span>") == 2


def test_large_photographs_are_drawn_smaller_and_read_at_their_own_size(models: list[Model], tmp_path: Path) -> None:
    y, x = np.mgrid[0:40, 0:3300]
    Image.fromarray(np.stack([x // 13, 6 * y, 255 * (x > 900)], axis=-1).astype(np.uint8)).save(tmp_path / "wide.png")
    predictor = models[1].predictor
    one = [Model("wide", Predictor(predictor.model, (32, 640), fit="stretch"))]
    view = look(one, tmp_path / "wide.png")
    pictures = re.findall(r'<div class="map"><img src="([^"]*)"', render_maps(one, view))
    assert {decode(source).shape for source in pictures} == {(14, 1100, 3)}
    depth = one[0].predictor(Image.open(tmp_path / "wide.png"))["depth_zbuffer"]
    assert depth.shape == (1, 40, 3300)
    row = read_table(render_values(one, view, 3298, 38))["depth zbuffer"]
    np.testing.assert_allclose(float(row[0]), depth[0, 38, 3298], rtol=1e-3)


@pytest.mark.parametrize("place", PLACES)
def test_attention_is_that_of_the_point_s_token(models: list[Model], photograph: Path, place: tuple[int, int]) -> None:
    html = render_attention(models[:1], look(models[:1], photograph), "reshading", *place)
    (source,) = re.findall(r'<img src="([^"]*)"', html)
    assert np.array_equal(decode(source), draw_expected_page(models[0].predictor, photograph, *place, "normal", limit=4))


def test_a_model_without_attention_says_so(models: list[Model], photograph: Path) -> None:
    html = render_attention(models, look(models, photograph), "normal", 5, 6)
    assert html.count("<img") == 1
    assert "No attention to show: the model has none (decoder fpn)." in html


def test_independent_attention_is_shown_of_the_task(photograph: Path) -> None:
    torch.manual_seed(4)
    model = MulT({"normal": 3, "depth_zbuffer": 1}, attention="independent", window_size=4, backbone_args=BACKBONE)
    predictor = Predictor(model, (48, 40))
    models = [Model("run", predictor)]
    view = look(models, photograph)
    pages = []
    for task in ("depth_zbuffer", "normal"):
        (source,) = re.findall(r'<img src="([^"]*)"', render_attention(models, view, task, 8, 90))
        pages.append(decode(source))
    assert np.array_equal(pages[1], draw_expected_page(predictor, photograph, 8, 90, "normal", limit=4))
    assert not np.array_equal(pages[0], pages[1])
    assert "No attention to show: the model does not predict reshading" in render_attention(models, view, "reshading", 8, 90)


def test_names_from_a_checkpoint_are_text(models: list[Model], photograph: Path) -> None:
    """Names of classes and paths come with a checkpoint, which a stranger may have written."""
    predictor = models[0].predictor
    name = "<img src=x onerror=alert(1)>"
    stranger = Predictor(predictor.model, (48, 40))
    stranger.classes = {"segment_semantic": [name] * 17}
    own = [Model("<b>", stranger), models[1]]
    view = look(own, photograph)
    for html in (render_maps(own, view), render_values(own, view, 0, 0), render_attention(own, view, "normal", 0, 0)):
        assert name not in html
        assert "<b>" not in html
    assert unescape(render_maps(own, view)).count(name) == 1


def test_a_file_that_is_no_photograph_is_refused(models: list[Model], tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"x\.jpg: "):
        look(models, tmp_path / "x.jpg")
