"""Squares cut from photos: where they lie, and how their pixels are resampled.

Points are continuous image coordinates in px: x right, y down, the centre of pixel (column i, row
j) at (i + 0.5, j + 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from extreme3d_fast.errors import InvalidImage

__all__ = [
    "Crop",
    "HeadSquare",
    "check_image",
    "inverse",
    "letterbox",
    "letterbox_frame",
    "magnification",
    "rotation_2d",
    "shrink_to",
    "shrunk",
    "transform_points",
    "warp_similarity",
]

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Crop:
    """An upright square cut from a photo."""

    image: UInt8  #: (S, S, 3) RGB; black where the photo ends
    crop_from_image: Float64  #: (3, 3) similarity between continuous px coordinates


class HeadSquare(NamedTuple):
    """A square in an image, upright with the head."""

    center: Float64  #: (2,) px
    side: float  #: px
    roll: float  #: radians from the image's to the square's x axis, clockwise as it is seen

    def square_from_image(self, size: float = 1.0) -> Float64:
        """(3, 3) similarity from px of the image to a square of `size` px with corner (0, 0)."""
        matrix = np.eye(3)
        matrix[:2, :2] = size / self.side * rotation_2d(-self.roll)
        matrix[:2, 2] = size / 2 - matrix[:2, :2] @ self.center
        return matrix


def warp_similarity(image: UInt8, out_from_image: Float64, size: int) -> UInt8:
    """Resamples a square of a photo without aliasing; black where the photo ends.

    Args:
        image: (H, W, 3) uint8.
        out_from_image: (3, 3) similarity between continuous px coordinates.
        size: side of the output in px.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = image.shape[:2]
    image_from_out = inverse(out_from_image)
    scale = float(np.sqrt(abs(np.linalg.det(out_from_image[:2, :2]))))  # output px per photo px
    corners = transform_points(
        image_from_out, np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    )
    # Only the part of the photo under the output is touched; the margin feeds the filters.
    margin = 2 + 2 / scale
    x0, y0 = (int(max(0.0, np.floor(value - margin))) for value in corners.min(0))
    x1, y1 = (
        int(min(limit, np.ceil(value + margin)))
        for value, limit in zip(corners.max(0), (width, height), strict=True)
    )
    if x0 >= x1 or y0 >= y1:
        return np.zeros((size, size, 3), np.uint8)
    part = image[y0:y1, x0:x1]
    # Whole-number reduction by area first (exact), the rest by a Gaussian; the remainder at the far
    # border, less than one output pixel, is dropped.
    factor = max(1, min(int(1 / scale), part.shape[0], part.shape[1]))
    if factor > 1:
        rows, columns = part.shape[0] // factor, part.shape[1] // factor
        part = shrunk(part[: rows * factor, : columns * factor], columns, rows)
    rest = 1 / (scale * factor)  # reduction still to do, in [1, 2)
    if rest > 1.1:
        sigma = 0.5 * float(np.sqrt(rest**2 - 1))  # px of `part`
        blurred = cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        part = np.asarray(blurred, np.uint8)
    image_from_part = np.array([[factor, 0, x0], [0, factor, y0], [0, 0, 1]], np.float64)
    # OpenCV puts pixel centres at whole numbers, this package at +0.5.
    index = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = inverse(index) @ out_from_image @ image_from_part @ index
    out = cv2.warpAffine(
        np.ascontiguousarray(part),
        matrix[:2],
        (size, size),
        flags=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return np.asarray(out, np.uint8)


def transform_points(matrix: Float64, points: Float64) -> Float64:
    """Applies a (3, 3) affine transform to (N, 2) points."""
    moved: Float64 = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def magnification(similarity: Float64) -> float:
    """px after a (3, 3) similarity per px before it."""
    return math.hypot(similarity[0, 0], similarity[1, 0])


def letterbox_frame(image: UInt8, size: int, zoom: float = 1.0) -> tuple[int, int, int, int]:
    """Left, top, width and height in px of a photo in its `letterbox`."""
    scale = size / (zoom * max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return (size - width) // 2, (size - height) // 2, width, height


def letterbox(image: UInt8, size: int, zoom: float = 1.0) -> UInt8:
    """A photo in the middle of a black square.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square, px.
        zoom: that side in units of the photo's larger one.
    """
    left, top, width, height = letterbox_frame(image, size, zoom)
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + height, left : left + width] = shrunk(image, width, height)
    return square


def shrink_to(image: UInt8, side: int) -> tuple[UInt8, float]:
    """A photo whose larger side is at most `side` px, and its px per px of the original."""
    scale = min(1.0, side / max(image.shape[:2]))
    if scale == 1:
        return image, 1.0
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return shrunk(image, width, height), scale


def check_image(image: UInt8) -> None:
    """Raises InvalidImage unless the image is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise InvalidImage(f"image: expected a NumPy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InvalidImage(
            f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
        )


def rotation_2d(angle: float) -> Float64:
    """(2, 2) rotation by an angle in radians, clockwise as it is seen."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def inverse(matrix: Float64) -> Float64:
    """The inverse of a (3, 3) transform."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def shrunk(image: UInt8, width: int, height: int) -> UInt8:
    """Resized by area averages, which do not alias."""
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)
