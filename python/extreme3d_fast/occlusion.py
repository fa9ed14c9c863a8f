"""What goes where the face is not seen (§4.2): holes, and detail that fills them.

The face mask is the bump-map network's. Holes take the detail of similar faces, laid in by its
gradients so that it meets what is seen around it; without them, the smoothest surface. Face masks
are (H, W) bool, True where the face is seen; holes are (H, W) bool, True where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, float_array, mask_array

__all__ = ["FillMethod", "Occlusion", "fill_bump", "find_holes", "unfade"]

Mask = npt.NDArray[np.bool_]

FillMethod = Literal["reference", "smooth", "none"]
"""How holes are filled: from similar faces, smoothly, or not at all."""


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
    hole, fraction = _core.find_holes(seen, w)
    if method == "none":
        hole[:] = 0
    return Occlusion(hole.view(np.bool_), fraction, method)


def unfade(
    bump: npt.ArrayLike, weight: npt.ArrayLike, hole: npt.ArrayLike, *, threads: int = 1
) -> tuple[Float32, Mask]:
    """A bump map as it was before it faded with the face weight, and where that can be told.

    Args:
        bump, weight, hole: as for `fill_bump`.
        threads: number of threads; the result is the same for any.

    Returns:
        (H, W) float32 mm, 0 where it is not known, and (H, W) bool.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, or is not finite where needed.
    """
    mm = float_array("bump", bump, (-1, -1))
    w = float_array("weight", weight, mm.shape)
    unfaded, known = _core.unfade(mm, w, mask_array("hole", hole, mm.shape), threads)
    return unfaded, known.view(np.bool_)


def fill_bump(
    bump: npt.ArrayLike,
    weight: npt.ArrayLike,
    hole: npt.ArrayLike,
    borrowed: npt.ArrayLike | None = None,
    valid: npt.ArrayLike | None = None,
    *,
    threads: int = 1,
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
        threads: number of threads; the result is the same for any.

    Returns:
        (H, W) float32 mm; equal to `bump` outside the holes.

    Raises:
        TypeError, ValueError: a map has the wrong dtype or shape, or is not finite where it is
            needed.
    """
    mm = float_array("bump", bump, (-1, -1))
    w = float_array("weight", weight, mm.shape)
    holes = mask_array("hole", hole, mm.shape)
    if borrowed is None:
        if valid is not None:
            raise ValueError("`valid` says where `borrowed` holds, which is not given")
        detail, holds = mm, np.zeros_like(holes)
    else:
        detail = float_array("borrowed", borrowed, mm.shape)
        holds = np.ones_like(holes) if valid is None else mask_array("valid", valid, mm.shape)
    return _core.fill_bump(mm, w, holes, detail, holds, threads)
