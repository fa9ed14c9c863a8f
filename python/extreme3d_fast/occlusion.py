"""What goes where the face is not seen (§4.2): holes, and detail that fills them.

The face mask is the bump-map network's. Holes take the detail of similar faces, laid in by its
gradients so that it meets what is seen around it; without them, the smoothest surface. Face masks
are (H, W) bool, True where the face is seen; holes are (H, W) bool, True where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, bounding_box, float_array, mask_array
from .blending import blend_gradients

__all__ = ["FillMethod", "Occlusion", "fill_bump", "find_holes", "unfade"]

Mask = npt.NDArray[np.bool_]

FillMethod = Literal["reference", "smooth", "none"]
"""How holes are filled: from similar faces, smoothly, or not at all."""

# Pixels in a crop of this side; 7 are about 4 mm. Next to an occluder the bump holds its shadow.
_CROP_SIZE = 500
_TRUST_MARGIN = 7
_MIN_HOLE = 30
_MIN_SEEN = 1000  # less of the face between what covers it is a shard of that, most often

# Bump maps fade with the face weight. Blending joins them as they were before; below this weight
# too little is left to tell.
_MIN_WEIGHT = 0.1


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What hides the face.

    Attributes:
        hole: (H, W) bool, face-region pixels (without eyes and inner mouth) whose bump is not to be
            trusted: what is hidden, and 4 mm round it.
        fraction: share of the visible side of the face that is hidden, in [0, 1].
        method: how the holes were to be filled; `Face.references` is empty where they are smooth
            after all.
    """

    hole: Mask = field(repr=False)
    fraction: float
    method: FillMethod


def find_holes(
    face_mask: npt.ArrayLike,
    weight: npt.ArrayLike,
    method: FillMethod = "smooth",
) -> Occlusion:
    """Face-region pixels that the mask rejects, grown by 4 mm, since the bump next to an occluder
    holds its edge and shadow; and islands between them that are too small to be trusted.

    Args:
        face_mask: (H, W) bool, True where the face is seen.
        weight: (H, W) in [0, 1], where bump maps apply.
        method: how the holes will be filled; "none" gives no holes.

    Returns:
        Holes, hidden share of the face (before growing) and method.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, the method is unknown.
    """
    if method not in get_args(FillMethod):
        raise ValueError(f"`method` should be one of {get_args(FillMethod)}, is {method!r}")
    w = float_array("weight", weight, (-1, -1))
    seen = mask_array("face_mask", face_mask, w.shape)
    scale = w.shape[1] / _CROP_SIZE
    region = w > 0
    hidden = (region & (seen == 0)).view(np.uint8)
    total = float(w.sum())
    fraction = float(w[hidden > 0].sum()) / total if total > 0 else 0.0
    if method == "none":
        return Occlusion(np.zeros(w.shape, np.bool_), fraction, method)
    hole = np.zeros(w.shape, np.bool_)
    if not hidden.any():
        return Occlusion(hole, fraction, method)
    box = bounding_box(region)
    _, label, stats, _ = cv2.connectedComponentsWithStats(hidden[box], connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= _MIN_HOLE * scale**2
    large[0] = False
    grown = large[label]
    if grown.any():
        away = cv2.distanceTransform((~grown).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        grown = np.asarray(away <= _TRUST_MARGIN * scale)
        seen_part = (region[box] & ~grown).view(np.uint8)
        _, label, stats, _ = cv2.connectedComponentsWithStats(seen_part, connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < _MIN_SEEN * scale**2
        grown |= small[label]  # of what is no face, which is label 0, the region leaves nothing
    hole[box] = grown & region[box]
    return Occlusion(hole, fraction, method)


def unfade(bump: npt.ArrayLike, weight: npt.ArrayLike, hole: npt.ArrayLike) -> tuple[Float32, Mask]:
    """A bump map as it was before it faded with the face weight, and where that can be told.

    Args:
        bump, weight, hole: as for `fill_bump`.

    Returns:
        (H, W) float32 mm, 0 where it is not known, and (H, W) bool.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, or is not finite where needed.
    """
    mm = float_array("bump", bump, (-1, -1))
    w = float_array("weight", weight, mm.shape)
    known = (mask_array("hole", hole, mm.shape) == 0) & (w >= _MIN_WEIGHT)
    if not np.isfinite(mm[known]).all():
        raise ValueError("`bump` should be finite where it is known, has NaN or infinity")
    return np.divide(mm, w, out=np.zeros_like(mm), where=known), known


def fill_bump(
    bump: npt.ArrayLike,
    weight: npt.ArrayLike,
    hole: npt.ArrayLike,
    borrowed: npt.ArrayLike | None = None,
    valid: npt.ArrayLike | None = None,
) -> Float32:
    """Bump map with its holes filled.

    With a reference, the holes take its slopes and meet the known bump at their edges (Pérez et al.
    2003); without one, or where it shows nothing, the smoothest surface that does, which has no
    extremes of its own. Both end freely at the border of the face, then fade with the weight.

    Args:
        bump: (H, W) mm, faded with `weight`.
        weight: (H, W) in [0, 1], where bump maps apply.
        hole: (H, W) bool, pixels whose bump is not known.
        borrowed: (H, W) mm, the reference's bump in this crop, unfaded.
        valid: (H, W) bool, where the reference shows the face; None is everywhere.

    Returns:
        (H, W) float32 mm; equal to `bump` outside the holes.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, or is not finite where it is
            needed.
    """
    mm = float_array("bump", bump, (-1, -1))
    w = float_array("weight", weight, mm.shape)
    unknown = (mask_array("hole", hole, mm.shape) > 0) & (w > 0)
    unfaded, trusted = unfade(mm, w, unknown)
    filled = blend_gradients(unfaded, trusted, trusted | unknown, borrowed, valid)
    return np.where(unknown, filled * w, mm)
