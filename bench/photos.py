"""Held-out photos of the research data, with their labels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

FOLDERS = ("celebamask", "utkface", "youtube_faces")
N_LANDMARKS = 468
HELD_OUT = 10  # one person in so many


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and what its teachers say."""

    name: str  # folder/file
    path: Path
    points: np.ndarray  # (468, 2) px, MediaPipe's
    whenet: np.ndarray  # (3, 3) camera_from_head
    mediapipe: np.ndarray  # (3, 3) camera_from_head

    @property
    def folder(self) -> str:
        return self.name.split("/")[0]

    @property
    def person(self) -> str:
        return person_of(self.name)

    @property
    def key(self) -> int:
        """The same number for a name in every run."""
        return zlib.crc32(self.name.encode())

    @property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1: tight box of the points."""
        return np.concatenate([self.points.min(0), self.points.max(0)])

    def read(self) -> np.ndarray:
        return read_rgb(self.path)


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} is not an image")
    return np.ascontiguousarray(image[:, :, ::-1])


def person_of(name: str) -> str:
    """Who is in a photo; where nobody knows, the photo's name."""
    folder, file = name.split("/")
    stem = file.rsplit(".", 1)[0]
    if folder == "youtube_faces":
        return stem.rsplit("_", 1)[0]
    if folder == "fasseg_profile":
        return stem[:10]  # personneNN
    return name


def is_held_out(person: str) -> bool:
    """Training leaves these persons out."""
    return zlib.crc32(person.encode()) % HELD_OUT == 0


@cache
def held_out_photos(data: Path, folders: tuple[str, ...] = FOLDERS) -> list[Photo]:
    """Photos of held-out persons that all teachers have labelled, by name."""
    labels = np.load(data / "photos" / "face_labels.npz")
    landmarks = np.load(data / "photos" / "landmarks478.npz")
    row = {name: i for i, name in enumerate(landmarks["names"].tolist())}
    xy, angles, matrices = landmarks["xy_u16"], labels["pose_whenet"], labels["matrix"]
    photos = []
    for i, name in enumerate(labels["names"].tolist()):
        if name.split("/")[0] not in folders or not is_held_out(person_of(name)):
            continue
        if name not in row or not (np.isfinite(angles[i]).all() and np.isfinite(matrices[i]).all()):
            continue
        photos.append(
            Photo(
                name=name,
                path=data / "photos" / name,
                points=xy[row[name], :N_LANDMARKS].astype(np.float64) / 8 - 256,
                whenet=whenet_rotation(*angles[i].astype(float)),
                mediapipe=mediapipe_rotation(matrices[i]),
            )
        )
    return sorted((p for p in photos if p.path.exists()), key=lambda p: p.name)


@cache
def teacher_points(data: Path) -> dict[str, np.ndarray]:
    """(468, 2) px of MediaPipe's points by name (folder/file), where it found a face."""
    landmarks = np.load(data / "photos" / "landmarks478.npz")
    xy = landmarks["xy_u16"][:, :N_LANDMARKS].astype(np.float32) / 8 - 256
    return dict(zip(landmarks["names"].tolist(), xy, strict=True))


def whenet_rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """camera_from_head of WHENet's angles in degrees, which are those of 300W-LP.

    Those turn about the image's axes in the order roll, yaw, pitch, the package's in the order
    pitch, yaw, roll; their yaw and roll have the opposite sign.
    """
    from extreme3d_fast.camera import rotation_from_angles

    nod, turn = rotation_from_angles(0, pitch, 0), rotation_from_angles(-yaw)
    tilt = rotation_from_angles(0, 0, -roll)
    flip = np.diag([1.0, -1.0, -1.0])  # of a frontal head: its own inverse
    return nod @ flip @ turn @ flip @ tilt


def mediapipe_rotation(matrix: np.ndarray) -> np.ndarray:
    """camera_from_head of MediaPipe's 4x4, whose camera has y up and looks along -z."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64)[:3, :3])
    return np.diag([1.0, -1.0, -1.0]) @ u @ vt
