"""Gradient-domain blending: holes of a map are filled with the gradients of another."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, UInt8, float_array, mask_array

__all__ = ["blend_gradients"]


def _require_finite(name: str, values: Float32, where: UInt8) -> None:
    if not (np.isfinite(values) | (where == 0)).all():
        raise ValueError(f"`{name}` should be finite where it is used, has NaN or infinity")


def blend_gradients(
    values: npt.ArrayLike,
    known: npt.ArrayLike,
    region: npt.ArrayLike,
    guidance: npt.ArrayLike | None = None,
    guided: npt.ArrayLike | None = None,
    *,
    tolerance: float = 1e-4,
) -> Float32:
    """Map whose unknown pixels meet the known ones and have the guidance's gradients.

    Minimises Σ ((f_i - f_j) - (g_i - g_j))² over the pairs of 4-neighbours in the region of which
    one or both are unknown. A gradient is 0 unless both ends are guided: without guidance this is
    the membrane, which has no extremes of its own. The borders of the region and of the image are
    free. Unknown pixels that are connected to no known one are drawn weakly (1e-3 a pixel) towards
    the guidance itself, 0 where not guided. Source: Pérez et al., Poisson Image Editing, 2003.

    Args:
        values: (H, W), any unit.
        known: (H, W) bool, pixels whose values are kept.
        region: (H, W) bool, pixels that take part; the unknown are `region & ~known`.
        guidance: (H, W), unit of `values`; a constant added to it changes nothing.
        guided: (H, W) bool, where `guidance` holds; None: everywhere.
        tolerance: largest error, as a share of the range of the values and guidance.

    Returns:
        (H, W) float32; equal to `values` where not unknown.

    Raises:
        TypeError: a map has the wrong dtype.
        ValueError: a map has the wrong shape or is not finite where it is used; `guided` without
            `guidance`; a tolerance that is not positive.
    """
    f = float_array("values", values, (-1, -1))
    trusted = mask_array("known", known, f.shape)
    inside = mask_array("region", region, f.shape)
    _require_finite("values", f, trusted & inside)
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise ValueError(f"`tolerance` should be positive, is {tolerance}")
    if guidance is None:
        if guided is not None:
            raise ValueError("`guided` says where `guidance` holds, which is not given")
        g, holds = f, np.zeros_like(inside)
    else:
        g = float_array("guidance", guidance, f.shape)
        holds = inside if guided is None else mask_array("guided", guided, f.shape)
        _require_finite("guidance", g, holds & inside)
    blended: Float32 = np.asarray(_core.blend_gradients(f, trusted, inside, g, holds, tolerance)[0])
    return blended
