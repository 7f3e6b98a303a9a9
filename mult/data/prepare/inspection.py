"""Whether the labels of a dataset mean what they should: some of its views are measured, and each test judges all together.

The views are runs of neighbours, as the pairs of colour and depth are tested by the depth of the views beside each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mult.data.disk.derived import FROM_COLOUR
from mult.data.disk.images import Array, Mask
from mult.data.parallel import map_with_progress
from mult.data.prepare import compare, outlines, planes, textures
from mult.data.prepare.derive import to_8_bit
from mult.data.prepare.verdict import Verdict
from mult.data.sample import BadFileError, Camera, Reader, Sample
from mult.data.taskonomy.dataset import Taskonomy
from mult.errors import UserError, pluralize

RUN = 4
"""Neighbouring views that are measured together."""
MEDIAN_M = (0.3, 12.0)
"""The median depth of views of rooms is between these; rooms are seen at 1 to 4 m, tables at 0.5 m, halls at 10 m."""
OUTDOOR_MEDIAN_M = (0.3, 300.0)
MIN_FIELD_DEG, MAX_FIELD_DEG = 15.0, 150.0


@dataclass(frozen=True)
class Measured:
    """What the tests need of one view, without its pictures; what it lacks is empty or None."""

    index: int
    group: str
    camera_problem: str = ""
    is_from_depth: bool = False
    has_camera: bool = False
    planes: Array = field(default_factory=lambda: np.zeros((0, 3)))
    bends: Array = field(default_factory=lambda: np.zeros((2, 0)))
    outlines: outlines.Outlines | None = None
    along_z: compare.Directions | None = None
    along_ray: compare.Directions | None = None
    shaded: compare.Shaded | None = None
    textures: Mapping[str, textures.Textures] = field(default_factory=dict)


def inspect_labels(views: Reader, indices: Sequence[int], workers: int | None = 1) -> list[Verdict]:
    """Measure some views and judge their labels; views with bad files are left out."""
    measure = partial(measure_view, views)
    measured = [
        view for view in map_with_progress(measure, indices, workers, "test labels", "view", chunk=RUN) if view is not None
    ]
    return list(judge(measured, views.metric_depth, "depth_zbuffer" in views.labelled))


def choose_runs(views: Reader, maximum: int) -> list[int]:
    """About `maximum` indices of views: runs of RUN neighbours, evenly spaced."""
    runs = max(1, maximum // RUN)
    starts = np.linspace(0, max(0, len(views) - RUN), runs).round().astype(int)
    return sorted({int(start) + k for start in starts for k in range(RUN) if start + k < len(views)})


def judge(measured: Sequence[Measured], metric_depth: bool, has_depth: bool) -> Iterator[Verdict]:
    """The verdicts on views that were measured."""
    yield _judge_cameras(measured)
    with_outlines = {view.index: (view.group, view.outlines) for view in measured if view.outlines is not None}
    if with_outlines:
        yield outlines.judge_turn([each for _, each in with_outlines.values()])
        yield outlines.judge_pairs(with_outlines)
    with_camera = [view for view in measured if view.has_camera]
    kind = None
    if has_depth and with_camera:
        kind = planes.judge_kind([view.bends for view in with_camera])
        yield kind
        yield planes.judge_focal([view.planes for view in with_camera])
        if metric_depth:
            heights = [planes.measure_room(view.planes) for view in with_camera]
            yield planes.judge_room_height([height for height in heights if height is not None])
    yield from _judge_geometry(measured, metric_depth, kind)
    for task in FROM_COLOUR:
        if of_task := [view.textures[task] for view in measured if task in view.textures]:
            yield textures.judge_textures(task, of_task)


def judge_median_depth(median_m: float, outdoors: bool) -> Verdict:
    """Whether a dataset's median depth [m] is one of rooms, or of streets if it is `outdoors`."""
    low, high = OUTDOOR_MEDIAN_M if outdoors else MEDIAN_M
    measured = f"the median depth is {median_m:.3g} m"
    if low <= median_m <= high:
        return Verdict("depth scale by median", "right", f"{measured}, between {low:g} and {high:g} m")
    remedy = "correct the depth scale" + ("" if outdoors else ", or say --outdoors if these are no rooms")
    return Verdict("depth scale by median", "wrong", f"{measured}, outside {low:g} to {high:g} m; {remedy}")


def measure_view(views: Reader, i: int) -> Measured | None:
    """One view; None if a file of it is bad."""
    try:
        sample = views[i]
    except BadFileError:
        return None
    group, native = views.group(i), _native_labels(sample, views.native(i))
    measured: dict[str, object] = {"is_from_depth": isinstance(views, Taskonomy) and views.is_from_depth(i)}
    image = sample["image"].numpy()
    camera, problem = _find_camera(views, i, image.shape[1:])
    if "depth_zbuffer" in native:
        depth, valid = native["depth_zbuffer"]
        depth_m = depth[0].astype(np.float64)
        measured["outlines"] = outlines.find_outlines(image, depth_m, valid)
        if camera is not None:
            intrinsics = camera.intrinsics
            measured["planes"] = planes.fit_cells(depth_m, valid, intrinsics)
            measured["bends"] = planes.measure_bends(depth_m, valid, intrinsics)
            if i % 2 == 0 or len(views) < 2 * RUN:
                measured |= dict(_measure_labels(native, depth_m, valid, camera))
    if i % RUN == 0 or len(views) < 2 * RUN:
        measured["textures"] = {
            task: textures.measure_textures(task, native[task][0], to_8_bit(sample["image"]))
            for task in FROM_COLOUR
            if task in native
        }
    return Measured(i, group, camera_problem=problem, has_camera=camera is not None, **measured)  # type: ignore[arg-type]


def _measure_labels(
    native: Mapping[str, tuple[Array, Mask]], depth_m: Array, valid: Mask, camera: Camera
) -> Iterator[tuple[str, object]]:
    """The entries of `Measured` for normals and reshading."""
    if "normal" not in native:
        return
    normal, has_normal = native["normal"]
    along_z = compare.measure_directions(depth_m, valid, normal, has_normal, camera.intrinsics)
    if not along_z.stored.size:
        return
    yield "along_z", along_z
    if not compare.is_of_one_origin(along_z):
        z = planes.from_ray_distance(depth_m, camera.intrinsics)
        yield "along_ray", compare.measure_directions(z, valid, normal, has_normal, camera.intrinsics)
    if "reshading" in native:
        reshading, is_shaded = native["reshading"]
        shaded = compare.shade_coarsely(
            depth_m, normal, camera.intrinsics, valid & has_normal & is_shaded & (depth_m > 0), reshading[0]
        )
        if shaded.valid.any():
            yield "shaded", shaded


def _native_labels(sample: Sample, native: frozenset[str]) -> dict[str, tuple[Array, Mask]]:
    return {
        task: (target.numpy(), sample["valid"][task][0].numpy())
        for task, target in sample["targets"].items()
        if task in native and sample["valid"][task].any()
    }


def _find_camera(views: Reader, i: int, size: tuple[int, ...]) -> tuple[Camera | None, str]:
    """The camera of a view if it is one of its image, and else why not."""
    try:
        camera = views.camera(i)
    except UserError as error:
        return None, f"none: {error}"
    fx, fy, cx, cy = camera.intrinsics
    height, width = size
    if tuple(camera.size) != (height, width):
        return (
            None,
            f"{views.name(i)}: a camera of {tuple(camera.size)} pixels (height, width) beside an image of {(height, width)}",
        )
    if not (0 < cx < width and 0 < cy < height):
        return (
            None,
            f"{views.name(i)}: the centre ({cx:g}, {cy:g}) is outside the image of {(height, width)} pixels (height, width)",
        )
    fields = [float(np.degrees(2 * np.arctan(side / 2 / focal))) for side, focal in ((width, fx), (height, fy))]
    if min(fields) < MIN_FIELD_DEG or max(fields) > MAX_FIELD_DEG:
        return None, f"{views.name(i)}: a field of view of {fields[0]:.0f} by {fields[1]:.0f} deg"
    return camera, ""


def _judge_cameras(measured: Sequence[Measured]) -> Verdict:
    """Whether views have cameras that can be those of their images."""
    problems = [view.camera_problem for view in measured if view.camera_problem]
    wrong = [problem for problem in problems if not problem.startswith("none: ")]
    if wrong:
        return Verdict(
            "camera",
            "wrong",
            f"of {len(wrong)} of {pluralize(len(measured), 'view')}: {wrong[0]}; correct the intrinsics or the size",
        )
    if problems:
        text = f"{len(problems)} of {pluralize(len(measured), 'view')} with {problems[0]}"
        return Verdict("camera", "not compared" if len(problems) == len(measured) else "cannot tell", text)
    return Verdict("camera", "right", f"of {pluralize(len(measured), 'view')}: of the image's size, its centre in the image")


def _judge_geometry(measured: Sequence[Measured], metric_depth: bool, kind: Verdict | None) -> Iterator[Verdict]:
    """The frame of the normals, then the scale of depth by the reshading; both with depth along z, however it is stored."""
    along_z = _join([view.along_z for view in measured if view.along_z is not None])
    if along_z is None:
        yield Verdict("normal", "not compared", "no pixel has a normal and a depth of the dataset's own, and a camera")
        return
    one_origin = any(view.is_from_depth for view in measured) or compare.is_of_one_origin(along_z)
    along_ray = _join([view.along_ray for view in measured if view.along_ray is not None])
    if kind is not None and kind.state == "cannot tell" and along_ray is not None:
        kind = compare.judge_kind(along_z, along_ray)
        yield from [kind] if kind else []
    is_along_ray = kind is not None and kind.state == "wrong"
    frame, verdicts = compare.judge_frame(along_ray if is_along_ray and along_ray is not None else along_z)
    if one_origin and verdicts[0].state == "right":
        text = "they are what this depth gives, even at edges: labels computed from it agree whatever its scale and camera"
        verdicts = [Verdict("normal", "not compared", text)]
    yield from verdicts
    shaded = [view.shaded for view in measured if view.shaded is not None]
    if not shaded or not metric_depth:
        yield Verdict("depth scale by reshading", "not compared", "no view has reshading, normals and metric depth of its own")
        return
    if is_along_ray and not one_origin:
        shaded = [view._replace(depth_m=planes.from_ray_distance(view.depth_m, view.intrinsics)) for view in shaded]
    yield compare.judge_scale(compare.measure_scale_errors(shaded, frame), one_origin)


def _join(views: Sequence[compare.Directions]) -> compare.Directions | None:
    return compare.Directions(*(np.concatenate(parts, axis=1) for parts in zip(*views, strict=True))) if views else None
