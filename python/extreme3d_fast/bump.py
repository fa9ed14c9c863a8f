"""Bump maps as files: the paper's 8-bit code, and the layout of the authors' release.

Tran et al. 2018, §4.1. A bump map Δ is (S, S) float32 in millimetres along the viewing direction,
positive = deeper than the foundation (z' = z + Δ, Eq. 4), 0 where there is no detail.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Float32, UInt8, float_array

__all__ = [
    "authors_map_from_bump",
    "bump_from_authors_map",
    "decode_bump",
    "encode_bump",
]

# θ of Eq. 3 as in the authors' release: level 127 is no displacement, 12 levels are 1.25 mm, and a
# brighter level is NEARER the camera (their z axis points backwards), so it is a negative Δ here.
_ZERO_LEVEL = 127
_LEVELS_PER_MM = 12 / 1.25

# The authors' network pads the 500-pixel image: image pixel (x, y) is map pixel (x + 6, y + 6).
_AUTHORS_OFFSET = 6
_AUTHORS_SIZE = 512


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
