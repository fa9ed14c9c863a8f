"""The pinhole camera of a crop, and rotations of a head in front of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "CAMERA_FROM_FRONTAL_HEAD",
    "Camera",
    "angles_from_rotation",
    "rotation_from_angles",
    "rotation_from_vector",
    "similarity_transform",
    "vector_from_rotation",
]

Float = npt.NDArray[np.floating[Any]]

# Rotation of a head that looks straight into the camera: the head frame has y up and z out of the
# face, the camera frame has y down and z forward.
CAMERA_FROM_FRONTAL_HEAD: npt.NDArray[np.float64] = np.diag([1.0, -1.0, -1.0])
CAMERA_FROM_FRONTAL_HEAD.setflags(write=False)


@dataclasses.dataclass(frozen=True)
class Camera:
    """Pinhole camera with OpenCV axes: x right, y down, z forward.

    Pixel (i, j) covers [i, i+1) x [j, j+1), so its centre is (i + 0.5, j + 0.5).

    Attributes:
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels.
        width, height: size of the image in pixels.

    Raises:
        ValueError: a focal length or a size is not positive, or a number is not finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} should be finite, is {getattr(self, name)}")
        for name in ("fx", "fy", "width", "height"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} should be positive, is {getattr(self, name)}")

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """(fx, fy, cx, cy)."""
        return self.fx, self.fy, self.cx, self.cy

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(3, 3) float64 intrinsic matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def project(self, points: npt.ArrayLike) -> Float:
        """Image positions of points in the camera frame.

        Args:
            points: (..., 3) mm in the camera frame, z > 0.

        Returns:
            (..., 2) pixels; float32 for float32 points, else float64.
        """
        p = _floats(points, 3, "points")
        xy = p[..., :2] / p[..., 2:] * np.array([self.fx, self.fy], p.dtype)
        return np.asarray(xy + np.array([self.cx, self.cy], p.dtype))

    def unproject(self, points: npt.ArrayLike, z: npt.ArrayLike) -> Float:
        """Points of the camera frame on the viewing rays through image positions.

        Args:
            points: (..., 2) pixels.
            z: (...) or scalar, mm along the optical axis.

        Returns:
            (..., 3) mm in the camera frame; float32 for float32 points, else float64.
        """
        p = _floats(points, 2, "points")
        depth = np.broadcast_to(np.asarray(z, p.dtype), p.shape[:-1])[..., None]
        f, c = np.array([self.fx, self.fy], p.dtype), np.array([self.cx, self.cy], p.dtype)
        return np.concatenate([(p - c) / f * depth, depth], axis=-1)


def _floats(a: npt.ArrayLike, last: int, name: str) -> Float:
    values = np.asarray(a)
    if values.ndim == 0 or values.shape[-1] != last:
        raise ValueError(f"{name} should have shape (..., {last}), has {values.shape}")
    return values if values.dtype == np.float32 else values.astype(np.float64)


def rotation_from_vector(vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(3, 3) float64 rotation about the direction of a (3,) vector by its length in radians."""
    return np.asarray(cv2.Rodrigues(np.asarray(vector, np.float64).reshape(3, 1))[0])


def vector_from_rotation(rotation: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(3,) float64 rotation vector in radians, length at most pi, of a (3, 3) rotation."""
    r = np.asarray(rotation, np.float64)
    # 4 q qᵀ of the unit quaternion q = (x, y, z, w); its longest column is the best determined.
    trace = np.trace(r)
    k = np.empty((4, 4))
    k[:3, :3] = r + r.T + (1.0 - trace) * np.eye(3)
    k[3, :3] = k[:3, 3] = [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]
    k[3, 3] = 1.0 + trace
    q = k[int(np.argmax(np.diag(k)))]
    q = q / np.linalg.norm(q) * (1.0 if q[3] >= 0 else -1.0)
    sine = float(np.linalg.norm(q[:3]))  # of half the angle
    return np.asarray(q[:3] * (2.0 * math.atan2(sine, q[3]) / sine if sine > 0 else 2.0))


def rotation_from_angles(
    yaw: float, pitch: float = 0.0, roll: float = 0.0
) -> npt.NDArray[np.float64]:
    """Rotation camera_from_head of a head turned by angles in degrees.

    The head first nods (pitch), then turns (yaw), then tilts in the image plane (roll).

    Args:
        yaw: > 0 where the subject turns to their left, the nose moves towards image right.
        pitch: > 0 where the subject looks up.
        roll: > 0 where the head tilts counter-clockwise in the image.

    Returns:
        (3, 3) float64; all angles 0 give diag(1, -1, -1).
    """
    turn = rotation_from_vector([0.0, math.radians(yaw), 0.0])
    nod = rotation_from_vector([-math.radians(pitch), 0.0, 0.0])
    tilt = rotation_from_vector([0.0, 0.0, math.radians(roll)])
    return np.asarray(CAMERA_FROM_FRONTAL_HEAD @ tilt @ turn @ nod)


def angles_from_rotation(camera_from_head: npt.ArrayLike) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees; the inverse of `rotation_from_angles`.

    Args:
        camera_from_head: (3, 3) rotation or (4, 4) transform.

    Returns:
        yaw in [-90, 90], pitch and roll in (-180, 180]; at a yaw of exactly +-90 degrees, where
        only pitch and roll together are determined, roll is 0.
    """
    r = CAMERA_FROM_FRONTAL_HEAD @ np.asarray(camera_from_head, np.float64)[:3, :3]
    yaw = math.degrees(math.asin(max(-1.0, min(1.0, -float(r[2, 0])))))
    if math.hypot(r[2, 1], r[2, 2]) < 1e-9:
        return yaw, math.degrees(math.atan2(float(r[1, 2]), float(r[1, 1]))), 0.0
    pitch = -math.degrees(math.atan2(float(r[2, 1]), float(r[2, 2])))
    roll = math.degrees(math.atan2(float(r[1, 0]), float(r[0, 0])))
    return yaw, pitch, roll


def similarity_transform(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(3, 3) rotation, scale and shift of the plane that takes points to others best.

    Args:
        source: (N, 2).
        target: (N, 2), where the least squares are taken.

    Raises:
        ValueError: points that are not finite, or all of `source` in one place.
    """
    a, b = source @ [1, 1j], target @ [1, 1j]  # the plane as complex numbers
    a0, b0 = a.mean(), b.mean()
    spread = np.vdot(a - a0, a - a0).real
    if not (np.isfinite(a0) and np.isfinite(b0) and spread > 0):
        raise ValueError("points should be finite and not all in one place")
    turn = np.vdot(a - a0, b - b0) / spread
    shift = b0 - turn * a0
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]]
    )
