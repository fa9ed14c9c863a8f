"""Viewpoint: the square that the networks look at, and how six numbers in it give a pose (§3).

The networks see a square of `SIDE_MM` round the middle of the face, seen by a pinhole of a nominal
focal length in its middle. A pose is then a rotation and where, and how large, that middle appears.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.camera import Camera

__all__ = ["FACE_CENTER", "FOCAL_SIDES", "SIDE_MM", "HeadSquare", "head_square", "network_camera"]

Float64 = npt.NDArray[np.float64]

#: Point of the head frame, mm, that the square is centred on: inside the head, so that the face
#: stays in the square however it is turned.
FACE_CENTER = np.array([0.0, -13.0, 60.0])
#: Side of the square at the depth of that point.
SIDE_MM = 200.0
#: Nominal focal length in sides of the square: the head is then 640 mm away.
FOCAL_SIDES = 3.2


class HeadSquare(NamedTuple):
    """A square in an image, upright with the head."""

    center: Float64  #: (2,) px
    side: float  #: px
    roll: float  #: radians from the image's to the square's x axis, clockwise as it is seen

    def square_from_image(self, size: float = 1.0) -> Float64:
        """(3, 3) similarity from px of the image to a square of `size` px with corner (0, 0)."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        matrix = np.eye(3)
        matrix[:2, :2] = size / self.side * np.array([[cos, sin], [-sin, cos]])
        matrix[:2, 2] = size / 2 - matrix[:2, :2] @ self.center
        return matrix


def network_camera(size: int) -> Camera:
    """The nominal camera of a network crop of `size` px."""
    return Camera(FOCAL_SIDES * size, FOCAL_SIDES * size, size / 2, size / 2, size, size)


def head_square(camera: Camera, camera_from_head: npt.ArrayLike) -> HeadSquare:
    """The square that a posed head asks for, in the image of `camera`.

    Args:
        camera: any pinhole.
        camera_from_head: (4, 4) rigid, mm.

    Returns:
        The square round `FACE_CENTER`, `SIDE_MM` wide at its depth, upright with the head's up axis
        (which stays in view whatever the yaw).
    """
    pose = np.asarray(camera_from_head, np.float64)
    center = pose[:3, :3] @ FACE_CENTER + pose[:3, 3]
    up = pose[:2, 1]
    roll = math.atan2(up[0], -up[1]) if np.hypot(*up) > 1e-6 else 0.0
    return HeadSquare(
        np.asarray(camera.project(center), np.float64), SIDE_MM * camera.fx / center[2], roll
    )
