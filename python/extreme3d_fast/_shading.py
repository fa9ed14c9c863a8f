"""Light on a face, for shape from shading and the bump network: linear RGB, normals, harmonics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, UInt8, float_array
from .camera import Camera

Bool = npt.NDArray[np.bool_]

# sRGB code value -> linear light in [0, 1] (IEC 61966-2-1).
_CODE = np.arange(256) / 255.0
_LINEAR_FROM_SRGB = np.where(
    _CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4
).astype(np.float32)

# Luminance for skin: more red than Rec. 709, because pigment, blood and lips change red least.
_LUMINANCE = np.array([[0.45, 0.45, 0.10]], np.float32)

# Normals are taken from depth smoothed by this much, mm: facets and fit errors at the nose and
# eyelids must not enter the shading.
_NORMAL_SMOOTHING = 1.5

# Light is sampled on every n-th pixel in x and y, since it has nine unknowns.
_FIT_STRIDE = 4
_FIT_ROUNDS = 6
# Tukey's constant on scaled residuals; beyond it a pixel (hair, brow, occluder) has no say.
_TUKEY = 3.0
# Ridge per harmonic, relative to the sample count: orders 0-1 free, order 2 held small, because a
# visible face covers less than half of the sphere of normals.
LIGHT_RIDGE = np.array([1e-3] * 4 + [3e-2] * 5)


# A face is 165 mm high: 4 to 16,000 pixels.
LEAST_MM_PER_PIXEL, MOST_MM_PER_PIXEL = 0.01, 40.0


@dataclass(frozen=True)
class FaceWindow:
    """The part of a crop that holds the face, and its metric scale.

    Attributes:
        rows, columns: where it lies in the crop.
        mm_per_pixel: size of a pixel at the face's median depth.
    """

    rows: slice
    columns: slice
    mm_per_pixel: float


def check_photo(
    image: npt.ArrayLike, weight: npt.ArrayLike, depth: npt.ArrayLike
) -> tuple[UInt8, Float32, Float32]:
    """The three maps as arrays of one size.

    Raises:
        TypeError, ValueError: a map has the wrong dtype, shape or values.
    """
    rgb = np.asarray(image)
    if rgb.dtype != np.uint8:
        raise TypeError(f"`image` should be uint8, has dtype {rgb.dtype}")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"`image` should have shape (H, W, 3), has {rgb.shape}")
    size = rgb.shape[:2]
    w = float_array("weight", weight, size)
    z = float_array("depth", depth, size)
    if not (np.isfinite(w).all() and w.size and w.min() >= 0 and w.max() <= 1):
        raise ValueError("`weight` should lie in [0, 1]")
    if np.isnan(z).any() or (z <= 0).any():
        raise ValueError("`depth` should be positive mm, +inf where no face; it has other values")
    return np.ascontiguousarray(rgb), w, z


def face_window(
    weight: Float32, depth: Float32, camera: Camera, margin: float
) -> FaceWindow | None:
    """Bounding box of the weighted face, with a margin in mm; None where there is no face.

    Raises:
        ValueError: depth and focal length give a pixel a size that no photo of a face has.
    """
    face = (weight > 0) & np.isfinite(depth)
    rows, columns = np.flatnonzero(face.any(axis=1)), np.flatnonzero(face.any(axis=0))
    if len(rows) < 8 or len(columns) < 8:
        return None
    mm = float(np.median(depth[face][::7])) / camera.fx
    if not LEAST_MM_PER_PIXEL < mm < MOST_MM_PER_PIXEL:
        raise ValueError(f"`depth` should be mm, gives a pixel of {mm:.2g} mm")
    pad = int(np.ceil(margin / mm))
    height, width = weight.shape
    return FaceWindow(
        slice(max(int(rows[0]) - pad, 0), min(int(rows[-1]) + pad + 1, height)),
        slice(max(int(columns[0]) - pad, 0), min(int(columns[-1]) + pad + 1, width)),
        mm,
    )


def f32(a: Any) -> Float32:
    """An OpenCV or NumPy result that is float32 already, typed as such."""
    return np.asarray(a, dtype=np.float32)


def gradient(a: Float32) -> tuple[Float32, Float32]:
    """Slopes in x and y per pixel."""
    # Sobel's kernel sums to 8 per unit slope.
    return (
        f32(cv2.Sobel(a, cv2.CV_32F, 1, 0, scale=1 / 8)),
        f32(cv2.Sobel(a, cv2.CV_32F, 0, 1, scale=1 / 8)),
    )


def blur(a: Float32, sigma: float) -> Float32:
    """Gaussian blur, sigma in pixels; nothing happens below a third of a pixel."""
    if sigma < 0.34:
        return a
    # 3 sigma each side instead of OpenCV's 4 for floats: the rest is below 0.3 %.
    side = 2 * int(np.ceil(3.0 * sigma)) + 1
    return f32(cv2.GaussianBlur(a, (side, side), sigma, borderType=cv2.BORDER_REPLICATE))


def linear_rgb(image: UInt8) -> Float32:
    """Linear light in [0, 1] of an sRGB image."""
    return f32(cv2.LUT(image, _LINEAR_FROM_SRGB))


def luminance(linear: Float32) -> Float32:
    """(h, w) luminance of (h, w, 3) linear light, weighted for skin."""
    return f32(cv2.transform(linear, _LUMINANCE))


def foundation_normals(depth: Float32, mm_per_pixel: float) -> tuple[Float32, Float32, Float32]:
    """Unit normals towards the camera (OpenCV axes, nz < 0), from smoothed depth."""
    seen = np.isfinite(depth).astype(np.float32)
    sigma = _NORMAL_SMOOTHING / mm_per_pixel
    z = blur(np.where(seen > 0, depth, np.float32(0)), sigma)
    z /= np.maximum(blur(seen, sigma), np.float32(1e-3))
    z *= np.float32(1.0 / mm_per_pixel)
    # Surface z(x, y): normal (dz/dx, dz/dy, -1).
    zx, zy = gradient(z)
    n = f32(1 / np.sqrt(1 + zx * zx + zy * zy))
    return f32(zx * n), f32(zy * n), -n


def harmonics(nx: Float32, ny: Float32, nz: Float32) -> tuple[Float32, ...]:
    """The nine second-order spherical harmonics up to constant factors."""
    one = np.ones_like(nx)
    return one, nx, ny, nz, nx * ny, nx * nz, ny * nz, nx * nx - ny * ny, 3 * nz * nz - one


def light_samples(
    bright: Float32, use: Bool, normals: tuple[Float32, ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Luminance (n,) and harmonics (n, 9) of some of the pixels that may be skin.

    Args:
        bright: (h, w) linear luminance, lightly smoothed.
        use: (h, w) pixels that may be skin.
        normals: three (h, w) components.
    """
    stride = slice(_FIT_STRIDE // 2, None, _FIT_STRIDE)
    sample = use[stride, stride]
    basis = np.stack(harmonics(*(n[stride, stride][sample] for n in normals)), axis=-1)
    return bright[stride, stride][sample].astype(np.float64), basis.astype(np.float64)


def fit_light(
    samples: npt.NDArray[np.float64], basis: npt.NDArray[np.float64], level: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Robust light on `light_samples`.

    Returns:
        (9,) coefficients of luminance less `level`, and Tukey's weight of each sample (n,).
    """
    # The ridge pulls towards an evenly lit face.
    ridge = np.diag(LIGHT_RIDGE) * len(samples)
    target = samples - level
    trust = np.ones_like(target)
    coefficients = np.zeros(9)
    for _ in range(_FIT_ROUNDS):
        weighted = basis * trust[:, None]
        coefficients = np.linalg.solve(weighted.T @ basis + ridge, weighted.T @ target)
        error = target - basis @ coefficients
        scale = 1.4826 * float(np.median(np.abs(error))) + 1e-3 * level
        trust = np.square(np.clip(1 - np.square(error / (_TUKEY * scale)), 0, 1))
    return coefficients, trust


def square(reach: float) -> UInt8:
    """Kernel that reaches so many pixels, at least one, to each side."""
    side = 2 * max(round(reach), 1) + 1
    return np.ones((side, side), np.uint8)


def lost_pixels(rgb: UInt8, margin: float) -> Bool:
    """Pixels that hold no shading: padding and clipped ones, and those within `margin` px of them,
    where resampling and compression have mixed the two."""
    red, green, blue = cv2.split(rgb)
    lost = (np.maximum(np.maximum(red, green), blue) <= 2) | (
        np.minimum(np.minimum(red, green), blue) >= 252
    )
    return np.asarray(cv2.dilate(lost.view(np.uint8), square(margin)) > 0)
