"""Ways of filling the holes of a bump map: the product's, and simpler ones to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.details import FACE_SHOWN
from bench.face_views import FaceView, view_foundation

SURFACE, SIMILARITY = "reference, surface", "reference, similarity"
# Mean of those most similar of the same viewpoint, and whoever of it: what one person's relief, and
# what similarity, is worth.
SEVERAL_COUNT = 16
SEVERAL = f"{SEVERAL_COUNT} references, surface"
ANYBODY = "any reference, surface"
SMOOTH, MEAN, MIRRORED, NONE = "smooth", "mean face", "mirrored half", "none"
TITLES = (SURFACE, SIMILARITY, SEVERAL, ANYBODY, SMOOTH, MEAN, MIRRORED, NONE)

MIN_WEIGHT = 0.1  # below it too little of a bump is left to tell what it was before it faded
_MIN_COSINE = 0.2  # a vertex counts as seen, as in the pipeline
_DEPTH_TOLERANCE = 2.0  # mm
_SHORT_LIST = 100  # as the product's search
_ENOUGH = 0.25  # of several references show a place
_SHOWN = 0.99  # all corners of a triangle are known


@dataclass(frozen=True, eq=False)
class Target:
    """A face in its crop of S px, as the photo shows it uncovered."""

    view: FaceView
    model: Any
    foundation: Any

    @cached_property
    def in_camera(self) -> np.ndarray:
        """(V, 3) float32 mm, the foundation's skin."""
        from extreme3d_fast.mesh import transform_points

        return transform_points(
            self.foundation.camera_from_head, _skin(self.model, self.foundation)
        )

    @cached_property
    def raster(self) -> Any:
        from extreme3d_fast.rasterize import rasterize

        return rasterize(self.in_camera, self.model.faces, self.view.camera)

    @cached_property
    def landmarks68(self) -> np.ndarray:
        """(68, 2) px, the foundation's."""
        return self.landmarks("68")

    @cached_property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1: tight box of the foundation's points, as of a `Photo`."""
        points = self.landmarks("478")[:468]
        return np.concatenate([points.min(0), points.max(0)])

    def landmarks(self, which: str) -> np.ndarray:
        from extreme3d_fast.mesh import transform_points

        found = self.foundation
        head = self.model.landmark_basis(which).positions(found.identity, found.expression)
        return self.view.camera.project(transform_points(found.camera_from_head, head))

    def at_pixels(self, of_vertex: np.ndarray) -> np.ndarray:
        """(S, S) float32: (V,) values carried to the pixels, 0 where no face."""
        from extreme3d_fast.rasterize import interpolate

        return interpolate(self.raster, np.asarray(of_vertex, np.float32), self.model.faces)


def target_of(reconstructor: Any, photo: np.ndarray) -> Target | None:
    """The main face of a photo, None where there is none."""
    from extreme3d_fast import NoFaceFound

    try:
        foundation = reconstructor.estimate_foundation(photo)
    except NoFaceFound:
        return None
    model = reconstructor.head_model
    view = view_foundation(model, foundation, photo, reconstructor.crop_size)
    return Target(view, model, foundation)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network says of a picture of a face: relief, and where nothing is to be trusted."""

    target: Target
    image: np.ndarray  # (S, S, 3) uint8 RGB
    bump: np.ndarray  # (S, S) float32 mm, faded with the face weight
    hole: np.ndarray  # (S, S) bool
    hidden: float  # share of the face, in [0, 1]

    @cached_property
    def unfaded(self) -> np.ndarray:
        """(S, S) float32 mm, 0 where it is not known."""
        weight = self.target.view.weight
        out = np.zeros_like(self.bump)
        return np.divide(self.bump, weight, out=out, where=self.known)

    @cached_property
    def known(self) -> np.ndarray:
        """(S, S) bool."""
        return ~self.hole & (self.target.view.weight >= MIN_WEIGHT)


def look(network: Any, target: Target, image: np.ndarray) -> Seen:
    """What a BumpNetwork says of a picture of the target's crop, and the holes that result."""
    from extreme3d_fast.occlusion import find_holes

    view = target.view
    bump, probability = network.estimate(image, view.weight, view.depth, view.camera)
    occlusion = find_holes((probability > FACE_SHOWN) & view.in_photo, view.weight)
    return Seen(target, image, bump, occlusion.hole, occlusion.fraction)


Borrowed = tuple[np.ndarray, np.ndarray]  # (S, S) mm, unfaded, and (S, S) bool, where it is valid
Lender = Callable[[Seen], Borrowed | None]


def filled(seen: Seen, borrowed: Borrowed | None) -> np.ndarray:
    """(S, S) float32 mm: the holes with what was borrowed blended in, smooth without it."""
    from extreme3d_fast.occlusion import fill_bump

    return fill_bump(seen.bump, seen.target.view.weight, seen.hole, *(borrowed or ()))


class References:
    """Fills with the faces of a reference set; `found` is the last answer of its search."""

    def __init__(self, path: Path | None, threads: int) -> None:
        from extreme3d_fast.identity import IdentityNetwork
        from extreme3d_fast.references import ReferenceSet

        self.set = ReferenceSet.load(path)
        self._network = IdentityNetwork(threads=threads)

    def search(self, seen: Seen) -> Any:
        """The reference of a covered face."""
        return self.set.search(
            seen.target.foundation.camera_from_head, self._descriptor(seen), k=_SHORT_LIST
        )

    def _descriptor(self, seen: Seen) -> np.ndarray:
        return self._network.describe(seen.image, seen.target.landmarks68)

    def search_anybody(self, seen: Seen, rng: np.random.Generator) -> Any:
        """As `search`, but similar to a direction by chance."""
        direction = rng.normal(size=128)
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        return self.set.search(seen.target.foundation.camera_from_head, direction)

    def by_surface(self, seen: Seen, found: Any) -> Borrowed:
        from extreme3d_fast.transfer import warp_by_surface

        target, face = seen.target, self.set.face(found.index)
        return warp_by_surface(face, found.mirrored, target.model, target.raster)

    def by_similarity(self, seen: Seen, found: Any) -> Borrowed:
        from extreme3d_fast.transfer import warp_by_similarity

        target, face = seen.target, self.set.face(found.index)
        return warp_by_similarity(face, found.mirrored, target.landmarks68, target.view.size)

    def several_by_surface(self, seen: Seen) -> Borrowed:
        """The mean of the most similar of those that `search` chooses from."""
        from extreme3d_fast.references import Reference, _quaternion

        pose = np.asarray(seen.target.foundation.camera_from_head, np.float64)
        index, mirrored, _ = self.set._index.nearest(_quaternion(pose[:3, :3]), _SHORT_LIST)
        similarity = self.set.descriptors[index].astype(np.float64) @ self._descriptor(seen)
        best = np.argsort(-similarity, kind="stable")[:SEVERAL_COUNT]
        total, count = np.zeros(seen.bump.shape, np.float32), np.zeros(seen.bump.shape, np.int32)
        for k in best:
            found = Reference(int(index[k]), bool(mirrored[k]), 0.0, float(similarity[k]))
            bump, valid = self.by_surface(seen, found)
            total[valid] += bump[valid]
            count += valid
        return total / np.maximum(count, 1), count >= _ENOUGH * len(best)


def mirrored_half(seen: Seen) -> Borrowed:
    """The own bump at each place's left-right image, valid where that is known."""
    from extreme3d_fast.mesh import rotate_vectors, vertex_normals
    from extreme3d_fast.rasterize import vertex_visibility

    target = seen.target
    camera, model = target.view.camera, target.model
    normals = vertex_normals(_skin(model, target.foundation), model.faces)
    visible = vertex_visibility(
        target.in_camera,
        rotate_vectors(target.foundation.camera_from_head, normals),
        target.raster.depth,
        camera,
        min_cosine=_MIN_COSINE,
        depth_tolerance=_DEPTH_TOLERANCE,
    )
    place = camera.project(target.in_camera)
    place[~visible] = 0  # may be infinite
    mirror = model.mirror[: model.skin_vertex_count]
    # OpenCV counts from pixel centres
    x, y = (target.at_pixels(place[mirror, axis]) - np.float32(0.5) for axis in (0, 1))
    known = cv2.remap(seen.known.astype(np.float32), x, y, cv2.INTER_LINEAR)
    seen_there = target.at_pixels(visible[mirror]) > _SHOWN
    bump = cv2.remap(filled_unfaded(seen), x, y, cv2.INTER_CUBIC)
    return bump, (known > _SHOWN) & seen_there & (target.raster.triangle >= 0)


def filled_unfaded(seen: Seen) -> np.ndarray:
    """(S, S) float32 mm, holes and what lies beyond the face closed smoothly, so that resampling
    beside them does not ring."""
    from extreme3d_fast.blending import blend_gradients

    return blend_gradients(seen.unfaded, seen.known, np.ones_like(seen.known))


@dataclass(frozen=True, eq=False)
class MeanFace:
    """Mean relief of the faces of a set at each vertex of the head model, left and right alike."""

    bump: np.ndarray  # (V,) float32 mm, unfaded
    known: np.ndarray  # (V,) bool

    def __call__(self, seen: Seen) -> Borrowed:
        target = seen.target
        shown = target.at_pixels(self.known) > _SHOWN
        return target.at_pixels(self.bump), shown & (target.raster.triangle >= 0)


def mean_face(references: Any, model: Any) -> MeanFace:
    """The mean of a ReferenceSet."""
    total, count = np.zeros(model.skin_vertex_count), np.zeros(model.skin_vertex_count)
    for i in range(len(references)):
        bump, visible = at_vertices(references.face(i), model)
        total += np.where(visible, bump, 0)
        count += visible
    mirror = model.mirror[: model.skin_vertex_count]
    total, count = total + total[mirror], count + count[mirror]
    known = (count > 0) & (model.face_weight >= MIN_WEIGHT)
    mean = np.where(known, total / np.maximum(count, 1), 0)
    return MeanFace(mean.astype(np.float32), known)


def at_vertices(face: Any, model: Any) -> Borrowed:
    """A ReferenceFace's bump (V,) mm at the head model's vertices, and which of them it shows."""
    from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_normals
    from extreme3d_fast.rasterize import rasterize, vertex_visibility

    head = _skin(model, face)
    in_camera = transform_points(face.camera_from_head, head)
    normals = rotate_vectors(face.camera_from_head, vertex_normals(head, model.faces))
    half = _smaller(face.camera, 0.5)
    visible = vertex_visibility(
        in_camera,
        normals,
        rasterize(in_camera, model.faces, half).depth,
        half,
        min_cosine=_MIN_COSINE,
        depth_tolerance=_DEPTH_TOLERANCE,
    )
    map_from_crop = np.linalg.inv(face.crop_from_bump)
    place = face.camera.project(in_camera) @ map_from_crop[:2, :2].T + map_from_crop[:2, 2]
    height, width = face.bump.shape
    visible &= (place > 0).all(1) & (place < [width, height]).all(1)
    place[~visible] = 0.5
    # OpenCV counts from pixel centres, and takes maps of up to 32767 rows
    x, y = (_as_image(place[:, axis] - 0.5) for axis in (0, 1))
    bump = cv2.remap(face.bump, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return bump.ravel()[: len(place)], visible


def _as_image(values: np.ndarray) -> np.ndarray:
    side = 256
    padded = np.zeros(-(-len(values) // side) * side, np.float32)
    padded[: len(values)] = values
    return padded.reshape(-1, side)


def _smaller(camera: Any, scale: float) -> Any:
    """The camera of a crop at another size."""
    return replace(
        camera,
        fx=camera.fx * scale,
        fy=camera.fy * scale,
        cx=camera.cx * scale,
        cy=camera.cy * scale,
        width=round(camera.width * scale),
        height=round(camera.height * scale),
    )


def _skin(model: Any, of: Any) -> np.ndarray:
    """(V, 3) float32 mm, head frame: skin of the head with the coefficients of `of`."""
    return model.vertices(of.identity, of.expression)[: model.skin_vertex_count]
