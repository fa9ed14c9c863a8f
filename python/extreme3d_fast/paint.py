"""Colour and provenance of every vertex of the final mesh."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from extreme3d_fast import _core
from extreme3d_fast._arrays import UInt8
from extreme3d_fast.dense import DenseMesh
from extreme3d_fast.registration import Registration
from extreme3d_fast.zipper import ZipperedMesh

__all__ = ["paint_mesh"]


def paint_mesh(
    mesh: ZipperedMesh,
    dense: DenseMesh,
    registration: Registration,
    faces: npt.NDArray[np.int32],
    mirror: npt.NDArray[np.int32],
    color_of_sparse: UInt8,
    observed: npt.NDArray[np.bool_],
    recovery: UInt8,
    pixel_of_vertex: npt.NDArray[np.int32],
    filled: npt.NDArray[np.bool_],
    photo: UInt8,
    *,
    threads: int = 1,
) -> tuple[UInt8, UInt8]:
    """Colours and provenance of S.

    Vertices of R keep their colours. Those of D have their pixel's; where that is hidden, the
    colour of R at the place they are registered to (Eq. 8). Reflected ones have the colour of R at
    the mirror image of that place, which continues the light of the visible side, plus what the
    pixel adds to the colour of R there, at most 40 (Eq. 10 on colours).

    Args:
        mesh: S, of R with V and D with N vertices.
        dense: D, whose vertices are pixels of the photo.
        registration: of D on R.
        faces: (F, 3) int32, of R.
        mirror: (V,) int32, the mirror image of each vertex of R.
        color_of_sparse: (V, 3) uint8 sRGB.
        observed: (V,) bool, the photo shows it.
        recovery: (V,) uint8, see `Recovery`.
        pixel_of_vertex: (V,) int32, row-major, -1 outside the crop.
        filled: (H, W) bool, pixels in which something hides the face.
        photo: (H, W, 3) uint8 RGB, the crop.
        threads: the result is the same for any number.

    Returns:
        (M, 3) uint8 sRGB, and (M,) uint8, see `Provenance`.

    Raises:
        ValueError: wrong shape, or an index out of range.
    """
    colors, provenance = _core.paint_mesh(
        mesh.source.view(np.uint8),
        mesh.source_vertex,
        np.flatnonzero(dense.vertex_of_pixel >= 0).astype(np.int32),  # of each dense vertex
        filled.view(np.uint8),
        registration.triangle,
        registration.uv,
        faces,
        mirror,
        observed.view(np.uint8),
        recovery,
        pixel_of_vertex,
        color_of_sparse,
        photo,
        threads,
    )
    return colors, provenance
