"""Colours of vertices: from the photo, from the other half of the face, or grown from both."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from extreme3d_fast import _core
from extreme3d_fast._arrays import UInt8, float_array, index_array, mask_array
from extreme3d_fast.camera import Camera

__all__ = ["VertexColors", "vertex_colors"]


class VertexColors:
    """Colours the vertices of one mesh; what depends on it alone is prepared once.

    Args:
        faces: (F, 3) int32, counter-clockwise seen from outside.
        mirror_of: (V,) int32, the vertex that is a vertex's mirror image, or -1.
        fallback: (V, 3) uint8 sRGB, colour of the model.

    Raises:
        ValueError: Wrong shape or index out of range.
    """

    def __init__(
        self,
        faces: npt.ArrayLike,
        mirror_of: npt.ArrayLike,
        fallback: npt.NDArray[np.uint8],
    ) -> None:
        self._n = n = len(np.asarray(mirror_of))
        self._colors = _core.VertexColors(
            index_array("faces", faces, (-1, 3), 0, n),
            index_array("mirror_of", mirror_of, (n,), -1, n),
            _color_array("fallback", fallback, (n, 3)),
        )

    def colors(
        self,
        photo: npt.NDArray[np.uint8],
        vertices_in_camera: npt.ArrayLike,
        seen: npt.ArrayLike,
        camera: Camera,
        *,
        threads: int = 1,
    ) -> UInt8:
        """Give every vertex a colour.

        A vertex that the photo shows takes the photo's colour there (bilinear), unless it lies
        within two edges of one that is not shown, or its surface is turned by more than 75° from
        the viewing ray: such pixels mix in what lies behind. Another vertex whose mirror image has
        a colour takes that colour; the rest takes `fallback`, scaled to the lit skin of the photo
        (the lighter half of the shown vertices without the lightest fifth). To both is added a
        smooth offset that makes them meet the photo's colours without a seam and fades over 40 mm,
        so that the light of the photo runs on and the details are the mirrored ones.

        Args:
            photo: (H, W, 3) uint8 RGB, the crop.
            vertices_in_camera: (V, 3) float32, mm, camera frame.
            seen: (V,) bool or integers, true where the photo shows the vertex.
            camera: Pinhole camera of the crop.
            threads: Number of threads; the result is the same for any.

        Returns:
            (V, 3) uint8 sRGB.

        Raises:
            ValueError: Wrong shape.
        """
        return np.asarray(
            self._colors.colors(
                float_array("vertices_in_camera", vertices_in_camera, (self._n, 3)),
                mask_array("seen", seen, (self._n,)),
                _color_array("photo", photo, (camera.height, camera.width, 3)),
                *camera.pinhole,
                threads=threads,
            )
        )


def vertex_colors(
    photo: npt.NDArray[np.uint8],
    vertices_in_camera: npt.ArrayLike,
    faces: npt.ArrayLike,
    seen: npt.ArrayLike,
    mirror_of: npt.ArrayLike,
    camera: Camera,
    fallback: npt.NDArray[np.uint8],
    *,
    threads: int = 1,
) -> UInt8:
    """Colour a mesh once; see `VertexColors` for arguments, result and errors."""
    painter = VertexColors(faces, mirror_of, fallback)
    return painter.colors(photo, vertices_in_camera, seen, camera, threads=threads)


def _color_array(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> UInt8:
    values = np.asarray(array)
    if values.shape != shape or values.dtype != np.uint8:
        raise ValueError(
            f"`{name}` should be uint8 of shape {shape}, is {values.dtype} of shape {values.shape}"
        )
    return np.ascontiguousarray(values)
