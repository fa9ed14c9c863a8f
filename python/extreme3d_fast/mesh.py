"""Topology of triangle meshes: normals, neighbours, borders, and a report of what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Float32, Int32, float_array, int_array, mask_array

__all__ = [
    "Csr",
    "MeshReport",
    "boundary_loops",
    "erode_mask",
    "face_normals",
    "mesh_report",
    "rotate_vectors",
    "transform_points",
    "unique_edges",
    "vertex_faces",
    "vertex_neighbours",
    "vertex_normals",
]


class Csr(NamedTuple):
    """Ragged table: row i is `indices[offsets[i]:offsets[i + 1]]`; both int32."""

    offsets: Int32
    indices: Int32


@dataclass(frozen=True)
class MeshReport:
    """Counts of everything that can be wrong with a triangle mesh.

    Faces that name a vertex twice are counted in `degenerate_faces` and take no part in the other
    counts, except that their vertices count as referenced.
    """

    vertices: int
    faces: int
    edges: int
    components: int
    """Pieces, joined by shared vertices; unreferenced vertices are not pieces."""
    boundary_edges: int
    """Edges of one face."""
    boundary_loops: int
    non_manifold_edges: int
    """Edges of three or more faces."""
    non_manifold_vertices: int
    """Vertices whose faces form more than one fan (bow ties)."""
    inconsistent_edges: int
    """Edges whose two faces run along them in the same direction."""
    unreferenced_vertices: int
    degenerate_faces: int
    """Faces that name a vertex twice."""
    zero_area_faces: int
    """Faces with three different vertices on a line, to 1e-12 of the longest edge squared."""
    non_finite_vertices: int

    @property
    def is_manifold(self) -> bool:
        """Every edge has one or two faces, every vertex one fan of faces."""
        return self.non_manifold_edges == 0 and self.non_manifold_vertices == 0

    @property
    def is_oriented(self) -> bool:
        """Neighbouring faces agree on which side is out."""
        return self.inconsistent_edges == 0 and self.non_manifold_edges == 0

    @property
    def is_closed(self) -> bool:
        """No border."""
        return self.boundary_edges == 0

    @property
    def is_valid(self) -> bool:
        """One finite, manifold, oriented piece without unreferenced vertices or repeated corners.

        Borders are allowed: a face model is open at the eyes and the mouth.
        """
        return (
            self.components == 1
            and self.is_manifold
            and self.is_oriented
            and self.unreferenced_vertices == 0
            and self.degenerate_faces == 0
            and self.non_finite_vertices == 0
        )


def _mesh(vertices: npt.ArrayLike, faces: npt.ArrayLike) -> tuple[Float32, Int32]:
    v = float_array("vertices", vertices, (-1, 3))
    return v, int_array("faces", faces, (-1, 3))


def mesh_report(vertices: npt.ArrayLike, faces: npt.ArrayLike, *, threads: int = 1) -> MeshReport:
    """Count what is wrong with a mesh.

    Args:
        vertices: (V, 3) float32, any unit.
        faces: (F, 3) int32.
        threads: number of threads; the result is the same for any.

    Raises:
        ValueError: wrong shape or face index out of range.

    Example:
        >>> mesh_report([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]).boundary_edges
        3
    """
    return MeshReport(**_core.mesh_report(*_mesh(vertices, faces), threads=threads))


def transform_points(
    b_from_a: npt.ArrayLike, points: npt.ArrayLike, *, threads: int = 1
) -> Float32:
    """Points of frame a in frame b, (N, 3) float32.

    (A NumPy product would do, but leaves the threads of its BLAS spinning beside the next stage.)

    Args:
        b_from_a: (4, 4) rigid transform.
        points: (N, 3) float32.
        threads: number of threads; the result is the same for any.

    Raises:
        ValueError: wrong shape.
    """
    matrix = float_array("b_from_a", b_from_a, (4, 4))
    return _core.transform_points(matrix, float_array("points", points, (-1, 3)), threads)


def rotate_vectors(b_from_a: npt.ArrayLike, vectors: npt.ArrayLike, *, threads: int = 1) -> Float32:
    """Directions of frame a in frame b, (N, 3) float32; arguments as for `transform_points`."""
    matrix = float_array("b_from_a", b_from_a, (4, 4))
    return _core.rotate_vectors(matrix, float_array("vectors", vectors, (-1, 3)), threads)


def erode_mask(mask: npt.ArrayLike, faces: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The vertices of a mask whose faces lie in it with all their corners.

    Args:
        mask: (V,) bool.
        faces: (F, 3) int32.

    Returns:
        (V,) bool.

    Raises:
        ValueError: wrong shape or face index out of range.
    """
    inside = mask_array("mask", mask, (-1,))
    f = int_array("faces", faces, (-1, 3))
    return np.asarray(_core.erode_mask(inside, f)).view(np.bool_)


def face_normals(vertices: npt.ArrayLike, faces: npt.ArrayLike, *, threads: int = 1) -> Float32:
    """Unit outward normals of the faces, (F, 3) float32; zero where a face has no area.

    Args:
        vertices: (V, 3) float32, any frame and unit.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        threads: number of threads.

    Raises:
        ValueError: wrong shape or face index out of range.
    """
    return _core.face_normals(*_mesh(vertices, faces), threads=threads)


def vertex_normals(
    vertices: npt.ArrayLike,
    faces: npt.ArrayLike,
    *,
    faces_of_vertex: Csr | None = None,
    threads: int = 1,
) -> Float32:
    """Area-weighted unit normals of the vertices, (V, 3) float32; zero for one without area.

    Args:
        vertices: (V, 3) float32, any frame and unit.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        faces_of_vertex: what `vertex_faces` gave for these faces, when the topology is used often.
        threads: number of threads; the result is the same for any.

    Raises:
        ValueError: wrong shape or index out of range.
    """
    v, f = _mesh(vertices, faces)
    table = faces_of_vertex or Csr(*_core.vertex_faces(f, len(v)))
    return _core.vertex_normals(v, f, table.offsets, table.indices, threads=threads)


def vertex_faces(faces: npt.ArrayLike, n_vertices: int) -> Csr:
    """Faces of each vertex, ascending.

    Raises:
        ValueError: wrong shape or face index outside [0, n_vertices).
    """
    return Csr(*_core.vertex_faces(int_array("faces", faces, (-1, 3)), n_vertices))


def vertex_neighbours(faces: npt.ArrayLike, n_vertices: int) -> Csr:
    """Vertices that share an edge with each vertex, ascending.

    Raises:
        ValueError: wrong shape or face index outside [0, n_vertices).
    """
    f = int_array("faces", faces, (-1, 3))
    return Csr(*_core.vertex_neighbours(f, n_vertices))


def unique_edges(faces: npt.ArrayLike, n_vertices: int) -> Int32:
    """Undirected edges (E, 2) int32, smaller vertex first, each once, in lexicographic order.

    Raises:
        ValueError: wrong shape or face index outside [0, n_vertices).
    """
    return _core.unique_edges(int_array("faces", faces, (-1, 3)), n_vertices)


def boundary_loops(faces: npt.ArrayLike, n_vertices: int) -> list[Int32]:
    """Borders of a mesh, each a closed loop of vertices (without repeating the first).

    A loop runs as the edges of its faces do, the surface to its left seen from outside, and begins
    at its smallest vertex; loops are ordered by that vertex. Where two borders touch in one vertex,
    each stays with its own fan of faces.

    Raises:
        ValueError: wrong shape or face index outside [0, n_vertices).
    """
    f = int_array("faces", faces, (-1, 3))
    offsets, indices = _core.boundary_loops(f, n_vertices)
    return list(np.split(indices, offsets[1:-1])) if len(indices) else []
