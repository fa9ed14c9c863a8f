"""Detail of a reference face carried into the crop of another (§4.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, float_array
from .head_model import HeadModel
from .mesh import rotate_vectors, transform_points, vertex_normals
from .rasterize import Raster, interpolate, rasterize, vertex_visibility
from .references import ReferenceFace

__all__ = ["Borrowed", "warp_by_similarity", "warp_by_surface"]

# What the reference's photo shows of its own surface: as in the pipeline's dense-to-sparse step.
_MIN_COSINE = 0.2
_DEPTH_TOLERANCE = 2.0  # mm
_VISIBILITY_SIZE = 250  # px; hidden parts are larger than a pixel of this
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


def warp_by_surface(
    reference: ReferenceFace,
    mirrored: bool,
    model: HeadModel,
    raster: Raster,
    *,
    threads: int = 1,
) -> Borrowed:
    """Each pixel takes the bump of the same place on the reference's head.

    The head model gives both faces the same surface coordinates, so that differences of pose,
    shape and expression vanish; the paper aligns the pictures instead (`warp_by_similarity`).

    Args:
        reference: face of a set built with this head model.
        mirrored: take its mirror image.
        model: head model.
        raster: what the crop's pixels see of the foundation's skin, from `rasterize`.
        threads: number of threads; the result is the same for any.

    Raises:
        ValueError: coefficients that do not fit the model.
    """
    skin = slice(0, model.skin_vertex_count)
    head = model.vertices(reference.identity, reference.expression, threads=threads)[skin]
    normals = vertex_normals(head, model.faces, threads=threads)
    in_camera = transform_points(reference.camera_from_head, head)
    camera = reference.camera
    scale = _VISIBILITY_SIZE / camera.width
    small = replace(
        camera,
        fx=camera.fx * scale,
        fy=camera.fy * scale,
        cx=camera.cx * scale,
        cy=camera.cy * scale,
        width=_VISIBILITY_SIZE,
        height=_VISIBILITY_SIZE,
    )
    visible = vertex_visibility(
        in_camera,
        rotate_vectors(reference.camera_from_head, normals),
        rasterize(in_camera, model.faces, small, threads=threads).depth,
        small,
        min_cosine=_MIN_COSINE,
        depth_tolerance=_DEPTH_TOLERANCE,
        threads=threads,
    )
    bump_from_crop = np.linalg.inv(reference.crop_from_bump)
    place = camera.project(in_camera) @ bump_from_crop[:2, :2].T + bump_from_crop[:2, 2]
    place[~visible] = 0  # may be infinite
    if mirrored:
        mirror = model.mirror[skin]
        place, visible = place[mirror], visible[mirror]

    def at_pixels(values: npt.NDArray[np.float64] | Float32) -> Float32:
        return interpolate(raster, values.astype(np.float32), model.faces, threads=threads)

    shown = at_pixels(visible.astype(np.float32))
    # OpenCV counts from pixel centres
    x, y = (at_pixels(place[:, axis]) - np.float32(0.5) for axis in (0, 1))
    bump = cv2.remap(reference.bump, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    height, width = reference.bump.shape
    inside = (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)
    return Borrowed(np.asarray(bump, np.float32), (shown > 0.99) & inside & (raster.triangle >= 0))


def warp_by_similarity(
    reference: ReferenceFace, mirrored: bool, landmarks68: npt.ArrayLike, size: int
) -> Borrowed:
    """The reference's picture shifted, turned and scaled onto the face, as in the paper.

    Args:
        reference: face of a set.
        mirrored: take its mirror image.
        landmarks68: (68, 2) px of the crop; those of the jaw are not used.
        size: side of the crop, px.

    Raises:
        ValueError: landmarks of another shape, not finite, or all in one place.
    """
    target = float_array("landmarks68", landmarks68, (68, 2))[_INNER68].astype(np.float64)
    source = reference.landmarks68.astype(np.float64)
    own_from_crop = np.eye(3)
    if mirrored:
        own_from_crop[0] = -1, 0, reference.camera.width
        source = (source * [-1, 1] + [reference.camera.width, 0])[_MIRROR68]
    crop_from_reference = _similarity(source[_INNER68], target) @ own_from_crop
    # OpenCV puts pixel centres at whole numbers
    index = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    crop_from_map = crop_from_reference @ reference.crop_from_bump
    matrix = (np.linalg.inv(index) @ crop_from_map @ index)[:2]

    def warped(image: npt.NDArray[np.generic], flags: int) -> npt.NDArray[np.generic]:
        return np.asarray(cv2.warpAffine(np.asarray(image), matrix, (size, size), flags=flags))

    bump = warped(reference.bump, cv2.INTER_CUBIC)
    inside = warped(np.ones(reference.bump.shape, np.uint8), cv2.INTER_NEAREST)
    return Borrowed(np.asarray(bump, np.float32), inside > 0)


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
