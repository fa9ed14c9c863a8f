"""Stand-ins for the pose network: what a perfect one says of a known head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from extreme3d_fast.camera import Camera, rotation_from_angles, rotation_from_vector
from extreme3d_fast.pose import FACE_CENTER, HeadSquare, PoseEstimate

Float64 = npt.NDArray[np.float64]
DISTANCE_MM = 640.0  # of the face centre: the nominal focal length times the side

angles = st.tuples(st.floats(-90, 90), st.floats(-80, 80), st.floats(-180, 180))


def facing(rotation: Float64) -> Float64:
    """camera_from_head (4, 4) with the face centre on the optical axis, at the nominal distance."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = [0.0, 0.0, DISTANCE_MM] - rotation @ FACE_CENTER
    return pose


def camera_at(x: float, y: float, side: float) -> Camera:
    """The camera that sees the face centre of `facing` at (x, y), and 200 mm there in `side` px."""
    focal = DISTANCE_MM / 200.0 * side
    return Camera(focal, focal, x, y, 1, 1)


def moved(transform: Float64, points: npt.ArrayLike) -> Float64:
    """(4, 4) of (..., 3) points, in float64."""
    return np.asarray(points, np.float64) @ transform[:3, :3].T + transform[:3, 3]


def turned(angle: float) -> Float64:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def perfect_row(
    camera: Camera, rotation: Float64, square: HeadSquare, logit: float = 3.0
) -> Float64:
    """(10,) what the network should say of the head of `facing`, looking at a square."""
    in_square = rotation_from_vector([0.0, 0.0, -square.roll]) @ rotation
    place = turned(-square.roll) @ (np.array([camera.cx, camera.cy]) - square.center) / square.side
    log_distance = math.log(square.side / (200.0 * camera.fx / DISTANCE_MM))
    return np.concatenate([in_square[:, 0], in_square[:, 1], place, [log_distance, logit]])


class PerfectPose:
    """Knows where the head is: says so within its reach, else denies and stays where it looks.

    Args:
        truth: the head's square in the photo, or None where there is no head.
        width: of the photo in px: the square shrinks with the photo that it is shown in.
    """

    size = 128
    reach = 0.34  # of the square looked at
    zoom = 2.0

    def __init__(
        self,
        truth: HeadSquare | None,
        width: int,
        *,
        rotation: Float64 | None = None,
        confidence: float = 0.95,
    ) -> None:
        self.truth, self.width, self.confidence = truth, width, confidence
        self.rotation = rotation_from_angles(0.0) if rotation is None else rotation
        self.looks = 0

    def estimate(
        self, photo: npt.NDArray[np.uint8], squares: Sequence[HeadSquare]
    ) -> list[PoseEstimate]:
        self.looks += len(squares)
        return [self._look(photo.shape[1] / self.width, square) for square in squares]

    def _look(self, scale: float, square: HeadSquare) -> PoseEstimate:
        if self.truth is not None:
            center, side, roll = self.truth
            true = HeadSquare(center * scale, side * scale, roll)
            away = np.abs(true.center - square.center).max() / square.side
            if away <= self.reach and abs(math.log(square.side / true.side)) <= math.log(self.zoom):
                return PoseEstimate(true, self.rotation, self.confidence)
        return PoseEstimate(square, self.rotation, 0.1)
