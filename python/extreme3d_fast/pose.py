"""Viewpoint: the square that the networks look at, and the pose network that reads it (paper §3).

The networks see a square of `SIDE_MM` round the middle of the face, as a pinhole of a nominal focal
length sees it that looks at that middle. A pose is then a rotation, where the middle of the face
is, and how large it appears.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.camera import CAMERA_FROM_FRONTAL_HEAD, Camera, rotation_from_vector
from extreme3d_fast.crop import (
    HeadSquare,
    check_image,
    magnification,
    rotation_2d,
    warp_similarity,
)
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.photo_network import ASSETS, OpenNetwork, PhotoNetwork, PhotoSession

__all__ = [
    "FACE_CENTER",
    "FOCAL_SIDES",
    "SIDE_MM",
    "HeadSquare",
    "PoseEstimate",
    "PoseNetwork",
    "head_square",
    "network_crop",
]

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

#: Point of the head frame, mm, that the square is centred on: inside the head, so that the face
#: stays in the square however it is turned.
FACE_CENTER = np.array([0.0, -13.0, 60.0])
#: Side of the square at the depth of that point.
SIDE_MM = 200.0
#: Nominal focal length in sides of the square: the head is then 640 mm away.
FOCAL_SIDES = 3.2
BATCH = 16  # crops per run: more does not run faster, and bounds memory


class PoseEstimate(NamedTuple):
    """What the pose network says of one face."""

    square: HeadSquare  #: the canonical square of this pose: where to look next
    rotation: Float64  #: (3, 3) camera_from_head in a camera upright with that square, towards it
    confidence: float  #: in [0, 1]: how well the crop that was looked at sits on a face

    def camera_in(self, crop_from_image: npt.ArrayLike, size: int) -> tuple[Camera, Float64]:
        """The pose as seen in a crop of the photo.

        Args:
            crop_from_image: (3, 3) similarity of px.
            size: side of the crop, px.

        Returns:
            A camera whose principal point is the face centre, and camera_from_head (4, 4).
        """
        crop = np.asarray(crop_from_image, np.float64)
        scale = magnification(crop)
        roll = math.atan2(crop[1, 0], crop[0, 0]) + self.square.roll
        center = crop[:2, :2] @ self.square.center + crop[:2, 2]
        focal = FOCAL_SIDES * self.square.side * scale
        camera_from_head = np.eye(4)
        camera_from_head[:3, :3] = rotation_from_vector([0.0, 0.0, roll]) @ self.rotation
        camera_from_head[:3, 3] = [0.0, 0.0, FOCAL_SIDES * SIDE_MM]
        camera_from_head[:3, 3] -= camera_from_head[:3, :3] @ FACE_CENTER
        return Camera(
            focal, focal, float(center[0]), float(center[1]), size, size
        ), camera_from_head


class PoseNetwork:
    """Reads the viewpoint of a head from a crop.

    Args:
        path: ONNX file; None is the built-in network.
        threads: at least 1.
        open_network: opens the file; None is `PhotoSession` with these threads.

    Raises:
        InvalidModelFile: the file is damaged or another network.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        threads: int = 1,
        open_network: OpenNetwork | None = None,
    ) -> None:
        open_network = open_network or partial(PhotoSession, threads=threads)
        self._session = open_network(path or ASSETS / "pose.onnx")
        self.size = network_size(self._session)
        self._session.expect(
            inputs={"image": (None, self.size, self.size, 3)}, outputs={"pose": (None, 10)}
        )

    def estimate(self, photo: UInt8, squares: Sequence[HeadSquare]) -> list[PoseEstimate]:
        """Looks at each square of a photo.

        Args:
            photo: (H, W, 3) uint8 RGB.
            squares: where to look; the network copes with a third of a side and 30 degrees, but is
                best where the square is the pose's own: look twice.

        Returns:
            One estimate per square.

        Raises:
            InvalidImage: wrong dtype or shape of the photo.
        """
        check_image(photo)
        found = []
        for start in range(0, len(squares), BATCH):
            batch = squares[start : start + BATCH]
            looks = [square.square_from_image(self.size) for square in batch]
            rows = self._session.look(photo, looks, self.size)["pose"].astype(np.float64)
            found += [_decoded(row, square) for row, square in zip(rows, batch, strict=True)]
        return found


def network_crop(photo: UInt8, square: HeadSquare, size: int) -> npt.NDArray[np.float32]:
    """(size, size, 3) float32 RGB in [0, 255]; the network subtracts its own mean."""
    return warp_similarity(photo, square.square_from_image(size), size).astype(np.float32)


def network_size(session: PhotoNetwork) -> int:
    """Side in px of the crop that a network takes; 0 if it takes none.

    Raises:
        InvalidModelFile: it wants something else than RGB in [0, 255], as `network_crop` cuts.
    """
    wanted = {"colour_order": "RGB", "mean": "0", "std": "1"}
    found = {key: session.metadata[key] for key in wanted}
    if found != wanted:
        raise InvalidModelFile(f"path: {session.path}: expected metadata {wanted}, it has {found}")
    shape = session.inputs.get("image", ())
    return shape[1] or 0 if len(shape) == 4 else 0


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
    middle = np.asarray(camera.project(center), np.float64)
    return HeadSquare(middle, SIDE_MM * camera.fx / float(center[2]), _upright(pose))


def _decoded(row: Float64, square: HeadSquare) -> PoseEstimate:
    """Rotation columns, place in sides, log distance and logit of one crop; see train/."""
    first = row[:3] / max(float(np.linalg.norm(row[:3])), 1e-12)
    second = row[3:6] - first @ row[3:6] * first
    length = float(np.linalg.norm(second))
    if not (np.isfinite(row).all() and length > 1e-6):  # no rotation: no face, and no better place
        return PoseEstimate(square, CAMERA_FROM_FRONTAL_HEAD, 0.0)
    second /= length
    rotation = np.stack([first, second, np.cross(first, second)], 1)
    roll = _upright(rotation)
    center = square.center + square.side * (rotation_2d(square.roll) @ row[6:8])
    side = square.side * math.exp(-float(np.clip(row[8], -3, 3)))
    upright = rotation_from_vector([0.0, 0.0, -roll]) @ rotation
    confidence = 1 / (1 + math.exp(-float(np.clip(row[9], -80, 80))))
    around = math.remainder(square.roll + roll, 2 * math.pi)
    return PoseEstimate(HeadSquare(center, side, around), upright, confidence)


def _upright(camera_from_head: Float64) -> float:
    """Radians that the head's up axis leans clockwise in the image; 0 where it points at us."""
    x, y = camera_from_head[:2, 1]
    return math.atan2(x, -y) if math.hypot(x, y) > 1e-6 else 0.0
