"""Z-buffer of a triangle mesh, and which of its vertices the camera sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, Int32, float_array, int_array
from .camera import Camera

__all__ = ["Raster", "interpolate", "pixels_of_vertices", "rasterize", "vertex_visibility"]


class Raster(NamedTuple):
    """What each pixel of the crop sees.

    depth: (H, W) float32, mm along the optical axis, +inf where no face.
    triangle: (H, W) int32, index of the face, -1 where none.
    barycentric: (H, W, 2) float32, screen-space weights (u, v) of the face's first and second
        corner (Eq. 6); 0 where no face. Linear in the image, not on the surface.
    """

    depth: Float32
    triangle: Int32
    barycentric: Float32


def rasterize(
    vertices_in_camera: npt.ArrayLike,
    faces: npt.ArrayLike,
    camera: Camera,
    *,
    cull_back_faces: bool = True,
    threads: int = 1,
    out: Raster | None = None,
) -> Raster:
    """Render depth, triangle and screen-space barycentric weights of every pixel.

    A pixel belongs to the triangle that holds its centre (i + 0.5, j + 0.5), decided in integers on
    vertices snapped to 1/256 pixel with the top-left rule: two triangles that share an edge never
    both cover a pixel, nor leave one between them. 1/z is linear in the image. Equal depths go to
    the smaller face index. Faces with a corner at a depth of 1 mm or less, a corner that is not
    finite, or one that projects further than 2^21 pixels from the image origin are left out whole.

    Args:
        vertices_in_camera: (V, 3) float32, mm, camera frame.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        camera: pinhole camera of the crop.
        cull_back_faces: leave out faces that turn their inside to the camera.
        threads: number of threads; the result is the same for any.
        out: an earlier result of the same size to overwrite, which spares new memory.

    Returns:
        The three images; those of `out` if given.

    Raises:
        ValueError: wrong shape, face index out of range, image larger than 32768 a side, `out`
            read-only or of another size.
        TypeError: `out` of another dtype or layout.

    Example:
        >>> import numpy as np
        >>> camera = Camera(100.0, 100.0, 4.0, 4.0, 8, 8)
        >>> corners = np.array([[-9, -9, 100], [-9, 9, 100], [9, -9, 100]], np.float32)
        >>> int((rasterize(corners, np.array([[0, 1, 2]]), camera).triangle == 0).sum())
        28
    """
    vertices = float_array("vertices_in_camera", vertices_in_camera, (-1, 3))
    triangles = int_array("faces", faces, (-1, 3))
    depth, triangle, barycentric = _core.rasterize(
        vertices,
        triangles,
        *camera.pinhole,
        camera.width,
        camera.height,
        cull_back_faces=cull_back_faces,
        threads=threads,
        out=out,
    )
    return Raster(depth, triangle, barycentric)


def interpolate(
    raster: Raster, values: npt.ArrayLike, faces: npt.ArrayLike, *, threads: int = 1
) -> Float32:
    """Per-vertex values carried to the pixels, linearly in the image; 0 where no face.

    Args:
        raster: what `rasterize` returned for `faces`.
        values: (V,) real numbers.
        faces: (F, 3) int32.
        threads: number of threads; the result is the same for any.

    Returns:
        (H, W) float32.

    Raises:
        ValueError: wrong shape or an index out of range.
    """
    v = float_array("values", values, (-1,))
    f = int_array("faces", faces, (-1, 3))
    shape = raster.triangle.shape
    return np.asarray(
        _core.interpolate(
            int_array("raster.triangle", raster.triangle, shape),
            float_array("raster.barycentric", raster.barycentric, (*shape, 2)),
            v,
            f,
            threads,
        )
    )


def vertex_visibility(
    vertices_in_camera: npt.ArrayLike,
    normals_in_camera: npt.ArrayLike,
    depth: npt.ArrayLike,
    camera: Camera,
    *,
    min_cosine: float = 0.15,
    depth_tolerance: float = 1.0,
    threads: int = 1,
) -> npt.NDArray[np.bool_]:
    """Which vertices the camera sees (the complement of §4.3's self-occlusion).

    A vertex is visible if it projects into the image, the cosine between its normal and the
    direction to the camera exceeds `min_cosine`, and the surface in its pixel does not stand before
    it by more than `depth_tolerance`. The pixel's surface point lies at the pixel's centre, up to
    0.7 pixels from the vertex, where a steep surface is several mm nearer or further; so it is
    measured along the vertex's normal, from the vertex's tangent plane.

    Args:
        vertices_in_camera: (V, 3) float32, mm, camera frame.
        normals_in_camera: (V, 3) float32, outward, any length; a zero normal is never visible.
        depth: (H, W) float32, mm, of the same mesh, as `rasterize` gave it.
        camera: pinhole camera of the crop.
        min_cosine: 0.15 leaves out what is turned away by more than 81 degrees, where a pixel
            stretches over more than six times its width of skin.
        depth_tolerance: mm.
        threads: number of threads; the result is the same for any.

    Returns:
        (V,) bool.

    Raises:
        ValueError: wrong shape, or depth of another size than the camera's.
    """
    vertices = float_array("vertices_in_camera", vertices_in_camera, (-1, 3))
    normals = float_array("normals_in_camera", normals_in_camera, (len(vertices), 3))
    visible = _core.vertex_visibility(
        vertices,
        normals,
        float_array("depth", depth, (camera.height, camera.width)),
        *camera.pinhole,
        camera.width,
        camera.height,
        min_cosine=min_cosine,
        depth_tolerance=depth_tolerance,
        threads=threads,
    )
    return visible.view(np.bool_)


def pixels_of_vertices(
    vertices_in_camera: npt.ArrayLike, camera: Camera, *, threads: int = 1
) -> Int32:
    """Row-major pixel that each vertex projects into.

    Args:
        vertices_in_camera: (V, 3) float32, mm, camera frame.
        camera: Pinhole camera of the image.
        threads: Number of threads; the result is the same for any.

    Returns:
        (V,) int32, -1 outside the image.

    Raises:
        ValueError: Wrong shape.
    """
    vertices = float_array("vertices_in_camera", vertices_in_camera, (-1, 3))
    return np.asarray(
        _core.pixels_of_vertices(vertices, *camera.pinhole, camera.width, camera.height, threads)
    )
