"""What is compared: our foundation, the networks alone, and MediaPipe's points fitted by our fit.

A column is a way of getting a foundation from a photo. All answers are brought into the photo: its
pixels, and a camera whose axes are the photo's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Title of a column -> `foundation` of the Reconstructor.
COLUMNS = {"ours": "auto", "networks only": "networks", "MediaPipe": "landmarks"}


@dataclass(frozen=True, eq=False)
class Answer:
    """A foundation, seen from the photo."""

    landmarks: np.ndarray  # (68, 2) px of the photo, the model's iBUG points
    rotation: np.ndarray  # (3, 3) head to camera, its x and y along the photo's
    identity: np.ndarray
    expression: np.ndarray
    source: str

    @property
    def center(self) -> np.ndarray:
        """(2,) px, mean of the landmarks."""
        return self.landmarks.mean(0)


class Column:
    """One way of estimating foundations; keeps its networks loaded."""

    def __init__(
        self,
        title: str,
        foundation: str,
        threads: int,
        references: Path | None = None,
        runtime: str | None = None,
    ) -> None:
        from extreme3d_fast import Reconstructor

        self.title, self.foundation = title, foundation
        self.reconstructor = Reconstructor(
            foundation=foundation,
            threads=threads,
            references=references,
            runtime=runtime,  # type: ignore[arg-type]
        )
        self.model = self.reconstructor.head_model

    def __call__(self, image: np.ndarray) -> Answer | None:
        """(H, W, 3) uint8 RGB in; None where no face is found."""
        from extreme3d_fast import NoFaceFound

        try:
            return in_photo(self.reconstructor.estimate_foundation(image), self.model)
        except NoFaceFound:
            return None


def load_columns(
    threads: int, references: Path | None = None, runtime: str | None = None
) -> tuple[dict[str, Column], dict[str, str]]:
    """The columns, with a reference set (None: the built-in one), on a runtime (None: the faster
    one that is installed), and why others are missing."""
    columns, missing = {}, {}
    for title, foundation in COLUMNS.items():
        try:
            columns[title] = Column(title, foundation, threads, references, runtime)
        except (ImportError, FileNotFoundError, ValueError) as error:
            missing[title] = str(error)
    return columns, missing


def in_photo(foundation: Any, model: Any) -> Answer:
    """Landmarks in px of the photo, rotation against its axes."""
    pose = np.asarray(foundation.camera_from_head, np.float64)
    in_crop = foundation.landmarks(model)
    image_from_crop = np.linalg.inv(np.asarray(foundation.crop_from_image, np.float64))
    turn = np.eye(3)  # in the image plane: a similarity without its scale
    turn[:2, :2] = image_from_crop[:2, :2] / np.sqrt(np.linalg.det(image_from_crop[:2, :2]))
    return Answer(
        landmarks=in_crop @ image_from_crop[:2, :2].T + image_from_crop[:2, 2],
        rotation=turn @ pose[:3, :3],
        identity=np.asarray(foundation.identity, np.float64),
        expression=np.asarray(foundation.expression, np.float64),
        source=str(getattr(foundation, "source", "")),
    )


def geodesic(a: np.ndarray, b: np.ndarray) -> float:
    """Angle in degrees between two rotations."""
    return float(np.degrees(np.linalg.norm(turn_between(a, b))))


def turn_between(true: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """(3,) rotation vector, radians, in the head frame, that takes `true` to `estimate`.

    Its x, y and z are errors of pitch, yaw and roll. Unlike differences of Euler angles they stay
    meaningful at full profile, where yaw passes 90 degrees and roll cannot be told from pitch.
    """
    from extreme3d_fast.camera import vector_from_rotation

    return vector_from_rotation(true.T @ estimate)
