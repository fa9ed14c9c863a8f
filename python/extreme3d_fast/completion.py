"""Dense vertices reflected into the hidden side of the face (section 4.3, Eq. 10)."""

from __future__ import annotations

from typing import NamedTuple

import numpy.typing as npt

from . import _core
from ._arrays import Float32, UInt8, float_array, index_array, mask_array

__all__ = ["DenseCompletion", "complete_dense"]


class DenseCompletion(NamedTuple):
    """vertices: (N, 3) float32, mm, head frame; defined: (N,) uint8, 1 where Eq. 10 applies."""

    vertices: Float32
    defined: UInt8


def complete_dense(
    triangle: npt.ArrayLike,
    uv: npt.ArrayLike,
    residual: npt.ArrayLike,
    sparse: npt.ArrayLike,
    faces: npt.ArrayLike,
    mirror: npt.ArrayLike,
    recovered: npt.ArrayLike,
    *,
    threads: int = 1,
) -> DenseCompletion:
    """Reflect every registered dense vertex whose mirrored triangle was recovered in any corner.

    Args:
        triangle: (N,) int32, face of R that each dense vertex is registered to, -1 for none.
        uv: (N, 2) float32, its barycentric weights (Eq. 6).
        residual: (N, 3) float32, its residual δP (Eq. 7), mm, head frame.
        sparse: (V, 3) float32, completed R, mm, head frame.
        faces: (F, 3) int32, faces of R.
        mirror: (V,) int32, mirror image of each vertex.
        recovered: (V,) bool, vertices that soft symmetry solved.
        threads: number of threads; the result is the same for any.

    Returns:
        P^Df of Eq. 10, and where it is defined; other rows are zero.

    Raises:
        ValueError: shapes that do not fit, an index out of range.
    """
    r = float_array("sparse", sparse, (-1, 3))
    f = index_array("faces", faces, (-1, 3), 0, len(r))
    t = index_array("triangle", triangle, (-1,), -1, len(f))
    vertices, defined = _core.complete_dense(
        t,
        float_array("uv", uv, (len(t), 2)),
        float_array("residual", residual, (len(t), 3)),
        r,
        f,
        index_array("mirror", mirror, (len(r),), 0, len(r)),
        mask_array("recovered", recovered, (len(r),)),
        threads,
    )
    return DenseCompletion(vertices, defined)
