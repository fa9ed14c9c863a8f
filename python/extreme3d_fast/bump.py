"""Bump maps: displacement of the face surface in millimetres, its 8-bit code, and a shading rule.

Tran et al. 2018, §4.1. A bump map Δ is (S, S) float32 in millimetres along the viewing direction,
positive = deeper than the foundation (z' = z + Δ, Eq. 4), 0 where there is no detail.

The shading rule is the training-free stand-in for the paper's network. It inverts, in one linear
filter, the two ways in which relief shades a face: hollows see less of their surroundings ("dark is
deep", Glencross et al. 2008, Beeler et al. 2010) and slopes turn towards or away from the light
(linear shape from shading, Pentland 1990). docs/detail.md derives it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, UInt8, float_array, mask_array
from ._shading import (
    Light,
    blur,
    box_mean,
    check_photo,
    f32,
    face_window,
    fit_light,
    foundation_normals,
    gradient,
    linear_rgb,
    luminance,
)
from .camera import Camera

__all__ = [
    "MAX_BUMP",
    "authors_map_from_bump",
    "bump_from_authors_map",
    "decode_bump",
    "encode_bump",
    "estimate_bump",
]

# θ of Eq. 3 as in the authors' release: level 127 is no displacement, 12 levels are 1.25 mm, and a
# brighter level is NEARER the camera (their z axis points backwards), so it is a negative Δ here.
_ZERO_LEVEL = 127
_LEVELS_PER_MM = 12 / 1.25

# The authors' network pads the 500-pixel image: image pixel (x, y) is map pixel (x + 6, y + 6).
_AUTHORS_OFFSET = 6
_AUTHORS_SIZE = 512

MAX_BUMP = 2.0
"""Largest displacement of the shading rule, mm."""

# The shading rule. Lengths are millimetres on the face, so that a crop's size does not matter.
_MARGIN = 10.0
"""Added round the face before filtering."""
_SHADOW_FLOOR = 0.006
"""Added to linear luminance before the logarithm: below it a photo holds noise, not shading."""
_BASE_RADIUS = 6.0
_BASE_CONTRAST = 0.25
"""Guided filter that splits shading of form from detail: steps of more than this log contrast over
this radius (shadow edges, hair, brows, lips, frames) stay in the form; narrow lines are detail."""
_LOST_MARGIN = 1.0
"""Distance kept from clipped pixels and from padding outside the photo."""
_OCCLUDER_MARGIN = 3.0
"""Distance kept from occluders: their edges are soft and shade the skin."""
_EXTENSION = 2.0
"""How far detail is continued into pixels that are not trusted."""
_BAND_SIGMAS = (0.5, 1.0, 2.0, 4.0)
_NOISE_IN_BAND = (1.0, 0.3, 0.06, 0.0)
"""Gaussian differences, and the share of the finest band's noise power found in each (between the
1/4 of white noise and the slower fall of JPEG noise)."""
_NOISE_PERCENTILE = 25
_TEXTURE_RADIUS = 3.5
"""Half side of the square over which texture is measured."""
_ISOTROPIC_GAIN = 0.3
"""Folds and wrinkles are lines; texture without direction (pores, stubble, freckles, noise) keeps
this share."""
_SPOT_SIGMA = 1.0
_SPOT_LOSS = 0.8
"""Moles, freckles, pimples and stubble are round and small: they lose this share."""
_DARK_LIMIT = 0.6
_BRIGHT_LIMIT = 0.35
"""Soft limits of log contrast: brows and frames are darker than wrinkles, highlights brighter."""
_AMBIENT = 0.5
"""Log shading lost per unit of slope inside a hollow, from light that comes from all round."""
_MAX_TILT = 1.2
_LONGEST_WAVE = 30.0
"""Relief of longer waves belongs to the foundation."""
_GAIN = 3.0
"""Makes up for what the limits above take away; chosen by eye on portraits of all ages."""


def encode_bump(bump: npt.ArrayLike) -> UInt8:
    """Bump map as the paper's 8-bit image, θ of Eq. 3, in the authors' sign.

    Level 127 is no displacement, 12 levels are 1.25 mm, brighter is nearer the camera.

    Args:
        bump: (..., ) millimetres, positive = deeper.

    Returns:
        uint8 of the same shape; rounded, clipped to [0, 255] (+13.23 to -13.33 mm).

    Raises:
        TypeError: `bump` does not hold real numbers.
        ValueError: `bump` holds NaN.

    Example:
        >>> encode_bump([0.0, 1.25, -1.25]).tolist()
        [127, 115, 139]
    """
    mm = float_array("bump", bump, np.shape(bump))
    if np.isnan(mm).any():
        raise ValueError("`bump` should not hold NaN")
    levels = np.rint(_ZERO_LEVEL - _LEVELS_PER_MM * mm.astype(np.float64))
    return np.clip(levels, 0, 255).astype(np.uint8)


def decode_bump(levels: npt.ArrayLike) -> Float32:
    """Bump map in millimetres of the paper's 8-bit image, θ⁻¹ of Eq. 4.

    Args:
        levels: (..., ) uint8, 127 = no displacement, 12 levels = 1.25 mm, brighter = nearer.

    Returns:
        float32 of the same shape, positive = deeper.

    Raises:
        TypeError: `levels` is not uint8.

    Example:
        >>> decode_bump(np.uint8([127, 115, 139])).tolist()
        [0.0, 1.25, -1.25]
    """
    code = np.asarray(levels)
    if code.dtype != np.uint8:
        raise TypeError(f"`levels` should be uint8, has dtype {code.dtype}")
    return ((_ZERO_LEVEL - code.astype(np.float64)) / _LEVELS_PER_MM).astype(np.float32)


def bump_from_authors_map(levels: npt.ArrayLike, size: int = 500) -> Float32:
    """Bump map of a crop from a map file of the authors' release.

    Args:
        levels: (512, 512) uint8 image `*_bump.png`.
        size: side of the crop that it belongs to.

    Returns:
        (size, size) float32 mm, positive = deeper.

    Raises:
        TypeError: `levels` is not uint8.
        ValueError: wrong shape, or a size above 500.
    """
    _check_authors_size(size)
    mm = decode_bump(levels)
    if mm.shape != (_AUTHORS_SIZE, _AUTHORS_SIZE):
        raise ValueError(f"`levels` should have shape (512, 512), has {mm.shape}")
    inside = slice(_AUTHORS_OFFSET, _AUTHORS_OFFSET + size)
    return np.ascontiguousarray(mm[inside, inside])


def authors_map_from_bump(bump: npt.ArrayLike) -> UInt8:
    """Map file in the layout of the authors' release, 127 outside the crop.

    Args:
        bump: (S, S) millimetres, S at most 500.

    Returns:
        (512, 512) uint8.

    Raises:
        ValueError: not square, larger than 500, or NaN.
    """
    levels = encode_bump(bump)
    if levels.ndim != 2 or levels.shape[0] != levels.shape[1]:
        raise ValueError(f"`bump` should have shape (S, S), has {levels.shape}")
    _check_authors_size(levels.shape[0])
    out = np.full((_AUTHORS_SIZE, _AUTHORS_SIZE), _ZERO_LEVEL, np.uint8)
    inside = slice(_AUTHORS_OFFSET, _AUTHORS_OFFSET + levels.shape[0])
    out[inside, inside] = levels
    return out


def _check_authors_size(size: int) -> None:
    if not 1 <= size <= _AUTHORS_SIZE - 2 * _AUTHORS_OFFSET:
        raise ValueError(f"`size` should be in [1, 500], is {size}")


def estimate_bump(
    image: npt.ArrayLike,
    weight: npt.ArrayLike,
    depth: npt.ArrayLike,
    camera: Camera,
    face_mask: npt.ArrayLike | None = None,
    *,
    strength: float = 1.0,
) -> Float32:
    """Bump map of a photo by the shading rule, the stand-in for the network of §4.1.

    Args:
        image: (H, W, 3) uint8 RGB crop.
        weight: (H, W) in [0, 1], how much of the bump map applies: 1 on the face, fading to 0 at
            its border, 0 on eyes, inner mouth and outside.
        depth: (H, W) mm, depth of the foundation, +inf where no face.
        camera: camera of the crop; only its focal length is used, for the size of a pixel.
        face_mask: (H, W) bool, pixels where the face is seen unobstructed; None: all of them.
            Elsewhere the map continues smoothly and holds nothing of the occluder.
        strength: scale of the relief; 1 is natural.

    Returns:
        (H, W) float32 mm along the viewing direction, positive = deeper, within ±2 mm, 0 where the
        weight is 0.

    Raises:
        TypeError: a map has a dtype that cannot be used.
        ValueError: a map has the wrong shape or values outside its range.
    """
    rgb, w, z = check_photo(image, weight, depth)
    if not (np.isfinite(strength) and strength >= 0):
        raise ValueError(f"`strength` should be finite and not negative, is {strength}")
    seen = None if face_mask is None else mask_array("face_mask", face_mask, w.shape)
    out = np.zeros(w.shape, np.float32)
    window = face_window(w, z, camera, _MARGIN)
    if window is None:
        return out
    mm = window.mm_per_pixel
    cut = (window.rows, window.columns)
    rgb, w, z = rgb[cut], w[cut], z[cut]

    # Pixels that show skin with some shading left in it: neither padding nor clipped, nor next to
    # them, where resampling and compression have mixed the two.
    red, green, blue = cv2.split(rgb)
    lost = (np.maximum(np.maximum(red, green), blue) <= 2) | (
        np.minimum(np.minimum(red, green), blue) >= 252
    )
    side = 2 * max(round(_LOST_MARGIN / mm), 1) + 1
    lost_or_near = cv2.dilate(lost.view(np.uint8), np.ones((side, side), np.uint8))
    trusted = (w > 0.02) & (lost_or_near == 0)
    if seen is not None:
        side = 2 * max(round(_OCCLUDER_MARGIN / mm), 1) + 1
        trusted &= cv2.erode(seen[cut], np.ones((side, side), np.uint8)) > 0
    trust = trusted.astype(np.float32)

    bright = luminance(linear_rgb(rgb))
    light = fit_light(
        blur(bright, 1.0 / mm),
        trusted & (w > 0.3) & np.isfinite(z),
        foundation_normals(z, mm),
    )
    detail = _log_detail(bright, light, trust, mm)
    detail = _suppress_texture(detail, w > 0.5, mm)
    # Shade per slope is weaker where the foundation itself is shaded.
    detail *= np.clip(light.shading * np.float32(1 / light.frontal), 0.4, 1.3)
    relief = _relief_from_shading(detail, light, mm)
    relief *= np.float32(_GAIN * strength / MAX_BUMP)
    out[cut] = np.float32(MAX_BUMP) * np.tanh(relief) * w
    return out


def _log_detail(bright: Float32, light: Light, trust: Float32, mm: float) -> Float32:
    """Log luminance without the shading of the foundation and without broad steps."""
    floor = np.float32(_SHADOW_FLOOR)
    ratio = np.log((bright + floor) / (light.shading + floor))
    middle = np.float32(np.median(ratio[trust > 0])) if (trust > 0).any() else np.float32(0)
    ratio = np.clip(ratio - middle, -2, 1)
    # Self-guided filter (He et al. 2013) on the trusted pixels alone.
    side = 2 * round(_BASE_RADIUS / mm) + 1

    share = np.maximum(box_mean(trust, side), np.float32(0.02))
    kept = ratio * trust
    average = box_mean(kept, side) / share
    variance = np.maximum(box_mean(kept * ratio, side) / share - average * average, 0)
    slope = variance / (variance + np.float32(_BASE_CONTRAST**2))
    offset = (1 - slope) * average
    detail = (ratio - box_mean(slope, side) * ratio - box_mean(offset, side)) * trust
    # Fades out beyond the trusted pixels instead of ending in a cliff.
    sigma = _EXTENSION / mm
    around = blur(detail, sigma) / (blur(trust, sigma) + np.float32(0.1))
    return f32(np.where(trust > 0, detail, around))


def _suppress_texture(detail: Float32, face: npt.NDArray[np.bool_], mm: float) -> Float32:
    """Less of what is not relief: noise, texture without direction, very dark or bright marks."""
    out = np.zeros_like(detail)
    finer, noise = detail, 0.0
    side = 2 * round(_TEXTURE_RADIUS / mm) + 1
    for band, sigma in enumerate(_BAND_SIGMAS):
        coarser = blur(detail, sigma / mm)
        part = finer - coarser
        finer = coarser
        power = box_mean(part * part, side)
        if band == 0:
            noise = float(np.percentile(power[face], _NOISE_PERCENTILE)) if face.any() else 0.0
        # Wiener's rule, with twice the noise's power.
        out += part * (power / (power + np.float32(2 * noise * _NOISE_IN_BAND[band] + 1e-9)))
    gx, gy = gradient(out)
    xx, yy, xy = (box_mean(a, side) for a in (gx * gx, gy * gy, gx * gy))
    coherence = np.sqrt(np.square(xx - yy) + 4 * xy * xy) / (xx + yy + np.float32(1e-8))
    line = np.clip((coherence - 0.2) * 2, 0, 1)
    line *= line * (3 - 2 * line)
    out *= np.float32(_ISOTROPIC_GAIN) + np.float32(1 - _ISOTROPIC_GAIN) * line
    out *= 1 - np.float32(_SPOT_LOSS) * _spots(out, mm)
    limit = np.where(out < 0, np.float32(_DARK_LIMIT), np.float32(_BRIGHT_LIMIT))
    return f32(limit * np.tanh(out / limit))


def _spots(detail: Float32, mm: float) -> Float32:
    """How much each pixel lies on a round spot instead of a line, in [0, 1], by the Hessian."""
    smooth = blur(detail, _SPOT_SIGMA / mm)
    gx, gy = gradient(smooth)
    (xx, xy), (_, yy) = gradient(gx), gradient(gy)
    trace = xx + yy
    # 1 where both principal curvatures are equal, 0 where one is zero, below for saddles.
    roundness = 4 * (xx * yy - xy * xy) / (trace * trace + np.float32(1e-9))
    spot = np.clip((roundness - 0.3) * 2.5, 0, 1)
    return blur(f32(spot * spot * (3 - 2 * spot)), _SPOT_SIGMA / mm)


def _relief_from_shading(detail: Float32, light: Light, mm: float) -> Float32:
    """Displacement in mm, positive = deeper, whose linearised shading is `detail`.

    A displacement D(ω) changes the log shading by K(ω) D(ω) with K = -a|ω| + i t·ω: what the
    hollow loses of the light from all round, and the slope towards the light at tilt t. Inverted
    as Wiener does: conj(K) / (|K|² + a² ω₀²), which fades out waves longer than 2π/ω₀.
    """
    height, width = detail.shape
    rows, columns = cv2.getOptimalDFTSize(height), cv2.getOptimalDFTSize(width)
    # Light from the side shades twice as strongly as K may say before it is cast shadow.
    tilt = light.tilt * min(1.0, _MAX_TILT / max(float(np.hypot(*light.tilt)), 1e-9))
    wx = (2 * np.pi / mm * np.fft.rfftfreq(columns)).astype(np.float32)[None, :]
    wy = (2 * np.pi / mm * np.fft.fftfreq(rows)).astype(np.float32)[:, None]
    ambient = np.float32(_AMBIENT) * np.sqrt(wx * wx + wy * wy)
    slope = np.float32(tilt[0]) * wx + np.float32(tilt[1]) * wy
    cut = np.float32((_AMBIENT * 2 * np.pi / _LONGEST_WAVE) ** 2)
    scale = 1 / (ambient * ambient + slope * slope + cut)
    inverse = np.empty(scale.shape, np.complex64)
    inverse.real = -ambient * scale
    inverse.imag = -slope * scale
    spectrum = np.fft.rfft2(detail, (rows, columns)) * inverse
    relief = np.fft.irfft2(spectrum, (rows, columns))[:height, :width]
    return relief.astype(np.float32)
