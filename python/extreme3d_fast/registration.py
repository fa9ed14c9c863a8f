"""Dense vertices in terms of the sparse mesh's triangles (paper §4.3, Eq. 6-8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy.typing as npt

from . import _core
from ._arrays import Float32, Int32, float_array, index_array
from .dense import DenseMesh
from .rasterize import Raster

__all__ = ["Registration", "recover_dense", "register_dense"]


class Registration(NamedTuple):
    """Where each dense vertex sits on the sparse mesh.

    triangle: (N,) int32, face of the sparse mesh, -1 where its pixel shows none.
    uv: (N, 2) float32, screen-space weights of the face's first and second corner (Eq. 6).
    residual: (N, 3) float32, mm, δP in the frame the meshes were given in (Eq. 7).
    """

    triangle: Int32
    uv: Float32
    residual: Float32


def register_dense(
    raster: Raster,
    dense: DenseMesh,
    dense_vertices: npt.ArrayLike,
    sparse_vertices: npt.ArrayLike,
    faces: npt.ArrayLike,
    *,
    threads: int = 1,
) -> Registration:
    """Register every dense vertex to the triangle that its pixel shows (Eq. 6-7).

    Args:
        raster: the foundation as rendered; its triangles are rows of `faces`.
        dense: the dense mesh of the same crop, for `vertex_of_pixel`.
        dense_vertices: (N, 3) float32, mm, vertices of the dense mesh in the head frame.
        sparse_vertices: (V, 3) float32, mm, R in the head frame.
        faces: (F, 3) int32.
        threads: number of threads; the result is the same for any.

    Returns:
        Triangle, weights and residual of each dense vertex.

    Raises:
        ValueError: wrong shape or an index out of range.
    """
    p_dense = float_array("dense_vertices", dense_vertices, (-1, 3))
    p_sparse = float_array("sparse_vertices", sparse_vertices, (-1, 3))
    f = index_array("faces", faces, (-1, 3), 0, len(p_sparse))
    shape = raster.triangle.shape
    return Registration(
        *_core.register_dense(
            index_array("raster.triangle", raster.triangle, shape, -1, len(f)),
            float_array("raster.barycentric", raster.barycentric, (*shape, 2)),
            index_array("dense.vertex_of_pixel", dense.vertex_of_pixel, shape, -1, len(p_dense)),
            p_dense,
            p_sparse,
            f,
            threads=threads,
        )
    )


def recover_dense(
    registration: Registration,
    sparse_vertices: npt.ArrayLike,
    faces: npt.ArrayLike,
    *,
    threads: int = 1,
) -> Float32:
    """Dense vertices from sparse ones (Eq. 8).

    Args:
        registration: as `register_dense` gave it.
        sparse_vertices: (V, 3) float32, mm, in the frame of the registration.
        faces: (F, 3) int32.
        threads: number of threads.

    Returns:
        (N, 3) float32, mm; NaN where the vertex was not registered.

    Raises:
        ValueError: wrong shape or an index out of range.
    """
    p_sparse = float_array("sparse_vertices", sparse_vertices, (-1, 3))
    f = index_array("faces", faces, (-1, 3), 0, len(p_sparse))
    n = len(registration.triangle)
    return _core.recover_dense(
        index_array("registration.triangle", registration.triangle, (n,), -1, len(f)),
        float_array("registration.uv", registration.uv, (n, 2)),
        float_array("registration.residual", registration.residual, (n, 3)),
        p_sparse,
        f,
        threads=threads,
    )
