"""True depth beside a foundation: relief, its normals, and angles between normals.

A bump map is judged on the foundation that it belongs to. What the truth asks of it is the gap
between true depth and foundation, of which the long waves are the foundation's own errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.bands import band_pass, relief_band
from bench.face_views import FaceView, into_crop

_CLIFF = 3.0  # mm of depth per mm across the picture: beyond it two surfaces meet (71 degrees)
MAX_RELIEF = 6.0  # mm; larger gaps are no relief


@dataclass(frozen=True, eq=False)
class Truth:
    """What a face in a crop really looks like."""

    gap: np.ndarray  # (S, S) mm, true depth in the foundation's scale minus the foundation's
    normal: np.ndarray  # (S, S, 3) unit, towards the camera, NaN where unknown
    known: np.ndarray  # (S, S) bool
    judged: np.ndarray  # (S, S) bool, known and face
    mm_per_pixel: float
    own_scale: float = 1.0  # mm of the foundation per mm of the truth

    def relief(self) -> np.ndarray:
        """(S, S) mm: the band of bump maps."""
        relief = relief_band(self.gap, self.known, self.mm_per_pixel)
        return np.clip(relief, -MAX_RELIEF, MAX_RELIEF)

    def shorter_than(self, wave: float) -> np.ndarray:
        """(S, S) mm: the gap's waves below so many mm; inf: all of it."""
        if np.isinf(wave):
            return np.where(self.known, self.gap, 0)
        return band_pass(self.gap, self.known, self.mm_per_pixel, 0, wave)


def truth_in_crop(
    view: FaceView, depth: np.ndarray, camera: Any, normal: np.ndarray | None = None
) -> Truth:
    """The truth about a photo, brought into the crop of a view of it.

    Args:
        view: where the foundation lies.
        depth: (H, W) mm of the photo, inf or NaN where there is no surface.
        camera: the photo's.
        normal: (H, W, 3) in the photo's camera frame; None: those of the depth.
    """
    moved = into_crop(depth, view.crop_from_image, view.size)
    scale = float(np.sqrt(np.linalg.det(view.crop_from_image[:2, :2])))
    turn = view.crop_from_image[:2, :2] / scale
    in_crop = camera_in_crop(camera, view.crop_from_image, view.size)
    if normal is None:
        n = normals_of_depth(moved, in_crop)
    else:
        n = np.stack(
            [into_crop(normal[..., i], view.crop_from_image, view.size) for i in range(3)], axis=-1
        )
        n[..., :2] = n[..., :2] @ turn.T
        n /= np.linalg.norm(n, axis=2, keepdims=True)
    known = np.isfinite(moved) & np.isfinite(n).all(axis=2) & np.isfinite(view.depth)
    judged = known & view.face & view.in_photo
    # a pixel spans the same length of the same face in both
    both = judged if judged.any() else known
    z, own = (float(np.median(a[both])) if both.any() else 1.0 for a in (moved, view.depth))
    to_own_scale = (own / view.camera.fx) / (z / in_crop.fx)
    gap = np.where(known, (moved - z) * to_own_scale - (view.depth - own), 0)
    # next to a cliff, of the nose before the cheek, the gap is that of another surface
    steep = cliffs(np.where(known, moved * to_own_scale, np.nan), own / view.camera.fx)
    steep |= cliffs(view.depth, own / view.camera.fx)
    known &= ~steep
    return Truth(gap, n, known, judged & known, own / view.camera.fx, to_own_scale)


def camera_in_crop(camera: Any, crop_from_image: np.ndarray, size: int) -> Any:
    """The photo's camera, turned about its axis and seen in the crop."""
    from extreme3d_fast.camera import Camera

    scale = float(np.sqrt(np.linalg.det(crop_from_image[:2, :2])))
    center = crop_from_image[:2, :2] @ [camera.cx, camera.cy] + crop_from_image[:2, 2]
    return Camera(camera.fx * scale, camera.fy * scale, *map(float, center), size, size)


def cliffs(depth: np.ndarray, mm_per_pixel: float) -> np.ndarray:
    """(S, S) bool: pixels beside which depth is unknown or jumps."""
    out = np.zeros(depth.shape, bool)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            jump = ~(np.abs(np.diff(depth, axis=axis)) < _CLIFF * mm_per_pixel)
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            out[tuple(ahead)] |= jump
            out[tuple(behind)] |= jump
    return out


def normals_of_depth(depth: np.ndarray, camera: Any) -> np.ndarray:
    """(S, S, 3) unit normals towards the camera of a depth map, NaN beside unknown depth."""
    height, width = depth.shape
    z = np.where(np.isfinite(depth), depth, np.nan).astype(np.float64)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    points = np.stack(
        [z * ((x - camera.cx) / camera.fx), z * ((y - camera.cy) / camera.fy)[:, None], z], axis=-1
    )
    across, down = (np.full_like(points, np.nan) for _ in range(2))
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    n = np.cross(down, across)
    return n / np.linalg.norm(n, axis=2, keepdims=True)


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...) degrees between unit vectors (..., 3)."""
    # by the chord: exact for small angles
    chord = np.linalg.norm(a - b, axis=-1)
    return np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))


def angle_error(
    view: FaceView, bump: np.ndarray, true_normal: np.ndarray, judged: np.ndarray
) -> float:
    """Mean angle in degrees between true normals and those of the foundation with a bump map."""
    found = angles(normals_of_depth(view.depth + bump, view.camera), true_normal)[judged]
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def rms(a: np.ndarray, inside: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a[inside], dtype=np.float64)))) if inside.any() else 0.0
