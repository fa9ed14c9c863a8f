"""What goes where the face is not seen (§4.2).

The face mask is the bump-map network's; the filling is smooth, the stand-in for detail borrowed
from a reference face. Face masks are (H, W) bool, True where the face is seen; holes are (H, W)
bool, True where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, float_array, mask_array
from .blending import blend_gradients
from .errors import OcclusionUnavailable

__all__ = [
    "FillMethod",
    "Occlusion",
    "check_fill_method",
    "fill_bump",
    "find_holes",
]

Mask = npt.NDArray[np.bool_]

FillMethod = Literal["reference", "smooth", "none"]
"""How holes are filled: from a similar face, smoothly, or not at all."""

_AVAILABLE: tuple[FillMethod, ...] = ("smooth", "none")

# Pixels in a crop of this side; 7 are about 4 mm. Next to an occluder the bump holds its shadow.
_CROP_SIZE = 500
_TRUST_MARGIN = 7
_MIN_HOLE = 30


@dataclass(frozen=True)
class Occlusion:
    """What hides the face.

    Attributes:
        hole: (H, W) bool, face-region pixels whose bump is not to be trusted.
        fraction: share of the visible side of the face that is hidden, in [0, 1].
        method: how the holes are filled.
    """

    hole: Mask
    fraction: float
    method: FillMethod


def check_fill_method(method: str) -> FillMethod:
    """`method` if it can be used.

    Raises:
        ValueError: there is no such method.
        OcclusionUnavailable: the method is planned but not in this version.
    """
    for name in _AVAILABLE:
        if method == name:
            return name
    if method in get_args(FillMethod):
        raise OcclusionUnavailable(
            f'occlusion="{method}" needs a reference set, which this version does not have; '
            f"available: {', '.join(_AVAILABLE)}"
        )
    raise ValueError(f"`occlusion` should be one of {', '.join(_AVAILABLE)}; is {method!r}")


def _disc(radius: float) -> npt.NDArray[np.uint8]:
    side = 2 * max(round(radius), 1) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def find_holes(
    face_mask: npt.ArrayLike,
    weight: npt.ArrayLike,
    method: FillMethod = "smooth",
    *,
    margin: int | None = None,
) -> Occlusion:
    """Face-region pixels that the mask rejects, grown by a margin, since the bump next to an
    occluder holds its edge and shadow.

    Args:
        face_mask: (H, W) bool, True where the face is seen.
        weight: (H, W) in [0, 1], where bump maps apply.
        method: how the holes will be filled; "none" gives no holes.
        margin: growth in pixels; None: 4 mm in a crop of any size.

    Returns:
        Holes, hidden share of the face (before growing) and method.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, the method is unknown.
        OcclusionUnavailable: the method is not in this version.
    """
    method = check_fill_method(method)
    w = float_array("weight", weight, (-1, -1))
    seen = mask_array("face_mask", face_mask, w.shape)
    scale = w.shape[1] / _CROP_SIZE
    if margin is None:
        margin = round(_TRUST_MARGIN * scale)
    if margin < 0:
        raise ValueError(f"`margin` should not be negative, is {margin}")
    region = w > 0
    hidden = (region & (seen == 0)).view(np.uint8)
    total = float(w.sum())
    fraction = float(w[hidden > 0].sum()) / total if total > 0 else 0.0
    if method == "none":
        return Occlusion(np.zeros(w.shape, np.bool_), fraction, method)
    count, label, stats, _ = cv2.connectedComponentsWithStats(hidden, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= _MIN_HOLE * scale**2
    large[0] = False
    hole = large[label] if count > 1 else np.zeros_like(region)
    if margin:
        hole = np.asarray(cv2.dilate(hole.view(np.uint8), _disc(margin)) > 0)
    return Occlusion(hole & region, fraction, method)


def fill_bump(
    bump: npt.ArrayLike,
    known: npt.ArrayLike,
    region: npt.ArrayLike,
    method: FillMethod = "smooth",
) -> Float32:
    """Bump map with its holes filled.

    "smooth" solves Laplace's equation in the holes: the membrane that meets the known bump at their
    edges and is free at the border of the region. It has no extremes of its own: it adds nothing.

    Args:
        bump: (H, W) mm.
        known: (H, W) bool, pixels whose bump is trusted.
        region: (H, W) bool, pixels that have a bump at all; holes are `region & ~known`.
        method: "smooth", or "none" to leave the map as it is.

    Returns:
        (H, W) float32 mm; equal to `bump` outside the holes.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, or `bump` is not finite in
            the region; the method is unknown.
        OcclusionUnavailable: the method is not in this version.
    """
    method = check_fill_method(method)
    mm = float_array("bump", bump, (-1, -1))
    trusted = mask_array("known", known, mm.shape)
    inside = mask_array("region", region, mm.shape)
    if not np.isfinite(mm[(inside & trusted) > 0]).all():
        raise ValueError("`bump` should be finite where it is known, has NaN or infinity")
    if method == "none":
        return np.array(mm)
    return blend_gradients(mm, trusted, inside)
