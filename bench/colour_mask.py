"""The first version's face mask by colour, kept to compare with; nothing else uses it.

On a 1 mm grid: the mode of log chromaticity in the face region, refined to a Gaussian whose centre
may drift with shade; each pixel's distance from it, plus what luminance deviates from the shading
that was fitted (wide, because of cast shadows). Regions far from skin stay occluders where they
enter from the face's border, or are as large as a lens of dark glasses and not lips.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bench.shading_rule import photo_light
from extreme3d_fast._arrays import Float32
from extreme3d_fast._shading import (
    blur,
    check_photo,
    f32,
    face_window,
    foundation_normals,
    linear_rgb,
    luminance,
)
from extreme3d_fast.bump_network import _without_openings
from extreme3d_fast.camera import Camera

Mask = npt.NDArray[np.bool_]

# The colour model works on pixels of this size, mm.
_GRID = 1.0
_MARGIN = 4.0
# Linear luminance that skin is brought to, its usual one in a well exposed photo.
_SKIN_LEVEL = 0.25
# Added to linear light before logarithms: below it colour is noise.
_COLOUR_FLOOR = 0.01
# Centre and spread of log(R/G), log(B/G) of skin under everyday light: a weak prior, which decides
# only between skin and an occluder of similar area.
_SKIN_PRIOR = (0.6, -0.4)
_PRIOR_SPREAD = 0.33
# Spread of a photo's skin colour: never taken narrower or wider than this.
_MIN_SPREAD, _MAX_SPREAD = 0.07, 0.22
_COLOUR_ROUNDS = 8
_SKIN_SAMPLES = 3000  # at least as many pixels, evenly spread, are enough for seven numbers
# Drift of chromaticity per unit of log shade: limited, and small unless the photo shows it.
_MAX_SLOPE = 0.15
_SLOPE_RIDGE = 0.01
_REDNESS = 0.3  # how much of a deviation towards red counts
# Spread of log luminance about the fitted shading: dark side wide, because of cast shadows and
# stubble, bright side wide, because of highlights.
_DARK_SPREAD, _BRIGHT_SPREAD = 0.55, 0.6
# Squared distance from the skin model above which a neighbourhood is not skin.
_THRESHOLD = 12.0
# Next to an occluder, within the reach in mm, less is enough.
_WEAK_THRESHOLD, _WEAK_REACH = 7.0, 5.0
_EVIDENCE_SIGMA = 1.5  # mm
# Shapes thinner than this are face (brows, lips, nostrils, folds) or too thin to tell, mm.
_OPENING = 8.0
# Hair, hands, scarves enter from the border of the face; what floats inside it must be as large as
# the lens of dark glasses to be an occluder, larger than brows and moustaches. mm and mm².
_BORDER_REACH = 6.0
_MIN_AREA_AT_BORDER = 120.0
_MIN_AREA_INSIDE = 800.0
_LENS_SHADE = -1.0  # log luminance; redder but brighter regions inside the face are lips
_GROWTH = 1.5  # mm, because evidence is weak at an occluder's soft edge


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(round(radius), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def estimate_face_mask(
    image: npt.ArrayLike, weight: npt.ArrayLike, depth: npt.ArrayLike, camera: Camera
) -> Mask:
    """Face pixels that are seen unobstructed, by a skin colour model of this photo.

    Skin keeps its chromaticity under one light and follows the foundation's shading; a region that
    does neither, is not thin, and enters from the face's border or is as large as a dark lens is an
    occluder. Occluders of the face's own colour (its hands) are not found.

    Args:
        image: (H, W, 3) uint8 RGB crop.
        weight: (H, W) in [0, 1], where bump maps apply: 1 on the face, 0 on eyes, inner mouth and
            outside.
        depth: (H, W) mm, depth of the foundation, +inf where no face.
        camera: camera of the crop; only its focal length is used.

    Returns:
        (H, W) bool. Eyes and inner mouth count as seen where what surrounds them is.

    Raises:
        TypeError: a map has a dtype that cannot be used.
        ValueError: a map has the wrong shape or values outside its range.
    """
    rgb, w, z = check_photo(image, weight, depth)
    out = np.zeros(w.shape, np.bool_)
    window = face_window(w, z, camera, _MARGIN)
    if window is None:
        return out
    cut = (window.rows, window.columns)
    size = w[cut].shape
    # Everything below happens on a grid of about a millimetre.
    shrink = min(1.0, window.mm_per_pixel / _GRID)
    grid = (max(round(size[1] * shrink), 8), max(round(size[0] * shrink), 8))
    mm = window.mm_per_pixel * size[1] / grid[0]
    weight_grid = cv2.resize(w[cut], grid, interpolation=cv2.INTER_AREA)
    seen = np.isfinite(z[cut])
    depth_grid = cv2.resize(np.where(seen, z[cut], 0), grid, interpolation=cv2.INTER_AREA)
    cover = cv2.resize(seen.astype(np.float32), grid, interpolation=cv2.INTER_AREA)
    depth_grid = np.where(cover > 0.5, depth_grid / np.maximum(cover, 1e-6), np.inf)
    linear = cv2.resize(linear_rgb(rgb[cut]), grid, interpolation=cv2.INTER_AREA)

    skin = weight_grid > 0.05
    face = _without_openings(skin)
    distance, lips = _skin_distance(f32(linear), f32(weight_grid), f32(depth_grid), skin, mm)
    hidden = _occluder(distance, lips, skin, face, mm)
    hidden_full = cv2.resize(
        blur(hidden.astype(np.float32), 1.0 / mm),
        (size[1], size[0]),
        interpolation=cv2.INTER_LINEAR,
    )
    out[cut] = _without_openings(w[cut] > 0) & (hidden_full < 0.5)
    return out


def _skin_distance(
    linear: Float32, weight: Float32, depth: Float32, skin: Mask, mm: float
) -> tuple[Float32, Mask]:
    """Squared distance of each pixel from the photo's skin, and which are redder but not dark."""
    bright = luminance(linear)
    # Exposure must not matter: the same skin, dark or bright, comes out at one level.
    middle = float(np.median(bright[skin])) if skin.any() else 0.0
    exposure = np.float32(_SKIN_LEVEL / max(middle, 0.02 * _SKIN_LEVEL))
    red, green, blue = cv2.split(linear)
    clipped = np.maximum(np.maximum(red, green), blue) > 0.97
    linear, bright = linear * exposure, bright * exposure
    light = photo_light(bright, skin & (weight > 0.3), foundation_normals(depth, mm))
    floor = np.float32(_COLOUR_FLOOR)
    logs = np.log(linear + floor)
    chroma = logs[..., ::2] - logs[..., 1:2]
    # The same floor on both sides: a dark pixel says little about luminance either.
    shade = np.log((bright + floor) / (light.shading + floor))
    shade -= np.float32(np.median(shade[skin])) if skin.any() else np.float32(0)

    inner = skin & (weight > 0.6) & (np.abs(shade) < 1.0)
    if np.count_nonzero(inner) < 100:
        return np.zeros(bright.shape, np.float32), np.zeros(bright.shape, np.bool_)
    step = max(1, np.count_nonzero(inner) // _SKIN_SAMPLES)
    model = _skin_model(
        chroma[inner][::step].astype(np.float64), shade[inner][::step].astype(np.float64)
    )
    offset = chroma - model.centre.astype(np.float32)
    offset -= np.clip(shade, -1, 1)[..., None] * model.slope.astype(np.float32)
    # Lips, noses and skin in shade are redder than the rest; occluders seldom are.
    redness = offset[..., 0].copy()
    offset[..., 0] = np.where(redness > 0, np.float32(_REDNESS) * redness, redness)
    p = model.precision.astype(np.float32)
    colour = (
        p[0, 0] * np.square(offset[..., 0])
        + 2 * p[0, 1] * offset[..., 0] * offset[..., 1]
        + p[1, 1] * np.square(offset[..., 1])
    )
    spread = np.where(shade < 0, np.float32(_DARK_SPREAD), np.float32(_BRIGHT_SPREAD))
    # Colour of nearly black or clipped pixels is not evidence.
    sure = np.clip((bright - 0.004) / 0.02, 0, 1) * np.where(clipped, np.float32(0.3), 1)
    distance = np.minimum(colour, 40) * sure + np.minimum(np.square(shade / spread), 40)
    return distance.astype(np.float32), (redness > 0) & (shade > _LENS_SHADE)


@dataclass(frozen=True)
class _SkinModel:
    """Skin's (log R/G, log B/G): centre + slope * shade, and the precision about it."""

    centre: npt.NDArray[np.float64]
    slope: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]


def _skin_model(chroma: npt.NDArray[np.float64], shade: npt.NDArray[np.float64]) -> _SkinModel:
    """Main skin colour of (n, 2) log chromaticities, which may drift with (n,) log shade."""
    prior = np.exp(-0.5 * np.square((chroma - _SKIN_PRIOR) / _PRIOR_SPREAD).sum(axis=1)) + 1e-3
    # Mode: peak of a smoothed histogram.
    bins, low, high = 64, -2.0, 2.0
    index = np.clip(((chroma - low) / (high - low) * bins).astype(np.int64), 0, bins - 1)
    histogram = np.bincount(index[:, 0] * bins + index[:, 1], weights=prior, minlength=bins * bins)
    smooth = blur(histogram.reshape(bins, bins).astype(np.float32), 1.5)
    peak = np.array(np.unravel_index(int(np.argmax(smooth)), smooth.shape))
    centre = low + (peak + 0.5) * (high - low) / bins
    slope = np.zeros(2)
    precision = np.eye(2) / 0.12**2
    for _ in range(_COLOUR_ROUNDS):
        offset = chroma - centre - shade[:, None] * slope
        near = np.einsum("ni,ij,nj->n", offset, precision, offset) < 6.0
        if np.count_nonzero(near) < 50:
            break
        x, y = shade[near], chroma[near]
        middle, centre = float(x.mean()), y.mean(axis=0)
        slope = (x - middle) @ (y - centre) / (np.square(x - middle).sum() + _SLOPE_RIDGE * len(x))
        slope = np.clip(slope, -_MAX_SLOPE, _MAX_SLOPE)
        centre = centre - middle * slope
        # A Gaussian cut at squared distance 6 keeps 84 % of its variance in two dimensions.
        values, vectors = np.linalg.eigh(np.cov((y - centre - x[:, None] * slope).T) / 0.84)
        values = np.clip(values, _MIN_SPREAD**2, _MAX_SPREAD**2)
        precision = (vectors / values) @ vectors.T
    return _SkinModel(centre, slope, precision)


def _occluder(distance: Float32, lips: Mask, skin: Mask, face: Mask, mm: float) -> Mask:
    """Regions of the face that are not skin, cleaned of what is too small to be in front of it."""
    known = skin.astype(np.float32)
    sigma = _EVIDENCE_SIGMA / mm
    evidence = blur(distance * known, sigma) / np.maximum(blur(known, sigma), np.float32(0.05))
    inside = face.view(np.uint8)
    suspect = cv2.morphologyEx(
        ((evidence > _THRESHOLD) & face).view(np.uint8), cv2.MORPH_CLOSE, _disc(3.0 / mm)
    )
    # Beyond the face's border everything is suspect, so that opening keeps what enters there.
    ring = cv2.subtract(cv2.dilate(inside, _disc(_OPENING / mm)), inside)
    opened = cv2.morphologyEx(
        cv2.bitwise_or(suspect, ring), cv2.MORPH_OPEN, _disc(_OPENING / 2 / mm)
    )
    opened = cv2.bitwise_and(opened, cv2.bitwise_and(suspect, inside))
    inland = cv2.erode(
        cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0),
        _disc(_BORDER_REACH / mm),
    )[1:-1, 1:-1]
    count, label, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    keep = np.zeros(count, np.bool_)
    for k in range(1, count):
        area = float(stats[k, cv2.CC_STAT_AREA]) * mm * mm
        part = label == k
        if (part & (inland == 0)).any():
            keep[k] = area > _MIN_AREA_AT_BORDER
        else:
            keep[k] = area > _MIN_AREA_INSIDE and lips[part & skin].mean() < 0.5
    hidden = keep[label].astype(np.uint8)
    weak = ((evidence > _WEAK_THRESHOLD) & face).view(np.uint8)
    reach = cv2.dilate(hidden, _disc(_WEAK_REACH / mm))
    hidden = cv2.bitwise_or(hidden, cv2.bitwise_and(reach, weak))
    return np.asarray(cv2.dilate(hidden, _disc(_GROWTH / mm)) > 0)
