"""Ways of filling the holes of a bump map: the product's, and simpler ones to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.details import FACE_SHOWN
from bench.face_views import FaceView, view_foundation

# The product's: the mean of several references. The paper's takes one, and its picture.
PRODUCT = "references, surface"
SURFACE, SIMILARITY = "1 reference, surface", "1 reference, similarity"
ANYBODY = "any reference, surface"  # of that viewpoint: what similarity is worth
SMOOTH, MEAN, MIRRORED, NONE = "smooth", "mean face", "mirrored half", "none"
TITLES = (PRODUCT, SURFACE, SIMILARITY, ANYBODY, SMOOTH, MEAN, MIRRORED, NONE)

_MIN_COSINE = 0.2  # a vertex counts as seen, as in the pipeline
_DEPTH_TOLERANCE = 2.0  # mm
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
    def visible(self) -> np.ndarray:
        """(V,) bool, the skin's vertices that the crop shows."""
        from extreme3d_fast.mesh import rotate_vectors, vertex_normals
        from extreme3d_fast.rasterize import vertex_visibility

        normals = vertex_normals(_skin(self.model, self.foundation), self.model.faces)
        return vertex_visibility(
            self.in_camera,
            rotate_vectors(self.foundation.camera_from_head, normals),
            self.raster.depth,
            self.view.camera,
            min_cosine=_MIN_COSINE,
            depth_tolerance=_DEPTH_TOLERANCE,
        )

    @cached_property
    def landmarks68(self) -> np.ndarray:
        """(68, 2) px, the foundation's."""
        return self.foundation.landmarks(self.model)

    @cached_property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1: tight box of the foundation's points, as of a `Photo`."""
        points = self.foundation.landmarks(self.model, "478")[:468]
        return np.concatenate([points.min(0), points.max(0)])

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

    @property
    def unfaded(self) -> np.ndarray:
        """(S, S) float32 mm, 0 where it is not known."""
        return self._unfaded[0]

    @property
    def known(self) -> np.ndarray:
        """(S, S) bool."""
        return self._unfaded[1]

    @cached_property
    def _unfaded(self) -> tuple[np.ndarray, np.ndarray]:
        from extreme3d_fast.occlusion import unfade

        return unfade(self.bump, self.target.view.weight, self.hole)


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
    """Fills with the faces of a reference set."""

    def __init__(self, path: Path | None, model: Any, open_network: Any) -> None:
        from extreme3d_fast.face_chart import FaceChart
        from extreme3d_fast.identity import IdentityNetwork
        from extreme3d_fast.references import ReferenceSet

        self.set = ReferenceSet.load(path)
        self._chart = FaceChart(model)
        self._network = IdentityNetwork(open_network=open_network)

    def several(self, seen: Seen) -> Borrowed:
        """What the product lays into the holes."""
        from extreme3d_fast.transfer import REFERENCES, SHORT_LIST, expected_relief

        target = seen.target
        own = self._chart.unroll(
            seen.unfaded,
            seen.known,
            target.in_camera,
            target.visible,
            target.view.camera,
        )
        found = self.search(seen, k=SHORT_LIST, count=REFERENCES)
        return self.lay_on(seen, expected_relief(self.set, found, *own))

    def search(self, seen: Seen, *, k: int = 100, count: int = 1) -> list[Any]:
        """The references of a covered face, the most similar first."""
        features = self._network.describe(seen.image, seen.target.landmarks68)
        return self.set.search(seen.target.foundation.camera_from_head, features, k=k, count=count)

    def search_anybody(self, seen: Seen, rng: np.random.Generator) -> list[Any]:
        """As `search`, but similar to a direction by chance."""
        direction = rng.normal(size=128)
        return self.set.search(seen.target.foundation.camera_from_head, direction)

    def by_surface(self, seen: Seen, found: Sequence[Any]) -> Borrowed:
        """Mean relief of some references."""
        from extreme3d_fast.transfer import mean_relief

        return self.lay_on(seen, mean_relief(self.set, found))

    def lay_on(self, seen: Seen, relief: Borrowed) -> Borrowed:
        """Relief of the unrolled face in a crop."""
        from extreme3d_fast.transfer import warp_by_surface

        target = seen.target
        return warp_by_surface(*relief, self._chart, target.raster)

    def by_similarity(self, seen: Seen, found: Sequence[Any]) -> Borrowed:
        from extreme3d_fast.transfer import warp_by_similarity

        target, best = seen.target, found[0]
        return warp_by_similarity(
            self.set.face(best.index),
            best.mirrored,
            target.model,
            self._chart,
            target.landmarks68,
            target.view.size,
        )

    def mean_face(self) -> Lender:
        """The mean of all references and their mirror images."""
        from extreme3d_fast.references import Reference
        from extreme3d_fast.transfer import mean_relief

        everyone = [
            Reference(i, mirrored, 0.0, 0.0)
            for i in range(len(self.set))
            for mirrored in (False, True)
        ]
        relief = mean_relief(self.set, everyone)
        return lambda seen: self.lay_on(seen, relief)


def mirrored_half(seen: Seen) -> Borrowed:
    """The own bump at each place's left-right image, valid where that is known."""
    target = seen.target
    camera, model = target.view.camera, target.model
    visible = target.visible
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


def _skin(model: Any, of: Any) -> np.ndarray:
    """(V, 3) float32 mm, head frame: skin of the head with the coefficients of `of`."""
    return model.vertices(of.identity, of.expression)[: model.skin_vertex_count]
