"""RGB-D -> normals, reshading, edges, keypoints, by the formulas with which Taskonomy made its files of these labels.

The formulas were verified on real files of Taskonomy. Only the normals have another source: depth here, the mesh there. Camera
frame: x right, y down, z forward; intrinsics are (fx, fy, cx, cy) in pixel indices, 0 being the centre of the first pixel.
Edges and keypoints need scikit-image (the extra `labels`); the others need NumPy alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.errors import UserError

Intrinsics = tuple[float, float, float, float]
Bool = NDArray[np.bool_]
Real = NDArray[np.floating[Any]]

_DEPTH_STEP_M = 1 / 512  # in Taskonomy's depth files
_EDGE_SIGMA = 3.0
_KEYPOINT_SIGMAS = np.linspace(1, 30, 10)
_WINDOW_SIZES = (3, 5, 7)
_NO_SKIMAGE = '{} needs scikit-image; install it with: pip install -e ".[labels]"'


def edge_texture(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Texture edges: the gradient magnitude of Canny's detector before non-maximum suppression.

    `rgb` is uint8 (H, W, 3). Returns float32 (1, H, W), the files' 16-bit value / 65535; the outermost rows and columns
    are 0. Raises UserError for another shape or dtype, and without scikit-image.
    """
    gray = _to_gray("labels.edge_texture", rgb)
    try:
        from skimage.filters import gaussian, sobel
    except ImportError as error:
        raise UserError(_NO_SKIMAGE.format("labels.edge_texture")) from error
    weight = gaussian(np.ones_like(gray), _EDGE_SIGMA, mode="constant")  # below 1 near the border, where the filter sees less
    edges = sobel(gaussian(gray, _EDGE_SIGMA, mode="constant") / weight)
    edges[[0, -1], :] = 0
    edges[:, [0, -1]] = 0
    return np.asarray(edges[None], np.float32)


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
    response = np.zeros_like(gray)
    for sigma in _KEYPOINT_SIGMAS:
        np.maximum(response, hessian_matrix_det(gray, sigma, approximate=True), out=response)
    return response.astype(np.float32)[None]


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


def normals_from_depth(depth_m: Real, intrinsics: Intrinsics, valid: Bool) -> tuple[NDArray[np.float32], Bool]:
    """Surface normals, pointing towards the camera, from least-squares planes of inverse depth in small windows.

    On a plane, inverse depth is an affine function of the pixel's position. A plane is fitted to windows of three sizes around
    every pixel, and a pixel's normal is the mean over all windows that contain it, weighted by the certainty of each fit
    (`_fit_planes`). Beside an edge the windows on the pixel's own side have the largest weight, on a wall the large windows.

    `depth_m` (H, W) is along z, `valid` bool (H, W). Returns float32 (3, H, W) unit vectors and their mask, bool (H, W). The
    mask is False and the normal 0 where `valid` is False, where depth is not finite or not positive, and where no window has
    three valid pixels that are not on one line. Raises UserError for shapes or dtypes that do not fit together.
    """
    _check_geometry("labels.normals_from_depth", depth_m, intrinsics, valid)
    valid = valid & np.isfinite(depth_m) & (depth_m > 0)
    inverse = np.divide(1.0, depth_m, out=np.zeros(depth_m.shape), where=valid)
    total = np.zeros((3, *depth_m.shape))
    for size in _WINDOW_SIZES:
        normal, weight = _fit_planes(inverse, valid, size, intrinsics)
        nearness = 1 - np.abs(_offsets(size)) / (size // 2 + 1)  # on a curved surface the plane fits best at the centre
        total += [_sum_windows(channel * weight, nearness, nearness) for channel in normal]
    length = np.sqrt((total**2).sum(0))
    mask = valid & (length > 0)
    return np.divide(total, length, out=np.zeros_like(total), where=mask).astype(np.float32), mask


def _fit_planes(inverse: Real, valid: Bool, size: int, intrinsics: Intrinsics) -> tuple[Real, Real]:
    """Unit normal (3, H, W) and weight (H, W) of the plane through the size x size window around every pixel.

    The weight is 0 where there is no plane, else the inverse variance of the plane's slopes, squared so that a window across
    an edge counts almost nothing beside a window that ends at it. Residuals no larger than the rounding of depth count as 0.
    """
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
    usable = solvable & (at_centre > 0)

    fx, fy, cx, cy = intrinsics
    columns, rows = _pixel_grid(inverse.shape)
    on_axis = at_centre - slope_x * (columns - cx) - slope_y * (rows - cy)
    normal = -np.stack([slope_x * fx, slope_y * fy, on_axis])
    normal /= np.where(usable, np.sqrt((normal**2).sum(0)), 1)

    rounding = _DEPTH_STEP_M**2 / 12 * w**4  # variance of the rounding error, in inverse depth
    excess = np.maximum((ww - slope_x * wx - slope_y * wy) / np.maximum(n - 3, 1) - rounding, 0)
    # Rounding errors of pixels are independent and average out; the residuals of a wrong plane are not, hence the factor n.
    variance = (rounding + n * excess) * (xx + yy) / determinant
    weight = np.divide(1.0, variance**2, out=np.zeros_like(variance), where=usable)
    weight[n < 4] *= 1e-6  # a plane fits any three pixels exactly: such a window counts only where there is no other
    return normal, weight


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
