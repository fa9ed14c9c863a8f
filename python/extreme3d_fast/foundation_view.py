"""A foundation in its crop: its surface in the camera, and what each pixel sees of it.

What reconstruction and the building of reference sets have in common, between the foundation
(paper §3) and the bump network (§4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32
from extreme3d_fast.crop import Crop, magnification
from extreme3d_fast.crop import transform_points as transform_pixels
from extreme3d_fast.estimator import Foundation
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_faces, vertex_normals
from extreme3d_fast.pose import FACE_CENTER
from extreme3d_fast.rasterize import Raster, interpolate, rasterize
from extreme3d_fast.smooth_depth import smooth_depth

__all__ = ["FoundationView", "FoundationViewer", "face_height"]

Bool = npt.NDArray[np.bool_]
Timed = Callable[..., Any]

_FACE_MM = 165.0  # hairline to chin


@dataclass(frozen=True, eq=False)
class FoundationView:
    """A foundation's mesh F (Eq. 1-2), and what the pixels of its crop see of it.

    Attributes:
        head: (V_all, 3) float32 mm, head frame, with eyes, teeth and tongue; the skin comes first.
        in_camera: (V, 3) float32 mm, the skin in the camera frame.
        normals_in_camera: (V, 3) float32 unit normals of the skin.
        raster: of the skin, as seen by the crop's pixels; valid until the viewer's next face.
        weight: (S, S) float32 in [0, 1], how much of a bump map applies.
        depth: (S, S) float32 mm, smooth, +inf where there is no face.
        in_photo: (S, S) bool, pixels of the crop that the photo has; the others are padding.
        outside: share of the weighted face that the photo does not have, in [0, 1].
        face_px: height of the face, hairline to chin, in px of the photo.
    """

    head: Float32
    in_camera: Float32
    normals_in_camera: Float32
    raster: Raster
    weight: Float32
    depth: Float32
    in_photo: Bool
    outside: float
    face_px: float


class FoundationViewer:
    """Draws foundations into their crops; keeps the mesh adjacency and the raster's memory.

    Args:
        model: head model.
        threads: threads per stage; the result is the same for any number.
    """

    def __init__(self, model: HeadModel, *, threads: int = 1) -> None:
        self._model, self._threads = model, threads
        #: Faces round each vertex of the skin.
        self.faces_of_vertex = vertex_faces(model.faces, model.skin_vertex_count)
        self._raster: Raster | None = None  # written again by each call: fresh pages cost time

    def view(
        self, foundation: Foundation, crop: Crop, photo_shape: tuple[int, ...], timed: Timed
    ) -> FoundationView:
        """What a crop sees of a foundation.

        Args:
            foundation: of the face in the crop.
            crop: square crop of a photo.
            photo_shape: (height, width, ...) of that photo.
            timed: wraps a stage to note its time.
        """
        model, threads = self._model, self._threads
        camera, camera_from_head = foundation.camera, foundation.camera_from_head
        in_photo = _photo_in_crop(crop.crop_from_image, photo_shape, len(crop.image))
        head = timed("head_model", model.vertices)(
            foundation.identity, foundation.expression, threads=threads
        )
        skin = head[: model.skin_vertex_count]
        normals = timed("normals", vertex_normals)(
            skin, model.faces, faces_of_vertex=self.faces_of_vertex, threads=threads
        )
        in_camera = transform_points(camera_from_head, skin, threads=threads)
        normals_in_camera = rotate_vectors(camera_from_head, normals, threads=threads)
        self._raster = raster = timed("rasterize", rasterize)(
            in_camera, model.faces, camera, threads=threads, out=self._raster
        )
        weight = timed("face_weight", interpolate)(
            raster, model.face_weight, model.faces, threads=threads
        )
        depth = timed("smooth_depth", smooth_depth)(
            raster, in_camera, normals_in_camera, model.faces, threads=threads
        )
        return FoundationView(
            head=head,
            in_camera=in_camera,
            normals_in_camera=normals_in_camera,
            raster=raster,
            weight=weight,
            depth=depth,
            in_photo=in_photo,
            outside=_share_outside(weight, in_photo),
            face_px=face_height(foundation),
        )


def face_height(foundation: Foundation) -> float:
    """Height of the face, hairline to chin, in px of the photo."""
    scale = magnification(foundation.crop_from_image)
    pose = foundation.camera_from_head
    depth = pose[2, :3] @ FACE_CENTER + pose[2, 3]
    return float(_FACE_MM * foundation.camera.fx / depth / scale)


def _share_outside(weight: Float32, in_photo: Bool) -> float:
    if in_photo.all():
        return 0.0
    return float(weight[~in_photo].sum() / max(weight.sum(), 1.0))


def _photo_in_crop(
    crop_from_image: npt.NDArray[np.float64], photo_shape: tuple[int, ...], size: int
) -> Bool:
    """(S, S) pixels of the crop whose centres lie inside the photo; the others are padding."""
    height, width = photo_shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    at = transform_pixels(crop_from_image, corners) - 0.5  # OpenCV counts from pixel centres
    inside = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(inside, np.rint(16 * at).astype(np.int32), 1, shift=4)
    if inside.all():
        return inside.view(np.bool_)
    # the outermost ring blends with the padding
    return cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1).view(np.bool_)
