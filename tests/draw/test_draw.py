"""Colours, errors, limits and blends by value, and the right picture in the right place of the gallery and the sheet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mult.draw import (
    COLORMAPS,
    PALETTE,
    Classes,
    Colours,
    Directions,
    PaintedMap,
    Scalar,
    draw_contact_sheet,
    draw_gallery,
    draw_label_sheet,
    draw_map,
    overlay,
    paint_map,
)
from mult.errors import UserError

HATCH = {150, 190}
FindPlaces = Callable[[np.ndarray, np.ndarray], list[tuple[int, int]]]


@dataclass(frozen=True)
class Record:
    """The fields of a task that pictures need."""

    name: str
    unit: str
    colours: Colours
    categorical: bool = False


TABLE = {
    task.name: task
    for task in (
        Record("label", "class", Classes(255), True),
        Record("far", "m", Scalar("turbo")),
        Record("way", "unit vector", Directions()),
        Record("light", "1", Scalar("gray", 0.0, 1.0)),
    )
}


def make_sample(height: int, width: int, seed: int = 0) -> dict[str, Any]:
    """Random maps of every kind, a fifth of the pixels of each invalid."""
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(2, 3, height, width))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    maps = {
        "label": rng.integers(0, 5, (2, height, width)),
        "far": rng.uniform(1, 9, (2, 1, height, width)),
        "way": ways,
        "light": rng.uniform(0, 1, (2, 1, height, width)),
    }
    valid = {name: rng.uniform(size=(1, height, width)) > 0.2 for name in maps}
    maps["label"][0][~valid["label"][0]] = 255
    return {
        "id": "building/point_3_view_1",
        "image": rng.uniform(size=(3, height, width)).astype(np.float32),
        "targets": {name: both[0] for name, both in maps.items()},
        "valid": valid,
        "predictions": {name: both[1] for name, both in maps.items()},
    }


@pytest.mark.parametrize("name", COLORMAPS)
def test_a_map_shows_its_anchors_and_clips_at_its_ends(name: str) -> None:
    anchors = COLORMAPS[name]
    values = np.linspace(2.0, 6.0, len(anchors))
    painted = Scalar(name).paint(np.concatenate([[-50], values, [50]])[None], None, (2.0, 6.0))
    assert painted.dtype == np.uint8
    assert np.array_equal(painted[0], np.concatenate([anchors[:1], anchors, anchors[-1:]]))


def test_a_map_is_linear_between_anchors() -> None:
    first, second = COLORMAPS["viridis"][:2]
    quarter = Scalar("viridis").paint(np.array([[0.25 / (len(COLORMAPS["viridis"]) - 1)]]), None, (0.0, 1.0))
    assert np.array_equal(quarter[0, 0], np.rint(0.75 * first + 0.25 * second))


def test_known_ends() -> None:
    ends = np.array([[0.0, 1.0]])
    assert Scalar("viridis").paint(ends, None, (0, 1)).tolist() == [[[68, 1, 84], [253, 231, 37]]]
    assert Scalar("inferno").paint(ends, None, (0, 1)).tolist() == [[[0, 0, 4], [252, 255, 164]]]
    assert Scalar("turbo").paint(ends, None, (0, 1)).tolist() == [[[48, 18, 59], [122, 4, 3]]]
    assert Scalar("gray").paint(np.array([[0.0, 0.2, 1.0]]), None, (0, 1))[0, :, 1].tolist() == [0, 51, 255]


def test_sequential_maps_grow_lighter_or_darker_throughout() -> None:
    for name, sign in (("viridis", 1), ("inferno", 1), ("gray", 1), ("reds", -1)):
        painted = Scalar(name).paint(np.linspace(0, 1, 64)[None], None, (0, 1))[0]
        assert (sign * np.diff(painted @ [0.2126, 0.7152, 0.0722]) > -0.5).all(), name


def test_directions_are_half_of_one_plus_n() -> None:
    vectors = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0], [0.28, -0.96, 0]], np.float32).T[:, None]
    expected = [[128, 128, 0], [128, 0, 128], [255, 128, 128], [163, 5, 128]]
    assert Directions().paint(vectors)[0].tolist() == expected


def test_classes_differ_and_repeat_after_the_palette() -> None:
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == len(PALETTE) == 40
    labels = np.arange(100)[None]
    assert np.array_equal(Classes(255).paint(labels)[0], PALETTE[np.arange(100) % 40])
    # Stripes are gray, classes are not: an ignored pixel is never taken for a class.
    assert all(len(set(colour)) > 1 for colour in PALETTE.tolist())


@pytest.mark.parametrize("task", TABLE.values(), ids=TABLE)
def test_invalid_pixels_are_hatched_and_the_others_are_not_touched(task: Record) -> None:
    sample = make_sample(60, 90)
    values, valid = sample["predictions"][task.name], sample["valid"][task.name]
    limits = task.colours.limits(values, None)
    everywhere, painted = task.colours.paint(values, None, limits), task.colours.paint(values, valid, limits)
    assert painted.shape == (60, 90, 3)
    assert np.array_equal(painted[valid[0]], everywhere[valid[0]])
    hatch = painted[~valid[0]]
    assert (hatch == hatch[:, :1]).all()
    assert set(hatch[:, 0].tolist()) == HATCH
    assert np.array_equal(painted, task.colours.paint(values, valid[0], limits))  # (H, W) as well as (1, H, W)


def test_ignored_and_non_finite_pixels_are_hatched_too() -> None:
    assert Classes(255).paint(np.array([[255, 3]]))[0, 0, 0] in HATCH
    vectors = np.full((3, 1, 2), 0.5)
    vectors[1, 0, 0] = np.nan
    painted = Directions().paint(vectors)
    assert painted[0, 0, 0] in HATCH
    assert painted[0, 1].tolist() == [191, 191, 191]
    assert Scalar("reds").paint(np.array([[np.inf, 0.0]]), None, (0, 1))[0, 0, 0] in HATCH


def test_hatch_survives_the_scale_of_a_cell() -> None:
    stripes = Classes(255).paint(np.full((960, 960), 255))[0, :, 0]
    assert set(np.diff(np.flatnonzero(np.diff(stripes.astype(int))))) == {20}  # 4 pixels of a cell of 192


def test_limits_are_percentiles_of_valid_values() -> None:
    values = np.arange(101.0).reshape(1, 1, 101)
    assert Scalar("turbo").limits(values, None) == pytest.approx((2, 98))
    assert Scalar("turbo").limits(values, values <= 50) == pytest.approx((1, 49))
    assert Scalar("turbo", low=0.5).limits(values, values <= 50) == pytest.approx((0.5, 49))
    assert Scalar("turbo", high=7.0).limits(values, None) == pytest.approx((2, 7))
    assert Classes(255).limits(values, None) is None
    assert Directions().limits(values, None) is None


def test_a_constant_or_unlabelled_map_has_limits_and_colours() -> None:
    for constant in (0.0, 3.0, -2.0):
        flat = np.full((1, 4, 5), constant)
        low, high = Scalar("turbo").limits(flat, None)
        assert low == constant < high
        assert np.array_equal(Scalar("turbo").paint(flat)[0, 0], COLORMAPS["turbo"][0])
    assert Scalar("turbo").limits(np.ones((1, 4, 5)), np.zeros((1, 4, 5), bool)) == (0.0, 1.0)


def test_errors_against_numpy() -> None:
    sample = make_sample(20, 31, seed=3)
    prediction, target, valid = sample["predictions"], sample["targets"], sample["valid"]
    wrong = Classes(255).error(prediction["label"], target["label"], valid["label"])
    assert np.array_equal(wrong, (prediction["label"] != target["label"]) * valid["label"][0])
    off = Scalar("turbo").error(prediction["far"], target["far"], valid["far"])
    assert np.allclose(off, np.abs(prediction["far"] - target["far"])[0] * valid["far"][0], atol=1e-6)
    angle = Directions().error(prediction["way"], target["way"], valid["way"])
    cosine = np.clip(np.einsum("chw,chw->hw", prediction["way"], target["way"]), -1, 1)
    assert np.allclose(angle, np.degrees(np.arccos(cosine)) * valid["way"][0], atol=1e-3)
    assert {error.dtype for error in (wrong, off, angle)} == {np.dtype(np.float32)}
    assert (Classes.error_unit, Scalar.error_unit, Directions.error_unit) == ("of pixels", None, "deg")


def test_angles_small_and_opposite_in_float32() -> None:
    target = np.zeros((3, 1, 3), np.float32)
    target[2] = -1
    tilt = np.radians([0.01, 90, 180])
    prediction = np.stack([np.sin(tilt), 0 * tilt, -np.cos(tilt)])[:, None].astype(np.float32)
    assert np.allclose(Directions().error(prediction, target), [[0.01, 90, 180]], rtol=1e-4)


def test_overlay_blends_where_valid() -> None:
    image = np.zeros((3, 2, 2), np.float32)
    image[0] = 0.4  # 102 of 255
    painted = np.full((2, 2, 3), 210, np.uint8)
    valid = np.array([[True, False], [True, True]])
    blended = overlay(image, painted, valid, alpha=0.2)
    assert blended[0, 0].tolist() == [124, 42, 42]  # 0.2 * 210 + 0.8 * 102 = 123.6
    assert blended[0, 1].tolist() == [210, 210, 210]
    assert np.array_equal(overlay(image, painted, alpha=0.0)[..., 0], np.full((2, 2), 102))
    assert np.array_equal(overlay(image, painted, alpha=1.0), painted)


def test_overlay_brings_the_image_to_the_size_of_the_map() -> None:
    image = np.linspace(0, 1, 8, dtype=np.float32)[None, None].repeat(3, 0).repeat(4, 1)
    blended = overlay(image, np.zeros((8, 16, 3), np.uint8), alpha=0.0)
    assert blended.shape == (8, 16, 3)
    assert (np.diff(blended[3, :, 1].astype(int)) >= 0).all()
    assert blended[3, -1, 1] == 255


def test_gallery_shows_each_map_in_its_place(find_places: FindPlaces) -> None:
    size = (96, 192)  # the width of a cell: nothing is rescaled, and height differs from width
    samples = [make_sample(*size, seed=seed) for seed in (1, 2)]
    page = np.asarray(draw_gallery(samples, TABLE, {"label": [f"name{k}" for k in range(5)]}))
    corners = {}
    for row, sample in enumerate(samples):
        image = np.rint(sample["image"] * 255).astype(np.uint8).transpose(1, 2, 0)
        corners[row, 0, "truth"] = find_places(page, image)
        for column, task in enumerate(TABLE.values(), 1):
            prediction, target, valid = (sample[kind][task.name] for kind in ("predictions", "targets", "valid"))
            limits = task.colours.limits(target, valid)
            truth, guess = task.colours.paint(target, valid, limits), task.colours.paint(prediction, None, limits)
            if task.categorical:
                truth, guess = overlay(sample["image"], truth, valid), overlay(sample["image"], guess)
            high = (limits[1] - limits[0]) / 4 if limits else {"label": 1.0, "way": 60.0}[task.name]
            error = Scalar("reds").paint(task.colours.error(prediction, target, valid), valid, (0.0, high))
            for kind, painted in (("truth", truth), ("prediction", guess), ("error", error)):
                corners[row, column, kind] = find_places(page, painted)
    assert all(len(found) == 1 for found in corners.values()), {k: v for k, v in corners.items() if len(v) != 1}
    at = {key: found[0] for key, found in corners.items()}
    for row in (0, 1):
        tops = [{at[row, column, kind][0] for column in range(1, 5)} for kind in ("truth", "prediction", "error")]
        assert all(len(top) == 1 for top in tops)  # rows are aligned ...
        assert at[row, 0, "truth"][0] in tops[0]
        first, second, third = (top.pop() for top in tops)
        assert first + 96 < second < second + 96 < third
    assert at[0, 1, "error"][0] + 96 < at[1, 1, "truth"][0]
    for column in range(1, 5):  # ... and so are columns
        assert len({at[row, column, kind][1] for row in (0, 1) for kind in ("truth", "prediction", "error")}) == 1
    lefts = [at[0, column, "truth"][1] for column in range(5)]
    assert (np.diff(lefts) > 192).all()
    assert len(set(np.diff(lefts))) == 1


def test_gallery_takes_tensors() -> None:
    sample = make_sample(40, 30)
    as_tensors = {
        name: {task: torch.from_numpy(values) for task, values in part.items()} if isinstance(part, dict) else part
        for name, part in sample.items()
    } | {"image": torch.from_numpy(sample["image"])}
    assert np.array_equal(np.asarray(draw_gallery([as_tensors], TABLE, {})), np.asarray(draw_gallery([sample], TABLE, {})))


def test_gallery_without_a_label_still_shows_the_prediction(find_places: FindPlaces) -> None:
    sample = make_sample(96, 192)
    sample["valid"]["far"][:] = False
    sample["targets"]["far"][:] = 0
    sample["valid"]["label"][:] = False
    sample["targets"]["label"][:] = 255
    page = np.asarray(draw_gallery([sample], TABLE, {}))
    colours = TABLE["far"].colours
    assert len(find_places(page, colours.paint(sample["predictions"]["far"]))) == 1
    assert len(find_places(page, overlay(sample["image"], Classes(255).paint(sample["predictions"]["label"])))) == 1
    plate = np.full((30, 190, 3), 244, np.uint8)  # the upper part of "no label", above its text
    tops = sorted({y for y, _ in find_places(page, plate)})
    lefts = {x for _, x in find_places(page, plate)}
    assert len(tops) >= 2
    assert tops[-1] - tops[0] > 192
    assert max(lefts) - min(lefts) > 192


@pytest.mark.parametrize("size", [(50, 400), (400, 50), (500, 333), (7, 5)])
def test_gallery_fits_any_size_into_cells_of_one_width(size: tuple[int, int]) -> None:
    wide = draw_gallery([make_sample(*size)], TABLE, {})
    assert wide.width == draw_gallery([make_sample(192, 192)], TABLE, {}).width
    page = np.asarray(wide).astype(int)
    assert (page[:10] == 255).all()
    assert (page[-10:] == 255).all()
    assert (page[:, :10] == 255).all()


def test_gallery_wraps_the_legend_of_many_classes() -> None:
    sample = make_sample(96, 192)
    few = draw_gallery([sample], TABLE, {})
    sample["predictions"]["label"] = np.arange(96 * 192).reshape(96, 192) % 60
    many = draw_gallery([sample], TABLE, {"label": [f"a rather long name {k}" for k in range(60)]})
    assert many.width == few.width
    assert many.height > few.height + 100


def test_the_gallery_names_each_task_s_classes_by_its_own_names() -> None:
    sample = make_sample(96, 192)
    legends: list[dict[str, list[str]]] = [
        {},
        {"parts": ["head", "torso"]},
        {"label": ["floor", "wall"]},
        {"label": ["floor", "lamp"]},
    ]
    none, another, first, second = (np.asarray(draw_gallery([sample], TABLE, classes)) for classes in legends)
    assert np.array_equal(none, another)
    assert not np.array_equal(none, first)
    assert not np.array_equal(first, second)


def test_legend_names_the_classes_that_occur() -> None:
    maps = [np.array([[255, 2], [0, 2]]), np.array([[7, 2], [0, 2]])]
    keys = Classes(255).keys(maps, ["floor", "wall", "lamp"])
    assert [text for _, text in keys] == ["floor", "lamp", "class 7"]
    assert [swatch[3, 3].tolist() for swatch, _ in keys] == PALETTE[[0, 2, 7]].tolist()


def test_the_ball_shows_up_right_and_towards_the_camera() -> None:
    ((ball, _),) = Directions().keys([], None)
    assert ball[0, 0].tolist() == [255, 255, 255]
    middle = len(ball) // 2
    assert ball[middle, middle, 2] < 10  # towards the camera: z = -1
    assert ball[1, middle, 1] < 30 < 225 < ball[-2, middle, 1]  # y grows downwards
    assert ball[middle, 1, 0] < 30 < 225 < ball[middle, -2, 0]  # x grows to the right


def test_a_sheet_of_labels_shows_each_where_it_is_and_a_plate_where_none_is(find_places: FindPlaces) -> None:
    sample = make_sample(96, 192)
    sample["valid"]["far"][:] = False
    page = np.asarray(draw_label_sheet([sample], TABLE, {}))
    corners = []
    for name in ("label", "way", "light"):
        colours, target, valid = TABLE[name].colours, sample["targets"][name], sample["valid"][name]
        (corner,) = find_places(page, colours.paint(target, valid, colours.limits(target, valid)))
        corners.append(corner)
    assert len({top for top, _ in corners}) == 1
    plates = {left for top, left in find_places(page, np.full((30, 190, 3), 244, np.uint8))}
    assert plates  # the column of the task that has no label, between those of the first and the third task
    assert corners[0][1] + 192 < min(plates) <= max(plates) + 190 < corners[1][1]


@pytest.mark.parametrize("task", TABLE.values(), ids=TABLE)
@pytest.mark.parametrize("size", [(120, 200), (30, 20)])
def test_picture_keeps_the_map_at_its_own_size(task: Record, size: tuple[int, int]) -> None:
    sample = make_sample(*size)
    prediction = sample["predictions"][task.name]
    drawn = np.asarray(draw_map(paint_map(task, prediction, sample["image"], ["a", "b"])))
    expected = task.colours.paint(prediction)
    if task.categorical:
        expected = overlay(sample["image"], expected)
    assert np.array_equal(drawn[: size[0], : size[1]], expected)
    assert drawn.shape[1] == max(160, size[1])
    assert (drawn[size[0] :] < 100).any()  # the strip has text on it


def test_picture_of_a_scalar_has_its_bar_below() -> None:
    drawn = np.asarray(draw_map(paint_map(TABLE["light"], np.linspace(0, 1, 200 * 50).reshape(1, 50, 200))))
    strip = drawn[50 + 18 + 6 + 8, :, 0].astype(int)
    ramp = strip[40:150]
    assert (np.diff(ramp) >= 0).all()
    assert ramp[-1] - ramp[0] > 120


def paint_all(sample: dict[str, Any]) -> list[PaintedMap]:
    return [paint_map(task, sample["predictions"][name], sample["image"]) for name, task in TABLE.items()]


def draw_single_pictures(sample: dict[str, Any]) -> list[np.ndarray]:
    """The image and what `draw_map` draws of each task, without titles and bars."""
    height, width = sample["image"].shape[1:]
    photo = np.rint(sample["image"] * 255).astype(np.uint8).transpose(1, 2, 0)
    return [photo, *(np.asarray(draw_map(painted))[:height, :width] for painted in paint_all(sample))]


def draw_sheet(sample: dict[str, Any]) -> np.ndarray:
    return np.asarray(draw_contact_sheet(sample["image"], paint_all(sample)))


@pytest.mark.parametrize(("size", "scale"), [((200, 320), 1), ((320, 144), 1), ((40, 64), 5)])
def test_tiles_of_a_contact_sheet_hold_the_pixels_of_the_single_pictures(
    size: tuple[int, int], scale: int, find_places: FindPlaces
) -> None:
    """The image and a task after the other, four a row; pixels of a small image are squares."""
    sample = make_sample(*size)
    sheet, places = draw_sheet(sample), []
    for pixels in draw_single_pictures(sample):
        places += find_places(sheet, pixels.repeat(scale, 0).repeat(scale, 1))
    (top, left), _, _, fourth, below = places
    assert [row for row, _ in places[:4]] == [top] * 4
    assert np.diff([column for _, column in places[:4]]).tolist() == [(fourth[1] - left) / 3] * 3
    assert below == (below[0], left)
    assert below[0] > top + scale * size[0]


def test_tiles_of_a_large_image_are_means_of_its_pixels(find_places: FindPlaces) -> None:
    small, large = make_sample(160, 320), make_sample(480, 960)
    small_sheet, sheet = draw_sheet(small), draw_sheet(large)
    assert sheet.shape == small_sheet.shape
    for pixels, of_small in zip(draw_single_pictures(large), draw_single_pictures(small), strict=True):
        ((top, left),) = find_places(small_sheet, of_small)
        means = pixels.reshape(160, 3, 320, 3, 3).mean((1, 3))
        np.testing.assert_allclose(sheet[top : top + 160, left : left + 320], means, atol=1)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"Scalar: got colormap 'jet'; expected one of viridis, inferno, turbo, reds, gray"):
        Scalar("jet")
    with pytest.raises(UserError, match="gallery: got no samples; expected at least one"):
        draw_gallery([], TABLE, {})
    with pytest.raises(UserError, match="sheet: got no samples; expected at least one"):
        draw_label_sheet([], TABLE, {})
