"""Reference sets without photos: waves for relief, random viewpoints and features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.face_chart import CHART_SHAPE
from extreme3d_fast.references import ReferenceFace, ReferenceWriter


def reference_face(
    rng: np.random.Generator, camera_from_head: npt.NDArray[np.floating] | None = None
) -> ReferenceFace:
    """A face of a reference set: smooth waves of 12 mm and more, about 0.3 mm deep.

    Args:
        camera_from_head: (3, 3) rotation; None for one near the frontal.
    """
    if camera_from_head is None:
        yaw, pitch, roll = rng.normal(0, (20, 8, 3))
        camera_from_head = rotation_from_angles(yaw, pitch, roll)
    transform = np.eye(4, dtype=np.float32)
    transform[:3, :3] = camera_from_head
    transform[:3, 3] = [5, -13, 900]
    y, x = np.mgrid[: CHART_SHAPE[0], : CHART_SHAPE[1]].astype(np.float32)
    wave, phase = rng.normal(0, 0.15, (4, 2)), rng.uniform(0, 6.28, 4)
    bump = sum(
        0.15 * np.sin(a * x + b * y + c) for (a, b), c in zip(wave, phase, strict=True)
    ) + np.zeros_like(x)
    return ReferenceFace(
        bump=bump.astype(np.float32),
        seen=np.hypot(x - 150, y - 80) < 120,
        identity=rng.normal(size=99).astype(np.float32),
        expression=rng.uniform(size=52).astype(np.float32),
        camera=Camera(1600.0, 1600.0, 240.0, 260.0, 500, 500),
        camera_from_head=transform,
        landmarks68=rng.uniform(100, 400, (68, 2)).astype(np.float32),
    )


def write_reference_set(
    path: Path, count: int = 8, *, seed: int = 0, head_model: str = "synthetic"
) -> tuple[list[ReferenceFace], npt.NDArray[np.float32]]:
    """Writes a set of `reference_face`; returns its faces and (count, 128) unit descriptors."""
    rng = np.random.default_rng(seed)
    faces = [reference_face(rng) for _ in range(count)]
    descriptors = rng.normal(size=(count, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    with ReferenceWriter(path, head_model=head_model, source="synthetic") as writer:
        for face, descriptor in zip(faces, descriptors, strict=True):
            writer.add(face, descriptor)
    return faces, descriptors
