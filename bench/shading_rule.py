"""The first version's shading rule for bump maps, kept to compare with; nothing else uses it.

1. Form. Nine spherical harmonics of the foundation's normals are fitted to linear luminance by
   Tukey's weights: shading S(n) of a face of even skin under this photo's light. The detail is
   r = log luminance - log S.
2. Steps. A guided filter splits off broad steps: shadow edges, hair, brows, lips, frames. Clipped
   pixels, padding outside the photo and what the face mask rejects are left out, with a margin.
3. What is not relief. Per band Wiener's rule against the photo's own noise; texture without
   direction (structure tensor) and round spots (Hessian) are taken down; contrast is limited.
4. Inversion. Relief D changes log shading by K D with K(ω) = -a|ω| + i t·ω: what a hollow loses of
   the light from all round ("dark is deep", Glencross et al. 2008, Beeler et al. 2010), and the
   slope towards the light at tilt t (Pentland 1990). D = conj(K) r / (|K|² + a²ω₀²).
5. Scale. A gain chosen by eye, ±2 mm by tanh, times the face weight.

It cannot tell pigment lines from wrinkles, prints thin frames and hair faintly, and sees hands of
the face's own colour as face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32, mask_array
from extreme3d_fast._shading import (
    LIGHT_RIDGE,
    blur,
    check_photo,
    f32,
    face_window,
    fit_light,
    foundation_normals,
    gradient,
    harmonics,
    light_samples,
    linear_rgb,
    lost_pixels,
    luminance,
    square,
)
from extreme3d_fast.camera import Camera

MAX_BUMP = 2.0
"""Largest displacement, mm."""

# Lengths are millimetres on the face, so that a crop's size does not matter.
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


@dataclass(frozen=True)
class Light:
    """Shading of the foundation under the photo's light, in linear image units.

    Attributes:
        shading: (h, w) float32, > 0, what a foundation of even skin would look like.
        frontal: shading of a surface that faces the camera.
        tilt: (2,) change of shading per unit of slope dz/dx, dz/dy, relative to `frontal`;
            points towards the light in the image (x right, y down).
    """

    shading: Float32
    frontal: float
    tilt: npt.NDArray[np.float64]


def estimate_bump(
    image: npt.ArrayLike,
    weight: npt.ArrayLike,
    depth: npt.ArrayLike,
    camera: Camera,
    face_mask: npt.ArrayLike | None = None,
    *,
    strength: float = 1.0,
) -> Float32:
    """Bump map of a photo by the shading rule.

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

    trusted = (w > 0.02) & ~lost_pixels(rgb, _LOST_MARGIN / mm)
    if seen is not None:
        trusted &= cv2.erode(seen[cut], square(_OCCLUDER_MARGIN / mm)) > 0
    trust = trusted.astype(np.float32)

    bright = luminance(linear_rgb(rgb))
    light = photo_light(
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

    share = np.maximum(_box_mean(trust, side), np.float32(0.02))
    kept = ratio * trust
    average = _box_mean(kept, side) / share
    variance = np.maximum(_box_mean(kept * ratio, side) / share - average * average, 0)
    slope = variance / (variance + np.float32(_BASE_CONTRAST**2))
    offset = (1 - slope) * average
    detail = (ratio - _box_mean(slope, side) * ratio - _box_mean(offset, side)) * trust
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
        power = _box_mean(part * part, side)
        if band == 0:
            noise = float(np.percentile(power[face], _NOISE_PERCENTILE)) if face.any() else 0.0
        # Wiener's rule, with twice the noise's power.
        out += part * (power / (power + np.float32(2 * noise * _NOISE_IN_BAND[band] + 1e-9)))
    gx, gy = gradient(out)
    xx, yy, xy = (_box_mean(a, side) for a in (gx * gx, gy * gy, gx * gy))
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


def _box_mean(a: Float32, side: int) -> Float32:
    """Mean over a square of `side` (odd) pixels."""
    return f32(cv2.blur(a, (side, side), borderType=cv2.BORDER_REPLICATE))


def photo_light(
    brightness: Float32, use: npt.NDArray[np.bool_], normals: tuple[Float32, ...]
) -> Light:
    """Light of a photo on the foundation's normals; arguments as of `light_samples`."""
    y, basis = light_samples(brightness, use, normals)
    if len(y) < 50:
        flat = np.full_like(brightness, max(float(np.median(brightness)), 1e-3))
        return Light(flat, float(flat[0, 0]), np.zeros(2))
    middle = max(float(np.median(y)), 1e-4)
    light, trust = fit_light(y, basis, middle)
    first = basis[:, :4] * trust[:, None]
    ridge = np.diag(LIGHT_RIDGE[:4]) * len(y)
    c = np.linalg.solve(first.T @ basis[:, :4] + ridge, first.T @ (y - middle))
    frontal = max(middle + float(c[0] - c[3]), 0.3 * middle)
    shading = np.full_like(brightness, middle)
    for coefficient, harmonic in zip(light, harmonics(*normals), strict=True):
        shading += np.float32(coefficient) * harmonic
    np.maximum(shading, np.float32(0.15 * middle), out=shading)
    return Light(shading, frontal, c[1:3] / frontal)
