"""Shape from shading: the training-free bump map, and where the bump network's targets come from.

In the manner of RGBD-Fusion (Or-El et al., CVPR 2015), with the foundation as the depth to refine:
second-order spherical-harmonic light is fitted robustly to the foundation's normals, an albedo that
is smooth but for edges of colour and of broad steps is taken off, and what remains is explained by
relief. Two things shade relief: slopes turn towards or away from the light, and hollows see less of
their surroundings ("dark is deep"; Glencross et al. 2008, Beeler et al. 2010). Both are linear in
the relief about the foundation, so each octave of it is one linear solve (cpp/src/shading.cpp).
docs/detail.md tells what it can and cannot tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, mask_array
from ._shading import (
    blur,
    check_photo,
    f32,
    face_window,
    fit_light,
    foundation_normals,
    harmonics,
    light_samples,
    linear_rgb,
    lost_pixels,
    luminance,
    square,
)
from .camera import Camera

__all__ = ["MAX_RELIEF", "shape_from_shading"]

Bool = npt.NDArray[np.bool_]

MAX_RELIEF = 6.0
"""Limit of the displacement, mm; what is near it is bent, not cut."""

# Lengths are millimetres on the face, so that a crop's size does not matter.
_MARGIN = 8.0
"""Added round the face before anything is solved."""
_LOST_MARGIN = 1.0
"""Distance kept from clipped pixels and from padding outside the photo."""
_OCCLUDER_MARGIN = 3.0
"""Distance kept from occluders: their edges are soft and shade the skin."""

# Light.
_LIGHT_SMOOTHING = 1.0
_LEAST_SAMPLES = 50
_LEAST_SHADING = 0.15
"""Of the face's median: light from nowhere near still leaves something."""
_SLOPE_STEP = 0.05
"""Of the slopes by which the light's derivative is taken."""

# Albedo.
_SHADOW_FLOOR = 0.25
"""Of the face's median luminance, added before the logarithm: what the dark parts of a face lack in
light they get from the rest of it, and a photo of them is noise."""
_COLOUR_FLOOR = 0.02
_COLOUR_SMOOTHING, _STEP_SMOOTHING = 0.6, 0.7
_COLOUR_EDGE = 0.06
"""Change of log chromaticity per mm that is an edge of the albedo: lips, make-up, moles."""
_STEP_EDGE = 0.12
"""Change of log shading per mm that may be one: brows, beards, cast shadows."""
_ALBEDO_REACH = 8.0
"""Over which an albedo without edges is smooth."""
_HAIR_SHADE, _HAIR_SMOOTHING, _HAIR_GROWTH = -0.7, 1.5, 1.5
"""Log shading of what is broad and darker than folds are: brows, beards, cast shadows; over and
beyond how many mm."""
_ALBEDO_TOLERANCE = 3e-3
"""Residual; the relief is then right to a few µm."""
_MAX_DETAIL = 0.6
"""Soft limit of log shading: nothing of a face is darker for its relief alone."""

# Relief.
_SLOPE_SHARE = 0.7
"""Of the light's derivative that is believed: lights near the face and light that scatters inside
the skin shade less."""
_AMBIENT = 0.5
"""Log shading lost per unit of slope inside a hollow, from light that comes from all round."""
_RELIEF_RIDGE = 0.01
"""λ, 1/mm²: (_AMBIENT · 2π / 30 mm)², so that longer waves are left to the foundation."""
_STIFFNESS = 0.02
"""µ: what costs a crease one pixel wide as much as noise of the photo is worth."""
_TOLERANCE = 1e-3
_MAX_ITERATIONS = 40


@dataclass(frozen=True)
class _Light:
    """Second-order spherical-harmonic light: radiance of a surface by its slopes."""

    level: float
    coefficients: npt.NDArray[np.float64]

    def shading(self, zx: Float32, zy: Float32) -> Float32:
        """Linear luminance of skin of even albedo whose depth changes by zx, zy per unit."""
        inverse = f32(1 / np.sqrt(1 + zx * zx + zy * zy))
        normals = (f32(zx * inverse), f32(zy * inverse), -inverse)
        out = np.full_like(zx, self.level)
        for coefficient, harmonic in zip(self.coefficients, harmonics(*normals), strict=True):
            out += np.float32(coefficient) * harmonic
        return f32(np.maximum(out, np.float32(_LEAST_SHADING * self.level)))


def shape_from_shading(
    image: npt.ArrayLike,
    weight: npt.ArrayLike,
    depth: npt.ArrayLike,
    camera: Camera,
    face_mask: npt.ArrayLike | None = None,
) -> Float32:
    """Bump map of a photo by shape from shading, without any training.

    Args:
        image: (H, W, 3) uint8 RGB crop.
        weight: (H, W) in [0, 1], how much of the bump map applies: 1 on the face, fading to 0 at
            its border, 0 on eyes, inner mouth and outside.
        depth: (H, W) mm, depth of the foundation, +inf where no face.
        camera: camera of the crop; only its focal length is used, for the size of a pixel.
        face_mask: (H, W) bool, pixels whose shading is that of skin; None: all of them. Elsewhere
            the map continues smoothly and holds nothing of the occluder.

    Returns:
        (H, W) float32 mm along the viewing direction, positive = deeper, within ±6 mm, 0 where the
        weight is 0.

    Raises:
        TypeError: a map has a dtype that cannot be used.
        ValueError: a map has the wrong shape or values outside its range.
    """
    rgb, w, z = check_photo(image, weight, depth)
    seen = None if face_mask is None else mask_array("face_mask", face_mask, w.shape)
    out = np.zeros(w.shape, np.float32)
    window = face_window(w, z, camera, _MARGIN)
    if window is None:
        return out
    mm = window.mm_per_pixel
    cut = (window.rows, window.columns)
    rgb, w, z = rgb[cut], w[cut], z[cut]
    region = w > 0
    trusted = region & np.isfinite(z) & ~lost_pixels(rgb, _LOST_MARGIN / mm)
    if seen is not None:
        trusted &= cv2.erode(seen[cut], square(_OCCLUDER_MARGIN / mm)) > 0

    linear = linear_rgb(rgb)
    bright = luminance(linear)
    normals = foundation_normals(z, mm)
    light = _fit_light(blur(bright, _LIGHT_SMOOTHING / mm), trusted & (w > 0.3), normals)
    zx, zy = f32(-normals[0] / normals[2]), f32(-normals[1] / normals[2])
    floor = np.float32(_SHADOW_FLOOR * light.level)
    log_shading = np.log(light.shading(zx, zy) + floor)
    ratio = f32(np.log(bright + floor) - log_shading)
    if trusted.any():
        ratio -= np.float32(np.median(ratio[trusted]))

    trusted &= ~_hair(ratio, mm)
    confidence = trusted.astype(np.float32)
    albedo = _albedo(linear, ratio, confidence, mm)
    limit = np.float32(_MAX_DETAIL)
    detail = limit * np.tanh((ratio - albedo) / limit) * confidence

    def per_slope(step_x: float, step_y: float) -> Float32:
        sx, sy = np.float32(step_x), np.float32(step_y)
        high, low = light.shading(zx + sx, zy + sy), light.shading(zx - sx, zy - sy)
        change = np.log(high + floor) - np.log(low + floor)
        return f32(change * np.float32(_SLOPE_SHARE / (2 * _SLOPE_STEP)))

    relief = _core.relief_from_shading(
        f32(detail),
        confidence,
        per_slope(_SLOPE_STEP, 0.0),
        per_slope(0.0, _SLOPE_STEP),
        region.view(np.uint8),
        mm,
        _AMBIENT,
        _RELIEF_RIDGE,
        _STIFFNESS,
        _TOLERANCE,
        _MAX_ITERATIONS,
    )
    most = np.float32(MAX_RELIEF)
    out[cut] = most * np.tanh(relief / most) * w
    return out


def _fit_light(bright: Float32, use: Bool, normals: tuple[Float32, ...]) -> _Light:
    """Light of a photo on the foundation's normals."""
    y, basis = light_samples(bright, use, normals)
    if len(y) < _LEAST_SAMPLES:
        return _Light(max(float(np.median(bright)), 1e-3), np.zeros(9))
    level = max(float(np.median(y)), 1e-4)
    return _Light(level, fit_light(y, basis, level)[0])


def _albedo(linear: Float32, ratio: Float32, confidence: Float32, mm: float) -> Float32:
    """Log albedo: smooth over _ALBEDO_REACH, but for edges of colour and steps of shading."""
    logs = np.log(linear + np.float32(_COLOUR_FLOOR))
    chroma = blur(f32(logs[..., ::2] - logs[..., 1:2]), _COLOUR_SMOOTHING / mm)
    smooth = blur(ratio, _STEP_SMOOTHING / mm)

    def links(axis: int) -> Float32:
        colour = np.square(np.diff(chroma, axis=axis)).sum(axis=2) / (_COLOUR_EDGE * mm) ** 2
        step = np.square(np.diff(smooth, axis=axis)) / (_STEP_EDGE * mm) ** 2
        out = np.zeros_like(ratio)
        inside = (slice(None), slice(-1)) if axis == 1 else (slice(-1),)
        out[inside] = (_ALBEDO_REACH / mm) ** 2 * np.exp(-0.5 * (colour + step))
        return out

    albedo: Float32 = np.asarray(
        _core.solve_albedo(ratio, confidence, links(1), links(0), _ALBEDO_TOLERANCE)[0]
    )
    return albedo


def _hair(ratio: Float32, mm: float) -> Bool:
    """Pixels so dark over some mm that it cannot be for relief."""
    dark = blur(ratio, _HAIR_SMOOTHING / mm) < np.float32(_HAIR_SHADE)
    return np.asarray(cv2.dilate(dark.view(np.uint8), square(_HAIR_GROWTH / mm)) > 0)
