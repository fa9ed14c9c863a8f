"""Detail of reference faces carried into the crop of another (§4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ._arrays import Float32, bounding_box, float_array
from .camera import similarity_transform
from .face_chart import CHART_SHAPE, FaceChart
from .head_model import HeadModel
from .mesh import transform_points
from .rasterize import Raster, interpolate, rasterize
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
# Of `expected_relief`: weight of the prior, in mean energies of a reference's slopes, and how much
# the own relief of the other side counts where it is seen (all three measured, see docs/detail.md).
_PRIOR = 3.0
_OWN_MIRRORED = 0.25
_RIM = 9  # px of the chart from what is seen to where it counts in full
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

    Returns:
        `CHART_SHAPE` float32 mm, unfaded, and bool: where enough of the references show it, or the
        face itself on its other side.

    Raises:
        InvalidModelFile: the set is damaged.
    """
    deviation = np.empty((len(found), *CHART_SHAPE), np.float32)
    holds = []

    def reliefs() -> Iterator[tuple[Float32, Bool]]:
        for relief, reference in zip(deviation, found, strict=True):
            relief[:], shown = _relief_of(references, reference)
            holds.append(shown)
            yield relief, shown  # while it is in the processor's cache

    mean, known = _mean(reliefs())
    first, second = _neighbours(_half(seen & known) > _SHOWN)

    def slopes(relief: Float32) -> Float32:
        values = _half(relief).ravel()
        return values[second] - values[first]

    seen_slopes = np.empty((len(found), len(first)), np.float32)
    for k, (d, shown) in enumerate(zip(deviation, holds, strict=True)):
        d -= mean
        d *= shown
        seen_slopes[k] = slopes(d)
    wanted = slopes(np.where(seen, own - mean, np.float32(0)))
    # not by BLAS, whose threads would go on taking the cores from the stages that follow
    gram = np.einsum("ik,jk->ij", seen_slopes, seen_slopes)
    prior = _PRIOR * np.trace(gram) / len(found) + np.finfo(np.float32).tiny
    coefficients = np.linalg.solve(
        gram + prior * np.eye(len(found)), np.einsum("ik,k->i", seen_slopes, wanted)
    )
    relief = mean + np.einsum("n,nhw->hw", coefficients.astype(np.float32), deviation)
    inner = cv2.erode(seen[:, ::-1].astype(np.float32), np.ones((_RIM, _RIM), np.uint8))
    share = _OWN_MIRRORED * cv2.blur(inner, (_RIM, _RIM))
    relief += share * (own[:, ::-1] - relief)
    return np.asarray(relief, np.float32), known | seen[:, ::-1]


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


def _half(image: npt.NDArray[Any]) -> Float32:
    """At half the resolution, which slopes are compared at."""
    width, height = CHART_SHAPE[1] // 2, CHART_SHAPE[0] // 2
    values = np.ascontiguousarray(image, np.float32)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _neighbours(use: Bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(M,) flat indices of pixels beside and below each other that are both used."""
    index = np.arange(use.size).reshape(use.shape)
    across, down = use[:, 1:] & use[:, :-1], use[1:] & use[:-1]
    return (
        np.concatenate([index[:, :-1][across], index[:-1][down]]),
        np.concatenate([index[:, 1:][across], index[1:][down]]),
    )


def warp_by_surface(
    bump: Float32,
    seen: Bool,
    chart: FaceChart,
    raster: Raster,
    faces: npt.ArrayLike,
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
        faces: (F, 3) int32, the head model's skin.
        where: (S, S) bool, pixels of interest; nothing is valid far from them. None: all.
        threads: number of threads; the result is the same for any.
    """
    out = Borrowed(
        np.zeros(raster.triangle.shape, np.float32), np.zeros(raster.triangle.shape, np.bool_)
    )
    wanted = raster.triangle >= 0 if where is None else where
    if not wanted.any():
        return out
    box = bounding_box(wanted)
    part = Raster(raster.depth[box], raster.triangle[box], raster.barycentric[box])
    # OpenCV counts from pixel centres
    x, y = (
        interpolate(part, chart.place[:, axis], faces, threads=threads) - np.float32(0.5)
        for axis in (0, 1)
    )
    out.bump[box] = cv2.remap(bump, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shown = cv2.remap(seen.astype(np.float32), x, y, cv2.INTER_LINEAR)
    out.valid[box] = (shown > _SHOWN) & (part.triangle >= 0)
    return out


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
    crop_from_reference = similarity_transform(source[_INNER68], target) @ own_from_crop
    matrix = (np.linalg.inv(index) @ crop_from_reference @ index)[:2]
    bump = cv2.warpAffine(picture.bump, matrix, (size, size), flags=cv2.INTER_CUBIC)
    valid = picture.valid.astype(np.float32)
    shown = cv2.warpAffine(valid, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return Borrowed(np.asarray(bump, np.float32), np.asarray(shown > _SHOWN))
