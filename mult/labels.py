"""RGB-D -> normals, reshading, edges, keypoints, by the formulas with which Taskonomy made its files of these labels.

Edges and keypoints are functions of an image at one scale: Taskonomy's images have 512 pixels. An image of another size is
brought to 512 pixels at its short side first, and the label back to the image's size, so that a label means the same whatever
size an image is stored at. (Three photographs at 160 to 480 pixels: correlation above .99 with the label of the 512-pixel image
and means within 3 %; without it .27 to .99, and up to 2.5 times.)

The formulas were verified on real files of Taskonomy. Only the normals have another source: depth here, the mesh there. Camera
frame: x right, y down, z forward; intrinsics are (fx, fy, cx, cy) in pixel indices, 0 being the centre of the first pixel.
Edges and keypoints need scikit-image (the extra `labels`); the others need NumPy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.errors import UserError

Intrinsics = tuple[float, float, float, float]
Bool = NDArray[np.bool_]
Real = NDArray[np.floating[Any]]

VERSION = 2
"""Of the formulas: raised where one of them gives other values, so that labels of two versions are not mixed."""
STANDARD_SIDE = 512
"""Pixels of the short side at which edges and keypoints are computed."""
EDGE_SIGMA = 3.0
"""Pixels at that size: the Gaussian of Taskonomy's edges."""
_KEYPOINT_SIGMAS = np.linspace(1, 30, 10)

_DEPTH_STEP_M = 1 / 512  # in Taskonomy's depth files
_WINDOW_SIZES = (3, 5, 7)
_NOISY_WINDOW_SIZES = (7, 11, 17, 25)
_NOISE_WINDOW = 7
NOISY = 1e-4
"""Noise of inverse depth [1/m] from which on `normals_from_depth` takes large windows. By `inverse_depth_noise` it is 0.0004 to
0.0007 for Kinect 1 and stereo, 0.00016 for Kinect 2, and 0 to 0.00001 for rendered and for phone-smoothed depth."""
LEAST_CERTAIN = 0.03
"""The share of a noisy image's pixels, those whose normal is least certain by the fit's own weight, that have no normal."""
_NO_SKIMAGE = '{} needs scikit-image; install it with: pip install "mult-dense[labels]"'


def edge_texture(rgb: NDArray[np.uint8], sigma: float = EDGE_SIGMA) -> NDArray[np.float32]:
    """Texture edges: the gradient magnitude of Canny's detector before non-maximum suppression.

    `rgb` is uint8 (H, W, 3), `sigma` the Gaussian's in pixels at the standard scale. Returns float32 (1, H, W), the files'
    16-bit value / 65535; the outermost rows and columns at the standard scale are 0. Raises UserError for another shape or
    dtype, and without scikit-image.
    """
    gray = _to_gray("labels.edge_texture", rgb)
    try:
        from skimage.filters import gaussian, sobel
    except ImportError as error:
        raise UserError(_NO_SKIMAGE.format("labels.edge_texture")) from error

    def measure(gray: Real) -> Real:
        weight = gaussian(np.ones_like(gray), sigma, mode="constant")  # below 1 near the border, where the filter is cut
        edges = sobel(gaussian(gray, sigma, mode="constant") / weight)
        edges[[0, -1], :] = 0
        edges[:, [0, -1]] = 0
        return np.asarray(edges)

    return _measure_at_standard_scale(gray, measure)


def keypoints2d(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Keypoint strength: the response of SURF's detector before non-maximum suppression, the largest over ten scales.

    `rgb` is uint8 (H, W, 3). Returns float32 (1, H, W) >= 0, the files' 16-bit value / 65535. A flat image gives slightly more
    than 0, because the weights of the box filters do not sum to 0 at every scale. Raises UserError for another shape or dtype,
    and without scikit-image.
    """
    gray = _to_gray("labels.keypoints2d", rgb)
    try:
        from skimage.feature import hessian_matrix_det
    except ImportError as error:
        raise UserError(_NO_SKIMAGE.format("labels.keypoints2d")) from error

    def measure(gray: Real) -> Real:
        response = np.zeros_like(gray)
        for sigma in _KEYPOINT_SIGMAS:
            np.maximum(response, hessian_matrix_det(gray, sigma, approximate=True), out=response)
        return response

    return _measure_at_standard_scale(gray, measure)


def reshading(depth_m: Real, normal: Real, intrinsics: Intrinsics, valid: Bool) -> NDArray[np.float32]:
    """Shading by a lamp at the camera: 1.6 * 8 / (8 + r^2) * max(0, n.l), r metres from the camera, l towards it.

    `depth_m` (H, W) is along z, `normal` (3, H, W) unit vectors, `valid` bool (H, W). Returns float32 (1, H, W), clipped to
    [0, 1], 0 where invalid. Raises UserError for shapes or dtypes that do not fit together.
    """
    _check_geometry("labels.reshading", depth_m, intrinsics, valid)
    if normal.shape != (3, *depth_m.shape):
        raise UserError(
            f"labels.reshading: got normal of shape {normal.shape}; expected {(3, *depth_m.shape)}; pass channels first"
        )
    fx, fy, cx, cy = intrinsics
    columns, rows = _pixel_grid(depth_m.shape)
    depth = np.where(valid, depth_m, 1)
    x, y = depth * (columns - cx) / fx, depth * (rows - cy) / fy
    r2 = x**2 + y**2 + depth**2
    cosine = -(normal[0] * x + normal[1] * y + normal[2] * depth) / np.sqrt(r2)
    shade = np.clip(1.6 * 8 / (8 + r2) * cosine, 0, 1)
    return np.where(valid, shade, 0).astype(np.float32)[None]


def inverse_depth_noise(depth_m: Real, valid: Bool) -> float:
    """The noise of inverse depth [1/m] that an image shows, without the rounding of depth to 1/512 m; 0 for clean depth.

    Two measures, each the deviation that 95 % of the image exceed, so that some of a wall or floor is enough: what local planes
    leave over, which is large on curved surfaces too, and third differences over every second pixel, which vanish on those but
    are large beside edges. The smaller one is returned; 0 for an image of fewer than 64 rows or columns, in whose windows
    shapes cannot be told from noise. `depth_m` (H, W) is along z, `valid` bool (H, W).
    """
    if min(depth_m.shape) < 64:
        return 0.0
    valid = valid & np.isfinite(depth_m) & (depth_m > 0)
    inverse = np.divide(1.0, depth_m, out=np.zeros(depth_m.shape), where=valid)
    planes = _fit_planes(inverse, valid, _NOISE_WINDOW)
    left_over = (planes.residual - planes.rounding)[valid & (planes.pixels > 0.8 * _NOISE_WINDOW**2)]
    squares, counts = np.zeros_like(inverse), np.zeros_like(inverse)
    rounding = _DEPTH_STEP_M**2 / 12 * inverse**4
    for axis in range(2):
        shifted = [np.roll(inverse, -2 * k, axis) for k in range(4)]
        is_there = np.logical_and.reduce([np.roll(valid, -2 * k, axis) for k in range(4)])
        np.moveaxis(is_there, axis, 0)[-6:] = False  # there `roll` begins again at the other side
        difference = shifted[0] - 3 * shifted[1] + 3 * shifted[2] - shifted[3]  # of variance 1 + 9 + 9 + 1 times the noise's
        squares += np.where(is_there, difference**2 / 20 - rounding, 0)
        counts += is_there
    ones = np.ones(_NOISE_WINDOW + 2)
    squares, counts = _sum_windows(squares, ones, ones), _sum_windows(counts, ones, ones)
    differences = (squares / np.maximum(counts, 1))[counts > 1.2 * len(ones) ** 2]
    variances = [float(np.quantile(each, 0.05)) for each in (left_over, differences) if len(each)]
    return math.sqrt(max(min(variances, default=0.0), 0.0))


def normals_from_depth(depth_m: Real, intrinsics: Intrinsics, valid: Bool) -> tuple[NDArray[np.float32], Bool]:
    """Surface normals, pointing towards the camera, from least-squares planes of inverse depth in small windows.

    On a plane, inverse depth is affine in the pixel's place. Windows of several sizes are fitted around every pixel; a
    pixel takes the mean normal of all windows that contain it, each weighted by how certain its slopes are. So a pixel beside
    an edge follows the windows on its own side, and a pixel on a wall the large windows.

    Where the depth is noisy (`inverse_depth_noise` above NOISY, as of Kinect and stereo cameras) windows are larger, a residual
    counts as a wrong plane only beyond what most windows of the image leave, and the LEAST_CERTAIN pixels are invalid.

    `depth_m` (H, W) is along z, `valid` bool (H, W). Returns float32 (3, H, W) unit vectors and bool (H, W); where the
    latter is False (invalid, not finite or not positive depth, no window with three pixels off a line, or among the least
    certain) the normal is 0. Raises UserError for shapes or dtypes that do not fit together.
    """
    _check_geometry("labels.normals_from_depth", depth_m, intrinsics, valid)
    valid = valid & np.isfinite(depth_m) & (depth_m > 0)
    inverse = np.divide(1.0, depth_m, out=np.zeros(depth_m.shape), where=valid)
    is_noisy = inverse_depth_noise(depth_m, valid) > NOISY
    total, certainty = np.zeros((3, *depth_m.shape)), np.zeros(depth_m.shape)
    for size in _NOISY_WINDOW_SIZES if is_noisy else _WINDOW_SIZES:
        planes = _fit_planes(inverse, valid, size)
        expected: Real = planes.rounding
        if is_noisy:
            full = valid & (planes.pixels > 0.8 * size**2)
            expected = np.quantile(planes.residual[full if full.any() else valid], 0.4) * np.ones_like(planes.rounding)
        weight = planes.weight(expected)
        nearness = 1 - np.abs(_offsets(size)) / (size // 2 + 1)  # on a curved surface the plane fits best at the centre
        total += [_sum_windows(channel * weight, nearness, nearness) for channel in planes.normal(intrinsics)]
        if is_noisy:
            certainty += _sum_windows(weight, nearness, nearness)
    length = np.sqrt((total**2).sum(0))
    mask = valid & (length > 0)
    if is_noisy and mask.any():
        mask &= certainty > np.quantile(certainty[mask], LEAST_CERTAIN)
    return np.divide(total, length, out=np.zeros_like(total), where=mask).astype(np.float32), mask


@dataclass(frozen=True)
class _Planes:
    """The least-squares planes of inverse depth, w0 + slope_x x + slope_y y, in the window around every pixel; all (H, W).

    x and y count from the window's centre, where w0 is `at_centre`. `pixels` are valid ones; `residual` is the variance of what
    the plane leaves over, `spread` the variance of its slopes if that of a pixel were 1, `rounding` that of rounded depth.
    """

    slope_x: Real
    slope_y: Real
    at_centre: Real
    pixels: Real
    residual: Real
    spread: Real
    rounding: Real
    usable: Bool

    def normal(self, intrinsics: Intrinsics) -> Real:
        """Unit normals (3, H, W)."""
        fx, fy, cx, cy = intrinsics
        columns, rows = _pixel_grid(self.slope_x.shape)
        on_axis = self.at_centre - self.slope_x * (columns - cx) - self.slope_y * (rows - cy)
        normal = -np.stack([self.slope_x * fx, self.slope_y * fy, on_axis])
        normal /= np.where(self.usable, np.sqrt((normal**2).sum(0)), 1)
        return normal

    def weight(self, expected: Real) -> Real:
        """How much the plane counts: 0 where there is none, else the inverse variance of its slopes, squared so that a window
        across an edge counts almost nothing beside a window that ends at it. `expected`: the residual of a right plane.
        """
        excess = np.maximum(self.residual - expected, 0)
        # Errors of pixels are independent and average out; the residuals of a wrong plane are not, hence the number of pixels.
        variance = (expected + self.pixels * excess) * self.spread
        weight = np.divide(1.0, variance**2, out=np.zeros_like(variance), where=self.usable)
        weight[self.pixels < 4] *= 1e-6  # a plane fits any three pixels exactly: it counts only where there is no other
        return weight


def _fit_planes(inverse: Real, valid: Bool, size: int) -> _Planes:
    ones, d = np.ones(size), _offsets(size)
    mask = valid.astype(np.float64)
    n = np.maximum(_sum_windows(mask, ones, ones), 1)
    # Means over the window's valid pixels of x, y (from the window's centre) and inverse depth w; then sums of products of
    # deviations from these means.
    x, y, w = _sum_windows(mask, d, ones) / n, _sum_windows(mask, ones, d) / n, _sum_windows(inverse, ones, ones) / n
    xx = _sum_windows(mask, d**2, ones) - n * x**2
    yy = _sum_windows(mask, ones, d**2) - n * y**2
    xy = _sum_windows(mask, d, d) - n * x * y
    wx = _sum_windows(inverse, d, ones) - n * w * x
    wy = _sum_windows(inverse, ones, d) - n * w * y
    ww = _sum_windows(inverse**2, ones, ones) - n * w**2
    determinant = xx * yy - xy**2
    solvable = n * determinant > 0.5  # n * determinant is an integer, and 0 where all pixels are on one line
    determinant = np.where(solvable, determinant, 1)
    slope_x, slope_y = (wx * yy - wy * xy) / determinant, (wy * xx - wx * xy) / determinant
    at_centre = w - slope_x * x - slope_y * y
    return _Planes(
        slope_x=slope_x,
        slope_y=slope_y,
        at_centre=at_centre,
        pixels=n,
        residual=(ww - slope_x * wx - slope_y * wy) / np.maximum(n - 3, 1),
        spread=(xx + yy) / determinant,
        rounding=_DEPTH_STEP_M**2 / 12 * w**4,
        usable=solvable & (at_centre > 0),
    )


def _offsets(size: int) -> Real:
    """Positions along a window, from its centre."""
    return np.arange(size) - (size - 1) / 2


def _pixel_grid(shape: tuple[int, ...]) -> tuple[Real, Real]:
    """Column indices (W,) and row indices (H, 1)."""
    height, width = shape
    return np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None]


def _sum_windows(values: Real, across: Real, down: Real) -> Real:
    """The sum of values * across[x] * down[y] over the window around every pixel; values outside the image are 0."""
    height, width = values.shape
    radius = len(across) // 2
    padded = np.pad(values, radius)
    summed = sum(factor * padded[:, k : k + width] for k, factor in enumerate(across) if factor)
    return np.asarray(sum(factor * summed[k : k + height] for k, factor in enumerate(down) if factor))


def _measure_at_standard_scale(gray: Real, measure: Callable[[Real], Real]) -> NDArray[np.float32]:
    """`measure` of a gray image (H, W) in [0, 1] at 512 pixels, brought back to (1, H, W) by means over areas."""
    height, width = gray.shape
    scale = STANDARD_SIDE / min(height, width)
    if scale == 1:
        return np.asarray(measure(gray)[None], np.float32)
    size = (round(width * scale), round(height * scale))
    resized = Image.fromarray(gray.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    measured = measure(np.clip(np.asarray(resized, np.float64), 0, 1)).astype(np.float32)
    return np.asarray(Image.fromarray(measured).resize((width, height), Image.Resampling.BOX))[None]


def _to_gray(where: str, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise UserError(
            f"{where}: got {rgb.dtype} {rgb.shape}; expected uint8 (H, W, 3); pass np.asarray(image.convert('RGB'))"
        )
    # Taskonomy's files were made from Pillow's gray; other weights or another rounding give other labels.
    return np.asarray(Image.fromarray(rgb).convert("L")) / 255


def _check_geometry(where: str, depth_m: Real, intrinsics: Intrinsics, valid: Bool) -> None:
    if depth_m.ndim != 2 or not np.issubdtype(depth_m.dtype, np.floating):
        raise UserError(f"{where}: got depth_m of {depth_m.dtype} {depth_m.shape}; expected float (H, W); convert it to metres")
    if valid.shape != depth_m.shape or valid.dtype != np.bool_:
        raise UserError(f"{where}: got valid of {valid.dtype} {valid.shape}; expected bool {depth_m.shape}; True counts")
    if len(intrinsics) != 4 or not (intrinsics[0] > 0 and intrinsics[1] > 0):
        raise UserError(f"{where}: got intrinsics {intrinsics}; expected (fx, fy, cx, cy) with fx, fy > 0; give them in pixels")
