"""Depth of the smooth surface behind the triangles of the foundation (Phong tessellation)."""

from __future__ import annotations

import numpy.typing as npt

from . import _core
from ._arrays import Float32, float_array, int_array
from .rasterize import Raster

__all__ = ["smooth_depth"]


def smooth_depth(
    raster: Raster,
    vertices_in_camera: npt.ArrayLike,
    normals_in_camera: npt.ArrayLike,
    faces: npt.ArrayLike,
    *,
    threads: int = 1,
) -> Float32:
    """Move each pixel's depth from its flat triangle to the surface that the normals describe.

    A pixel is about a third of a triangle of the head model: without this step the dense mesh would
    carry the model's facets as if they were detail. Source: Boubekeur and Alexa, Phong
    Tessellation, 2008, applied along the viewing ray to first order.

    Args:
        raster: what `rasterize` returned.
        vertices_in_camera: (V, 3) float32, mm.
        normals_in_camera: (V, 3) float32, unit, outward.
        faces: (F, 3) int32.
        threads: number of threads; the result is the same for any.

    Returns:
        (H, W) float32 depth, mm, +inf where no face.

    Raises:
        ValueError: shapes that do not fit, an index out of range.
    """
    v = float_array("vertices_in_camera", vertices_in_camera, (-1, 3))
    f = int_array("faces", faces, (-1, 3))
    height, width = raster.depth.shape
    return _core.smooth_depth(
        float_array("raster.depth", raster.depth, (height, width)),
        int_array("raster.triangle", raster.triangle, (height, width)),
        float_array("raster.barycentric", raster.barycentric, (height, width, 2)),
        v,
        float_array("normals_in_camera", normals_in_camera, (len(v), 3)),
        f,
        threads,
    )
