"""Detail of reference faces carried into the crop of another (§4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, float_array
from .face_chart import CHART_SHAPE, FaceChart
from .head_model import HeadModel
from .mesh import transform_points
from .rasterize import Raster, interpolate, rasterize
from .references import Reference, ReferenceFace, ReferenceSet

__all__ = ["REFERENCES", "Borrowed", "mean_relief", "warp_by_similarity", "warp_by_surface"]

#: References whose mean is borrowed; the paper takes one.
REFERENCES = 16

# Of several references so many have to show a place.
_ENOUGH = 0.25
_UNSEEN = 1e-3  # what an unseen place, which goes on smoothly, counts in a mean
_SHOWN = 0.99
# The left-right image of each of the 68 landmarks (iBUG).
_MIRROR68 = np.concatenate(
    [
        [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31],
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
        [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65],
    ]
)
_INNER68 = slice(17, 68)  # without the jaw, which is a silhouette: other skin in each pose


class Borrowed(NamedTuple):
    """A reference's bump map in another face's crop.

    bump: (S, S) float32 mm, unfaded, positive is deeper; meaningless where not `valid`.
    valid: (S, S) bool, the reference shows this place.
    """

    bump: Float32
    valid: npt.NDArray[np.bool_]


def mean_relief(
    references: ReferenceSet, found: Sequence[Reference]
) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Mean bump of some references on the unrolled face, and where enough of them show it.

    One person's wrinkles are not another's, however alike: measured inside of holes, a single
    reference is further from the truth than no detail, the mean of sixteen is closer.

    Args:
        references: the set.
        found: what its `search` found, at least one.

    Returns:
        `CHART_SHAPE` float32 mm, unfaded, and bool.

    Raises:
        InvalidModelFile: the set is damaged.
    """
    total, weights = np.zeros((2, *CHART_SHAPE), np.float32)
    count = np.zeros(CHART_SHAPE, np.int32)
    for reference in found:
        face = references.face(reference.index)
        bump, seen = face.bump, face.seen
        if reference.mirrored:
            bump, seen = bump[:, ::-1], seen[:, ::-1]
        weight = np.where(seen, np.float32(1), np.float32(_UNSEEN))
        total += weight * bump
        weights += weight
        count += seen
    return total / weights, count >= _ENOUGH * len(found)


def warp_by_surface(
    bump: Float32,
    seen: npt.NDArray[np.bool_],
    chart: FaceChart,
    raster: Raster,
    faces: npt.ArrayLike,
    *,
    threads: int = 1,
) -> Borrowed:
    """Each pixel takes the bump of the same place on the unrolled face.

    Differences of pose, shape and expression vanish; the paper aligns the pictures instead
    (`warp_by_similarity`).

    Args:
        bump: `CHART_SHAPE` mm, unfaded.
        seen: `CHART_SHAPE`, where it holds.
        chart: of the head model.
        raster: what the crop's pixels see of the foundation's skin, from `rasterize`.
        faces: (F, 3) int32, the head model's skin.
        threads: number of threads; the result is the same for any.
    """
    # OpenCV counts from pixel centres
    x, y = (
        interpolate(raster, chart.place[:, axis], faces, threads=threads) - np.float32(0.5)
        for axis in (0, 1)
    )
    warped = cv2.remap(bump, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shown = cv2.remap(seen.astype(np.float32), x, y, cv2.INTER_LINEAR)
    return Borrowed(np.asarray(warped, np.float32), (shown > _SHOWN) & (raster.triangle >= 0))


def warp_by_similarity(
    face: ReferenceFace,
    mirrored: bool,
    model: HeadModel,
    chart: FaceChart,
    landmarks68: npt.ArrayLike,
    size: int,
) -> Borrowed:
    """The reference's picture shifted, turned and scaled onto the face, as in the paper.

    Args:
        face: face of a set built with this head model.
        mirrored: take its mirror image.
        model: head model.
        chart: of the head model.
        landmarks68: (68, 2) px of the crop; those of the jaw are not used.
        size: side of the crop, px.

    Raises:
        ValueError: landmarks of another shape, not finite, or all in one place; coefficients that
            do not fit the model.
    """
    target = float_array("landmarks68", landmarks68, (68, 2))[_INNER68].astype(np.float64)
    source = face.landmarks68.astype(np.float64)
    own_from_crop = np.eye(3)
    if mirrored:
        own_from_crop[0] = -1, 0, face.camera.width
        source = (source * [-1, 1] + [face.camera.width, 0])[_MIRROR68]
    head = model.vertices(face.identity, face.expression)[: model.skin_vertex_count]
    in_camera = transform_points(face.camera_from_head, head)
    raster = rasterize(in_camera, model.faces, face.camera)
    picture = warp_by_surface(face.bump, face.seen, chart, raster, model.faces)
    # OpenCV puts pixel centres at whole numbers
    index = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    crop_from_reference = _similarity(source[_INNER68], target) @ own_from_crop
    matrix = (np.linalg.inv(index) @ crop_from_reference @ index)[:2]
    bump = cv2.warpAffine(picture.bump, matrix, (size, size), flags=cv2.INTER_CUBIC)
    valid = picture.valid.astype(np.float32)
    shown = cv2.warpAffine(valid, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return Borrowed(np.asarray(bump, np.float32), np.asarray(shown > _SHOWN))


def _similarity(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(3, 3) least-squares rotation, scale and shift of (N, 2) points, not reflecting."""
    a, b = source @ [1, 1j], target @ [1, 1j]  # the plane as complex numbers
    a0, b0 = a.mean(), b.mean()
    spread = np.vdot(a - a0, a - a0).real
    if not (np.isfinite(a0) and np.isfinite(b0) and spread > 0):
        raise ValueError("`landmarks68` should be finite and not all in one place")
    turn = np.vdot(a - a0, b - b0) / spread
    shift = b0 - turn * a0
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]]
    )
