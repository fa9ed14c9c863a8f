"""Finds a face where the detector finds none (true profiles, covered faces): by the pose network.

The network knows how well the square it looks at sits on a face, and where a better one is. Squares
of several sizes are laid over the photo; the best ones are followed until they settle.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from extreme3d_fast.crop import HeadSquare, shrink_to
from extreme3d_fast.pose import PoseEstimate, PoseNetwork

__all__ = ["MIN_CONFIDENCE", "follow", "localize", "standing"]

#: What is less sure is no face: training shows the network photos and textures without one.
MIN_CONFIDENCE = 0.85
# Sides of the squares to try, in units of the photo's smaller side, and their distance in sides:
# the network reads faces up to a third of a side away, and half or twice the size.
SIDES = ((1.25, 0.8, 0.5), (0.32, 0.2))  # the second only if the first find nothing
STRIDE = 0.45
SEARCH_SIDE = 640  # px: larger photos are searched at this size
MIN_SIDE = 24  # px: smaller squares show nothing, and a strip of a photo would have 100,000 of them
CANDIDATES = 4  # squares that are followed
LOOKS = 3  # until a followed square has settled


def localize(photo: npt.NDArray[np.uint8], network: PoseNetwork) -> PoseEstimate | None:
    """The face that the pose network is surest of, or None.

    Args:
        photo: (H, W, 3) uint8 RGB.
        network: the pose network.
    """
    small, scale = shrink_to(photo, SEARCH_SIDE)
    for sides in SIDES:
        squares = _squares(small.shape[1], small.shape[0], sides)
        if not squares:
            break
        estimates = network.estimate(small, squares)
        estimates.sort(key=lambda estimate: -estimate.confidence)
        followed = [follow(small, network, e.square, LOOKS) for e in estimates[:CANDIDATES]]
        best = max(followed, key=standing)
        if best.confidence >= MIN_CONFIDENCE:
            center, side, roll = best.square
            return best._replace(square=HeadSquare(center / scale, side / scale, roll))
    return None


def standing(estimate: PoseEstimate) -> float:
    """What ranks faces found: how sure, and how large. Parts of covered faces can look like small
    faces of their own."""
    return estimate.confidence * math.sqrt(estimate.square.side)


def follow(
    photo: npt.NDArray[np.uint8], network: PoseNetwork, square: HeadSquare, looks: int
) -> PoseEstimate:
    """Looks at a square, then where that look says the face is, and so on.

    Args:
        photo: (H, W, 3) uint8 RGB.
        network: the pose network.
        square: where to look first.
        looks: how often, at least 1; the last one is returned.
    """
    estimate = network.estimate(photo, [square])[0]
    for _ in range(looks - 1):
        estimate = network.estimate(photo, [estimate.square])[0]
    return estimate


def _squares(width: int, height: int, sides: tuple[float, ...]) -> list[HeadSquare]:
    """Squares with `sides` in units of the photo's smaller side, evenly laid over it."""
    squares = []
    for share in sides:
        side = share * min(width, height)
        if side < MIN_SIDE:
            continue
        rows, columns = (
            np.linspace(0, length, 1 + max(1, math.ceil(length / (STRIDE * side))) + 1)[1:-1]
            for length in (height, width)
        )
        squares += [HeadSquare(np.array([x, y]), side, 0.0) for y in rows for x in columns]
    return squares
