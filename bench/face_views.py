"""A photo's crop and the foundation rasterised in it: what every source of detail starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

FACE_WEIGHT = 0.5  # pixels of a higher face weight are judged


@dataclass(frozen=True, eq=False)
class FaceView:
    """One face in its crop of S px."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    weight: np.ndarray  # (S, S) float32 in [0, 1], how far bump maps apply
    depth: np.ndarray  # (S, S) float32 mm of the foundation, +inf where no face
    camera: Any  # of the crop
    camera_from_head: np.ndarray  # (4, 4)
    crop_from_image: np.ndarray  # (3, 3) similarity, px
    in_photo: np.ndarray  # (S, S) bool, not the padding round the photo

    @property
    def size(self) -> int:
        return len(self.weight)

    @cached_property
    def face(self) -> np.ndarray:
        """(S, S) bool, the pixels that are judged."""
        return (self.weight > FACE_WEIGHT) & np.isfinite(self.depth)

    @cached_property
    def region(self) -> np.ndarray:
        """(S, S) bool: the face of the foundation, eyes and mouth included."""
        from extreme3d_fast.bump_network import _without_openings

        return _without_openings(self.weight > 0)

    @cached_property
    def mm_per_pixel(self) -> float:
        """At the face's median depth."""
        return float(np.median(self.depth[self.weight > 0])) / float(self.camera.fx)

    def showing(self, image: np.ndarray) -> FaceView:
        """The same foundation and crop, with another picture of the same size."""
        return replace(self, image=np.ascontiguousarray(image))

    def of_photo(self, photo: np.ndarray) -> FaceView:
        """The same foundation, with another photo of the same geometry."""
        from extreme3d_fast.crop import warp_similarity

        return self.showing(warp_similarity(photo, self.crop_from_image, self.size))


def face_viewer(threads: int = 1, **options: Any) -> Callable[[np.ndarray], FaceView | None]:
    """What makes the view of a photo (H, W, 3) uint8 RGB, None where no face is found."""
    from extreme3d_fast import Reconstructor

    reconstructor = Reconstructor(threads=threads, **options)
    return lambda photo: view_face(reconstructor, photo)


def view_face(reconstructor: Any, photo: np.ndarray) -> FaceView | None:
    """The view of a photo's main face by a Reconstructor, None where there is no face."""
    from extreme3d_fast import NoFaceFound

    try:
        foundation = reconstructor.estimate_foundation(photo)
    except NoFaceFound:
        return None
    return view_foundation(reconstructor.head_model, foundation, photo, reconstructor.crop_size)


def view_foundation(model: Any, foundation: Any, photo: np.ndarray, size: int) -> FaceView:
    """The crop of a photo, and its foundation there, as the Reconstructor makes them."""
    from extreme3d_fast.crop import warp_similarity
    from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_normals
    from extreme3d_fast.rasterize import interpolate, rasterize
    from extreme3d_fast.smooth_depth import smooth_depth

    skin = model.vertices(foundation.identity, foundation.expression)[: model.skin_vertex_count]
    pose = foundation.camera_from_head
    vertices = transform_points(pose, skin)
    raster = rasterize(vertices, model.faces, foundation.camera)
    normals = rotate_vectors(pose, vertex_normals(skin, model.faces))
    whole = np.full(photo.shape, 255, np.uint8)
    return FaceView(
        image=warp_similarity(photo, foundation.crop_from_image, size),
        weight=interpolate(raster, model.face_weight, model.faces),
        depth=smooth_depth(raster, vertices, normals, model.faces),
        camera=foundation.camera,
        camera_from_head=np.asarray(pose, np.float64),
        crop_from_image=np.asarray(foundation.crop_from_image, np.float64),
        in_photo=warp_similarity(whole, foundation.crop_from_image, size)[..., 0] == 255,
    )


def into_crop(of_image: np.ndarray, crop_from_image: np.ndarray, size: int) -> np.ndarray:
    """A float map of the photo (NaN or inf: unknown) in the crop, NaN where it is unknown.

    Values are kept: mm stay mm. Shrinking averages, so that a map does not alias.
    """
    values = np.asarray(of_image, np.float32)
    known = np.isfinite(values)
    scale = float(np.sqrt(np.linalg.det(crop_from_image[:2, :2])))
    share = known.astype(np.float32)
    filled = np.where(known, values, np.float32(0))
    if scale < 0.9:
        sigma = 0.5 * float(np.sqrt(scale**-2 - 1))
        filled, share = (cv2.GaussianBlur(a, (0, 0), sigma) for a in (filled, share))
    # OpenCV puts pixel centres at whole numbers, the package at +0.5
    center = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = (np.linalg.inv(center) @ crop_from_image @ center)[:2]
    warped, cover, inner = (
        cv2.warpAffine(a, matrix, (size, size), flags=cv2.INTER_LINEAR)
        for a in (filled, share, known.astype(np.float32))
    )
    return np.where(inner > 0.999, warped / np.maximum(cover, 1e-6), np.float32(np.nan))
