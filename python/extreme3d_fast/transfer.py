"""Detail of reference faces carried into the crop of another (§4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, float_array, int_array, mask_array
from .camera import similarity_transform
from .face_chart import CHART_SHAPE, FaceChart
from .head_model import HeadModel
from .mesh import transform_points
from .rasterize import Raster, rasterize
from .references import Reference, ReferenceFace, ReferenceSet

__all__ = [
    "REFERENCES",
    "SHORT_LIST",
    "Borrowed",
    "expected_relief",
    "mean_relief",
    "warp_by_similarity",
    "warp_by_surface",
]

#: References that relief is expected from; the paper takes one.
REFERENCES = 40
#: References of the nearest viewpoints they are chosen from. The paper's 100 keep poses alike; on
#: the unrolled face they need not be, and among more are better matches.
SHORT_LIST = 300

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


Bool = npt.NDArray[np.bool_]


class Borrowed(NamedTuple):
    """A reference's bump map in another face's crop.

    bump: (S, S) float32 mm, unfaded, positive is deeper; meaningless where not `valid`.
    valid: (S, S) bool, the reference shows this place.
    """

    bump: Float32
    valid: Bool


def mean_relief(references: ReferenceSet, found: Sequence[Reference]) -> tuple[Float32, Bool]:
    """Mean bump of some references on the unrolled face, and where enough of them show it.

    Args:
        references: the set.
        found: what its `search` found, at least one.

    Returns:
        `CHART_SHAPE` float32 mm, unfaded, and bool.

    Raises:
        InvalidModelFile: the set is damaged.
    """
    return _mean(_relief_of(references, reference) for reference in found)


def expected_relief(
    references: ReferenceSet,
    found: Sequence[Reference],
    own: Float32,
    seen: Bool,
    *,
    threads: int = 1,
) -> tuple[Float32, Bool]:
    """What a face is expected to hide, given what it shows and faces that are like it.

    One person's wrinkles are not another's, however alike: a single reference, as in the paper, is
    further from the truth than no detail. So the hidden relief is predicted from the seen one: the
    references' mean h̄ plus the combination H c of their deviations from it that explains the
    slopes seen, c = argmin |∇(H c - (own - h̄))|² + λ |c|²: the conditional mean of a Gaussian with
    their covariance. Where the other side of the face is seen, its mirror image counts too.

    Args:
        references: the set.
        found: what its `search` found, at least one.
        own: `CHART_SHAPE` mm, unfaded, the face's own relief on the unrolled face.
        seen: `CHART_SHAPE` bool, where it holds.
        threads: number of threads; the result is the same for any.

    Returns:
        `CHART_SHAPE` float32 mm, unfaded, and bool: where enough of the references show it, or the
        face itself on its other side.

    Raises:
        InvalidModelFile: the set is damaged.
        TypeError, ValueError: a map has the wrong dtype or shape, nobody was found.
    """
    if not found:
        raise ValueError("`found` should hold at least one reference")
    relief = float_array("own", own, CHART_SHAPE)
    shown = mask_array("seen", seen, CHART_SHAPE)
    place = {index: k for k, index in enumerate(dict.fromkeys(r.index for r in found))}
    stored = references.stored_reliefs(list(place), threads=threads)
    chosen = np.array([2 * place[r.index] + r.mirrored for r in found], np.int32)
    expected, known = _core.expected_relief(
        stored.view(np.uint8).reshape(len(stored), -1), chosen, relief, shown, threads
    )
    return expected, known.view(np.bool_)


def _relief_of(references: ReferenceSet, reference: Reference) -> tuple[Float32, Bool]:
    """A reference's relief on the unrolled face, and where its photo shows it."""
    bump, seen = references.relief(reference.index)
    return (bump[:, ::-1], seen[:, ::-1]) if reference.mirrored else (bump, seen)


def _mean(reliefs: Iterable[tuple[Float32, Bool]]) -> tuple[Float32, Bool]:
    """Mean of reliefs where they are seen, and where enough of them are."""
    total, weights = np.zeros((2, *CHART_SHAPE), np.float32)
    count, number = np.zeros(CHART_SHAPE, np.int32), 0
    for bump, seen in reliefs:
        weight = np.maximum(seen, np.float32(_UNSEEN))
        weights += weight
        weight *= bump
        total += weight
        count += seen
        number += 1
    return total / weights, count >= _ENOUGH * number


def warp_by_surface(
    bump: Float32,
    seen: Bool,
    chart: FaceChart,
    raster: Raster,
    *,
    where: Bool | None = None,
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
        where: (S, S) bool, pixels of interest; nothing is valid but there and right beside them,
            within their box. None: all.
        threads: number of threads; the result is the same for any.
    """
    triangle = int_array("raster.triangle", raster.triangle, (-1, -1))
    wanted = triangle >= 0 if where is None else where
    bump_in_crop, valid = chart.tables.warp_by_surface(
        float_array("bump", bump, CHART_SHAPE),
        mask_array("seen", seen, CHART_SHAPE),
        triangle,
        float_array("raster.barycentric", raster.barycentric, (*triangle.shape, 2)),
        mask_array("where", wanted, triangle.shape),
        threads,
    )
    return Borrowed(bump_in_crop, valid.view(np.bool_))


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
    picture = warp_by_surface(face.bump, face.seen, chart, raster)
    # OpenCV puts pixel centres at whole numbers
    index = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    crop_from_reference = similarity_transform(source[_INNER68], target) @ own_from_crop
    matrix = (np.linalg.inv(index) @ crop_from_reference @ index)[:2]
    bump = cv2.warpAffine(picture.bump, matrix, (size, size), flags=cv2.INTER_CUBIC)
    valid = picture.valid.astype(np.float32)
    shown = cv2.warpAffine(valid, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return Borrowed(np.asarray(bump, np.float32), np.asarray(shown > _SHOWN))
