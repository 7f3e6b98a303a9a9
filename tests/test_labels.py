"""labels.py against known geometry, scalar loops and independent implementations of the filters."""

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mult.errors import UserError
from mult.labels import edge_texture, keypoints2d, normals_from_depth, reshading

Array = NDArray[Any]

INTRINSICS = (90.0, 70.0, 33.3, 17.5)  # fx != fy, off-centre principal point, for 56 x 72 images
SHAPE = (56, 72)


def plane_depth(
    normal: Array,
    distance_m: float,
    intrinsics: tuple[float, float, float, float] = INTRINSICS,
    shape: tuple[int, int] = SHAPE,
) -> Array:
    """Depth along z of the plane normal . P = -distance_m, by the ray of every pixel."""
    fx, fy, cx, cy = intrinsics
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    rays = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(shape)])
    return np.asarray(-distance_m / np.tensordot(normal, rays, axes=1))


def unit(*vector: float) -> Array:
    return np.asarray(np.array(vector) / np.linalg.norm(vector))


def angle_deg(prediction: Array, target: Array) -> Array:
    target = target.reshape(3, *(target.shape[1:] or (1, 1)))
    difference, total = np.linalg.norm(prediction - target, axis=0), np.linalg.norm(prediction + target, axis=0)
    return np.asarray(2 * np.degrees(np.arctan2(difference, total)))


@pytest.fixture(scope="module")
def rgb() -> Array:
    """Smooth shapes and noise, different along every axis and in every channel, not square."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:71, :94]
    image = np.stack([2.1 * columns, 2.9 * rows, 90 + 60 * np.sin(columns / 6 + rows / 15)], axis=-1)
    image[20:45, 30:70] = (220, 40, 130)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


# Normals.


@pytest.mark.parametrize("normal", [unit(0.4, 0.25, -1), unit(-0.3, -0.9, -0.6), unit(0, 0, -1), unit(0.7, -0.2, -0.8)])
def test_plane_gives_its_normal(normal: Array) -> None:
    depth = plane_depth(normal, 2.3)
    assert (depth > 0).all()
    prediction, valid = normals_from_depth(depth, INTRINSICS, np.ones(SHAPE, bool))
    assert prediction.dtype == np.float32
    assert valid.dtype == np.bool_
    assert valid.all()
    assert angle_deg(prediction, normal).max() < 0.01  # the borders and corners too: the fit is exact on a plane
    assert np.abs(np.linalg.norm(prediction, axis=0) - 1).max() < 1e-6


def test_plane_with_holes_and_scattered_pixels() -> None:
    normal = unit(0.4, 0.25, -1)
    rng = np.random.default_rng(0)
    valid = rng.random(SHAPE) > 0.6
    depth = np.where(valid, plane_depth(normal, 2.3), np.nan)
    prediction, mask = normals_from_depth(depth, INTRINSICS, valid)
    assert (mask <= valid).all()
    assert mask.sum() > 0.99 * valid.sum()
    assert angle_deg(prediction, normal)[mask].max() < 0.05
    assert (prediction[:, ~mask] == 0).all()


def test_support_on_a_line_is_invalid() -> None:
    valid = np.zeros(SHAPE, bool)
    valid[10, 5:40] = True  # a line
    valid[np.arange(30, 50), np.arange(40, 60)] = True  # a diagonal
    valid[20, 65] = valid[20, 66] = valid[21, 65] = True  # three pixels off a line: just enough
    normal = unit(0.1, -0.3, -1)
    prediction, mask = normals_from_depth(plane_depth(normal, 2.0), INTRINSICS, valid)
    assert np.argwhere(mask).tolist() == [[20, 65], [20, 66], [21, 65]]
    assert angle_deg(prediction, normal)[mask].max() < 0.01
    assert (prediction[:, ~mask] == 0).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_impossible_depth_is_invalid(bad: float) -> None:
    normal = unit(0.2, 0.1, -1)
    depth = plane_depth(normal, 2.0)
    depth[12:15, 40:42] = bad
    prediction, mask = normals_from_depth(depth, INTRINSICS, np.ones(SHAPE, bool))
    assert (~mask).sum() == 6
    assert not mask[12:15, 40:42].any()
    assert angle_deg(prediction, normal)[mask].max() < 0.01


def test_edge_of_two_planes_stays_sharp() -> None:
    left, right = unit(0.7, 0.1, -1), unit(-0.7, 0.1, -1)  # a corner of a room, seen from inside
    depths = plane_depth(left, 2.0), plane_depth(right, 2.0)
    depth = np.minimum(*depths)
    on_left = depths[0] < depths[1]
    target = np.where(on_left, left[:, None, None], right[:, None, None])
    prediction, mask = normals_from_depth(depth, INTRINSICS, np.ones(SHAPE, bool))
    error = angle_deg(prediction, target)
    assert mask.all()
    assert np.percentile(error, 99) < 0.1
    assert error.max() < 2


def test_step_in_depth_stays_sharp() -> None:
    near, far = unit(0.3, 0.4, -1), unit(-0.2, 0.1, -1)
    depth = plane_depth(far, 4.0)
    box = np.zeros(SHAPE, bool)
    box[15:40, 20:50] = True
    depth[box] = plane_depth(near, 1.5)[box]
    target = np.where(box, near[:, None, None], far[:, None, None])
    error = angle_deg(normals_from_depth(depth, INTRINSICS, np.ones(SHAPE, bool))[0], target)
    assert np.percentile(error, 99.5) < 0.1
    assert error.mean() < 0.05


def test_three_pixels_do_not_bridge_a_step() -> None:
    """Where four of five pixels are missing, many small windows hold three: two sides of a step would pass for a plane."""
    near, far = unit(0.3, 0.4, -1), unit(-0.2, 0.1, -1)
    left = np.broadcast_to(np.arange(SHAPE[1]) < 36, SHAPE)
    depth = np.where(left, plane_depth(near, 1.5), plane_depth(far, 4.0))
    target = np.where(left, near[:, None, None], far[:, None, None])
    errors = []
    for seed in range(20):
        valid = np.random.default_rng(seed).random(SHAPE) < 0.2
        prediction, mask = normals_from_depth(depth, INTRINSICS, valid)
        errors.append(angle_deg(prediction, target)[mask])
    assert (np.concatenate(errors) > 1).mean() < 0.004


def test_windows_on_a_sphere_count_by_their_nearness() -> None:
    fx, fy, cx, cy = INTRINSICS
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rays = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(SHAPE)])
    centre = np.array([0.05, 0.1, 2.0])
    towards, square = np.tensordot(centre, rays, 1), (rays**2).sum(0)
    root = towards**2 - square * ((centre**2).sum() - 0.5**2)
    hit = root > 0
    depth = np.where(hit, (towards - np.sqrt(np.where(hit, root, 0))) / square, 0)
    target = (rays * depth - centre[:, None, None]) / 0.5
    inner = ndimage.binary_erosion(hit, iterations=4)
    prediction, _ = normals_from_depth(depth, INTRINSICS, hit)
    assert np.median(angle_deg(prediction, target)[inner]) < 0.65


def test_quantised_depth_gets_large_windows() -> None:
    """At 3 m and 1/512 m a step, a centred 5 x 5 window alone has a median error of about 0.85 degrees."""
    intrinsics, shape = (469.0, 469.0, 99.5, 79.5), (160, 200)
    normal = unit(0.3, 0.5, -1)
    depth = np.round(plane_depth(normal, 2.8, intrinsics, shape) * 512) / 512
    error = angle_deg(normals_from_depth(depth, intrinsics, np.ones(shape, bool))[0], normal)
    assert np.median(error) < 0.5
    assert error.max() < 5


def test_normals_do_not_change_under_transposition() -> None:
    rng = np.random.default_rng(5)
    depth = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 3) + 2
    valid = rng.random(SHAPE) > 0.1
    fx, fy, cx, cy = INTRINSICS
    prediction, mask = normals_from_depth(depth, INTRINSICS, valid)
    swapped, swapped_mask = normals_from_depth(depth.T, (fy, fx, cy, cx), valid.T)
    assert (mask == swapped_mask.T).all()
    np.testing.assert_allclose(swapped[[1, 0, 2]].transpose(0, 2, 1), prediction, atol=1e-5)


# Reshading.


def test_reshading_equals_scalar_loop() -> None:
    rng = np.random.default_rng(1)
    height, width = 7, 9
    depth = rng.uniform(0.05, 6, (height, width))
    normal = rng.normal(size=(3, height, width))
    normal /= np.linalg.norm(normal, axis=0)
    valid = rng.random((height, width)) > 0.2
    fx, fy, cx, cy = 8.0, 6.0, 3.5, 2.0
    prediction = reshading(depth, normal, (fx, fy, cx, cy), valid)
    assert prediction.shape == (1, height, width)
    assert prediction.dtype == np.float32
    for v in range(height):
        for u in range(width):
            z = depth[v, u]
            point = ((u - cx) / fx * z, (v - cy) / fy * z, z)
            r = math.sqrt(sum(p * p for p in point))
            cosine = sum(-p / r * n for p, n in zip(point, normal[:, v, u], strict=True))
            expected = min(1.0, 1.6 * 8 / (8 + r * r) * max(0.0, cosine)) if valid[v, u] else 0.0
            assert prediction[0, v, u] == pytest.approx(expected, abs=1e-6)
    assert (prediction == 1).any()
    assert (prediction[0][valid] == 0).any()


def test_reshading_of_a_wall_straight_ahead() -> None:
    normal = np.zeros((3, 1, 1))
    normal[2] = -1
    shade = reshading(np.full((1, 1), 4.0), normal, (1.0, 1.0, 0.0, 0.0), np.ones((1, 1), bool))
    assert shade.item() == pytest.approx(1.6 * 8 / (8 + 16))


def test_reshading_ignores_what_is_invalid() -> None:
    depth = np.array([[np.nan, 0.0, 2.0]])
    shade = reshading(depth, np.full((3, 1, 3), np.nan), (1.0, 1.0, 0.0, 0.0), np.zeros((1, 3), bool))
    assert (shade == 0).all()


# Edges and keypoints.


def pillow_gray(rgb: Array) -> Array:
    return np.asarray(Image.fromarray(rgb).convert("L")).astype(np.float64) / 255


def at_512(gray: Array, measure: Callable[[Array], Array]) -> Array:
    """The definition: the gray image brought to 512 pixels at its short side, bicubic; the label back by means over areas."""
    size = gray.shape[::-1]
    scale = 512 / min(size)
    resized = Image.fromarray(gray.astype(np.float32)).resize((round(size[0] * scale), round(size[1] * scale)), 3)
    label = measure(np.clip(np.asarray(resized, np.float64), 0, 1))
    return np.asarray(Image.fromarray(label.astype(np.float32)).resize(size, 4))


def scipy_edges(gray: Array) -> Array:
    inside = ndimage.gaussian_filter(np.ones_like(gray), 3, mode="constant")
    smooth = ndimage.gaussian_filter(gray, 3, mode="constant") / inside
    magnitude = np.hypot(ndimage.sobel(smooth, 0) / 4, ndimage.sobel(smooth, 1) / 4) / math.sqrt(2)
    magnitude[[0, -1]] = 0
    magnitude[:, [0, -1]] = 0
    return magnitude


def test_edges_equal_scipy(rgb: Array) -> None:
    gray = pillow_gray(rgb)
    edges = edge_texture(rgb)
    assert edges.shape == (1, *gray.shape)
    assert edges.dtype == np.float32
    np.testing.assert_allclose(edges[0], at_512(gray, scipy_edges), atol=1e-6)
    assert edges.max() > 0.01


@pytest.fixture(scope="module")
def rgb_512(rgb: Array) -> Array:
    """512 pixels at the short side, with detail of some pixels."""
    return np.asarray(Image.fromarray(rgb).resize((678, 512), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("label", [edge_texture, keypoints2d])
@pytest.mark.parametrize("side", [160, 240, 480, 768])
def test_a_label_is_that_of_the_standard_image_at_any_size(label: Callable[[Array], Array], side: int, rgb_512: Array) -> None:
    """The bounds of issue and facts: correlation .99 and means within 3 %."""
    size = (round(678 * side / 512), side)
    stored = np.asarray(Image.fromarray(rgb_512).resize(size, Image.Resampling.BICUBIC))
    expected = np.asarray(Image.fromarray(label(rgb_512)[0]).resize(size, Image.Resampling.BOX))
    found = label(stored)[0]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert found.mean() == pytest.approx(expected.mean(), rel=0.03)


def test_at_the_standard_size_edges_are_the_plain_formula(rgb_512: Array) -> None:
    np.testing.assert_allclose(edge_texture(rgb_512)[0], scipy_edges(pillow_gray(rgb_512)), atol=1e-7)


def surf_determinant(gray: Array, row: int, column: int, sigma: float) -> float:
    """SURF's determinant at one pixel by plain sums (Bay et al. 2008, section 3: box filters).

    As in scikit-image, a box is given by the pixel before its first one, which is moved into the image with the box: so
    row and column 0 are in no box.
    """
    side = int(3 * sigma)
    lobe = side // 3

    def box(top: int, left: int, height: int, width: int) -> float:
        top, left = np.clip(top, 0, gray.shape[0] - 1), np.clip(left, 0, gray.shape[1] - 1)
        bottom, right = top + height, left + width
        return float(gray[top + 1 : bottom + 1, left + 1 : right + 1].sum())

    long, short, half = 2 * lobe - 1, lobe // 2, (side - 1) // 2
    xx = 3 * box(row - lobe + 1, column - short, long, lobe) - box(row - lobe + 1, column - half, long, side)
    yy = 3 * box(row - short, column - lobe + 1, lobe, long) - box(row - half, column - lobe + 1, side, long)
    before, after = -lobe, 1
    xy = sum(
        sign * box(row + dy, column + dx, lobe, lobe)
        for sign, dy, dx in ((1, before, before), (-1, before, after), (-1, after, before), (1, after, after))
    )
    return (xx * yy - 0.81 * xy**2) / side**4


def test_keypoints_equal_plain_box_sums(rgb_512: Array) -> None:
    gray = pillow_gray(rgb_512)
    response = keypoints2d(rgb_512)
    assert response.shape == (1, *gray.shape)
    assert response.dtype == np.float32
    sigmas = np.linspace(1, 30, 10)
    for row in (0, 3, 19, 150, 380, 509, 511):
        for column in (0, 11, 31, 300, 498, 677):
            expected = max(0.0, *(surf_determinant(gray, row, column, sigma) for sigma in sigmas))
            assert response[0, row, column] == pytest.approx(expected, abs=1e-8), (row, column)
    assert response.max() > 0.002
    assert (response >= 0).all()


def test_keypoints_of_another_size_are_those_at_512(rgb: Array, rgb_512: Array) -> None:
    def measure(gray: Array) -> Array:  # 8 bits would round the resized image
        assert gray.shape == (512, 678)
        from skimage.feature import hessian_matrix_det

        return np.maximum.reduce([hessian_matrix_det(gray, s, approximate=True) for s in np.linspace(1, 30, 10)]).clip(0)

    np.testing.assert_allclose(keypoints2d(rgb)[0], at_512(pillow_gray(rgb), measure), atol=1e-7)


def test_constant_image() -> None:
    flat = np.full((200, 210, 3), 137, np.uint8)
    assert np.abs(edge_texture(flat)).max() < 1e-7
    # The boxes of sides that 3 does not divide do not cancel: these files are not 0 on a flat wall.
    sides = [int(3 * sigma) for sigma in np.linspace(1, 30, 10)]
    expected = max(((2 * (s // 3) - 1) * (s % 3) * 137 / 255 / s**2) ** 2 for s in sides)
    inner = keypoints2d(flat)[0, 60:-60, 60:-60]  # farther from the border than the widest filter
    np.testing.assert_allclose(inner, expected, atol=1e-8)


def test_labels_need_scikit_image_only_when_called(rgb: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_skimage(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("skimage"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_skimage)
    for function in (edge_texture, keypoints2d):
        name = function.__name__
        with pytest.raises(UserError, match=rf"{name} needs scikit-image.*pip install \"mult-dense\[labels\]\""):
            function(rgb)


# Bad input.


@pytest.mark.parametrize("function", [edge_texture, keypoints2d])
@pytest.mark.parametrize(
    "image", [np.zeros((5, 6), np.uint8), np.zeros((3, 5, 6), np.uint8), np.zeros((5, 6, 3), np.float32)], ids=str
)
def test_images_of_another_kind_are_refused(function: Callable[[Array], Array], image: Array) -> None:
    message = rf"{function.__name__}: got {image.dtype} .*; expected uint8 \(H, W, 3\); pass"
    with pytest.raises(UserError, match=message):
        function(image)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth_m": np.ones((1, 4, 5))}, r"got depth_m of float64 \(1, 4, 5\); expected float \(H, W\)"),
        ({"depth_m": np.ones((4, 5), np.uint16)}, r"got depth_m of uint16 \(4, 5\); expected float \(H, W\)"),
        ({"valid": np.ones((5, 4), bool)}, r"got valid of bool \(5, 4\); expected bool \(4, 5\)"),
        ({"valid": np.ones((4, 5))}, r"got valid of float64 \(4, 5\); expected bool \(4, 5\)"),
        ({"intrinsics": (1.0, 1.0, 1.0)}, r"got intrinsics \(1.0, 1.0, 1.0\); expected \(fx, fy, cx, cy\)"),
        ({"intrinsics": (1.0, 0.0, 1.0, 1.0)}, r"expected \(fx, fy, cx, cy\) with fx, fy > 0"),
    ],
)
def test_geometry_of_another_kind_is_refused(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "depth_m": np.ones((4, 5)),
        "intrinsics": INTRINSICS,
        "valid": np.ones((4, 5), bool),
    } | changed
    with pytest.raises(UserError, match=f"normals_from_depth: .*{message}"):
        normals_from_depth(**arguments)
    with pytest.raises(UserError, match=f"reshading: .*{message}"):
        reshading(normal=np.zeros((3, 4, 5)), **arguments)


def test_reshading_refuses_normals_of_another_size() -> None:
    with pytest.raises(UserError, match=r"got normal of shape \(4, 5, 3\); expected \(3, 4, 5\)"):
        reshading(np.ones((4, 5)), np.zeros((4, 5, 3)), INTRINSICS, np.ones((4, 5), bool))
