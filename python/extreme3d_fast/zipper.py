"""The dense and the sparse mesh sewn into one (section 4.3, after Turk and Levoy 1994)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, Int32, UInt8, float_array, index_array, mask_array
from .camera import Camera

__all__ = ["VertexSource", "Zipper", "ZipperedMesh", "zip_meshes"]


class VertexSource(IntEnum):
    """Mesh that a vertex of S was taken from."""

    SPARSE = 0
    DENSE = 1
    REFLECTED = 2


class ZipperedMesh(NamedTuple):
    """The final shape S, M vertices and K faces.

    vertices: (M, 3) float32, mm, head frame.
    faces: (K, 3) int32, counter-clockwise seen from outside.
    source: (M,) uint8, values of `VertexSource`.
    source_vertex: (M,) int32, vertex of R (SPARSE) or of D (DENSE, REFLECTED).
    seam: (M,) uint8, 1 for vertices of R on the seam between two meshes.
    """

    vertices: Float32
    faces: Int32
    source: UInt8
    source_vertex: Int32
    seam: UInt8


class Zipper:
    """Sews meshes of one topology; its adjacency is prepared once.

    Args:
        faces: (F, 3) int32 faces of R.
        mirror: (V,) int32 mirror image of each vertex, an involution.

    Raises:
        ValueError: an index out of range, a mirror table that is no involution, an edge used twice
            in the same direction.
    """

    def __init__(self, faces: npt.ArrayLike, mirror: npt.ArrayLike) -> None:
        self._n = len(np.asarray(mirror))
        m = index_array("mirror", mirror, (self._n,), 0, self._n)
        f = index_array("faces", faces, (-1, 3), 0, self._n)
        self._n_faces = len(f)
        self._zipper = _core.Zipper(f, m)

    def zip(
        self,
        sparse: npt.ArrayLike,
        foundation_in_camera: npt.ArrayLike,
        observed: npt.ArrayLike,
        recovered: npt.ArrayLike,
        dense: npt.ArrayLike,
        reflected: npt.ArrayLike,
        reflected_defined: npt.ArrayLike,
        triangle: npt.ArrayLike,
        vertex_of_pixel: npt.ArrayLike,
        camera: Camera,
        *,
        threads: int = 1,
    ) -> ZipperedMesh:
        """Remove from R what D and its reflection cover, clip those to what is left, and stitch.

        A face of R is covered by D when all its corners were observed and it faces the camera, and
        by the reflection of D when its mirror image is covered and any of its corners was
        recovered. Covered faces are replaced by the pixels inside them; the strip between the
        pixels and the border of R is triangulated. R's border gains no vertex, so S is manifold,
        connected and open exactly where R is.

        Args:
            sparse: completed R, (V, 3) float32, mm, head frame.
            foundation_in_camera: (V, 3) float32, mm, as rasterised to `triangle`.
            observed: (V,) bool, R took its position from D.
            recovered: (V,) bool, solved by soft symmetry.
            dense: D, (N, 3) float32, mm, head frame, in row-major order of their pixels.
            reflected: Eq. 10, (N, 3) float32, mm, head frame.
            reflected_defined: (N,) bool.
            triangle: (H, W) int32, face of R seen by each pixel, -1 for none.
            vertex_of_pixel: (H, W) int32, vertex of D at each pixel, -1 for none.
            camera: pinhole camera of the crop.
            threads: number of threads; the result is the same for any.

        Raises:
            ValueError: shapes that do not fit, an index out of range.
        """
        n, shape = self._n, (camera.height, camera.width)
        d = float_array("dense", dense, (-1, 3))
        return ZipperedMesh(
            *self._zipper.zip(
                float_array("sparse", sparse, (n, 3)),
                float_array("foundation_in_camera", foundation_in_camera, (n, 3)),
                mask_array("observed", observed, (n,)),
                mask_array("recovered", recovered, (n,)),
                d,
                float_array("reflected", reflected, (len(d), 3)),
                mask_array("reflected_defined", reflected_defined, (len(d),)),
                index_array("triangle", triangle, shape, -1, self._n_faces),
                index_array("vertex_of_pixel", vertex_of_pixel, shape, -1, len(d)),
                *camera.pinhole,
                threads=threads,
            )
        )


def zip_meshes(
    faces: npt.ArrayLike,
    mirror: npt.ArrayLike,
    sparse: npt.ArrayLike,
    foundation_in_camera: npt.ArrayLike,
    observed: npt.ArrayLike,
    recovered: npt.ArrayLike,
    dense: npt.ArrayLike,
    reflected: npt.ArrayLike,
    reflected_defined: npt.ArrayLike,
    triangle: npt.ArrayLike,
    vertex_of_pixel: npt.ArrayLike,
    camera: Camera,
    *,
    threads: int = 1,
) -> ZipperedMesh:
    """Sew once; see `Zipper` for arguments, result and errors."""
    return Zipper(faces, mirror).zip(
        sparse,
        foundation_in_camera,
        observed,
        recovered,
        dense,
        reflected,
        reflected_defined,
        triangle,
        vertex_of_pixel,
        camera,
        threads=threads,
    )
