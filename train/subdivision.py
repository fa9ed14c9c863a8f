"""Catmull–Clark subdivision of quads as sparse operators, with mirror tables and UV."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def edges_of(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unique edges (E, 2) sorted, edge index per quad side (Q, 4), quads per edge (E,)."""
    sides = np.stack([quads, np.roll(quads, -1, axis=1)], 2).reshape(-1, 2)
    edges, index, count = np.unique(
        np.sort(sides, 1), axis=0, return_inverse=True, return_counts=True
    )
    return edges, index.reshape(quads.shape), count


def refine_quads(quads: np.ndarray, n: int) -> np.ndarray:
    """Each quad becomes four; new ids: vertices [0, n), then edge points, then face points."""
    edges, index, _ = edges_of(quads)
    e = n + index
    f = n + len(edges) + np.arange(len(quads))
    corner = [np.stack([quads[:, k], e[:, k], f, e[:, k - 1]], 1) for k in range(4)]
    return np.stack(corner, 1).reshape(-1, 4)


def linear(quads: np.ndarray, n: int) -> sp.csr_matrix:
    """(n + E + Q, n) operator that only splits: keeps corners, halves edges, averages faces."""
    edges, _, _ = edges_of(quads)
    eye = sp.identity(n, format="csr")
    mid = _rows(edges, 0.5, n)
    return sp.vstack([eye, mid, _rows(quads, 0.25, n)]).tocsr()


def catmull_clark(quads: np.ndarray, n: int) -> sp.csr_matrix:
    """(n + E + Q, n) operator of one Catmull–Clark level, boundaries as cubic B-splines."""
    edges, index, count = edges_of(quads)
    face = _rows(quads, 0.25, n)
    mid = _rows(edges, 0.5, n)
    faces_of_edge = sp.csr_matrix(
        (np.ones(quads.size), (index.ravel(), np.repeat(np.arange(len(quads)), 4))),
        shape=(len(edges), len(quads)),
    )
    inner = sp.diags((count == 2).astype(float))
    edge_point = (
        inner @ (0.5 * mid + 0.25 * faces_of_edge @ face) + (sp.identity(len(edges)) - inner) @ mid
    )

    faces_of_vertex = sp.csr_matrix(
        (np.ones(quads.size), (quads.ravel(), np.repeat(np.arange(len(quads)), 4))),
        shape=(n, len(quads)),
    )
    edges_of_vertex = sp.csr_matrix(
        (np.ones(edges.size), (edges.ravel(), np.repeat(np.arange(len(edges)), 2))),
        shape=(n, len(edges)),
    )
    valence = np.maximum(np.bincount(edges.ravel(), minlength=n), 1).astype(float)
    face_count = np.maximum(np.bincount(quads.ravel(), minlength=n), 1).astype(float)
    # (F̄ + 2 Ē + (v − 3) P) / v with F̄, Ē the means of the face points and edge midpoints.
    smooth = (
        sp.diags(1 / (valence * face_count)) @ faces_of_vertex @ face
        + sp.diags(2 / valence**2) @ edges_of_vertex @ mid
        + sp.diags((valence - 3) / valence)
    )
    on_boundary = np.zeros(n, bool)
    rim = edges[count == 1]
    on_boundary[rim.ravel()] = True
    neighbours = sp.csr_matrix(
        (np.full(rim.size, 0.125), (rim.ravel(), rim[:, ::-1].ravel())), shape=(n, n)
    )
    keep = sp.diags(on_boundary.astype(float))
    vertex_point = (sp.identity(n) - keep) @ smooth + 0.75 * keep + neighbours
    out = sp.vstack([vertex_point, edge_point, face]).tocsr()
    out.eliminate_zeros()
    out.sort_indices()
    return out


def refine_mirror(quads: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mirror table of the refined mesh: an edge's image is the edge of its ends' images."""
    n = len(mirror)
    edges, _, _ = edges_of(quads)
    edge_id = {tuple(e): i for i, e in enumerate(edges)}
    face_id = {tuple(sorted(q)): i for i, q in enumerate(quads.tolist())}
    edge_image = [n + edge_id[tuple(e)] for e in np.sort(mirror[edges], 1)]
    face_image = [n + len(edges) + face_id[tuple(sorted(q))] for q in mirror[quads].tolist()]
    return np.concatenate([mirror, edge_image, face_image]).astype(np.int64)


def triangulate(quads: np.ndarray, mirror: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Two triangles a quad; the diagonal of a quad on the right is the image of the left's."""
    face_id = {tuple(sorted(q)): i for i, q in enumerate(quads.tolist())}
    image = np.array([face_id[tuple(sorted(q))] for q in mirror[quads].tolist()])
    flip = np.zeros(len(quads), bool)
    side = x[quads].mean(1)
    for i, j in enumerate(image):
        if side[i] < 0 and i != j:
            # The left quad j is cut from corner 0 to 2: cut along the image of that here.
            corner = quads[i].tolist().index(mirror[quads[j, 0]])
            flip[i] = corner % 2 == 1
    start = flip.astype(int)
    q = np.take_along_axis(quads, (np.arange(4) + start[:, None]) % 4, 1)
    return np.stack([q[:, [0, 1, 2]], q[:, [0, 2, 3]]], 1).reshape(-1, 3)


def _rows(index: np.ndarray, weight: float, n: int) -> sp.csr_matrix:
    rows = np.repeat(np.arange(len(index)), index.shape[1])
    return sp.csr_matrix(
        (np.full(index.size, weight), (rows, index.ravel())), shape=(len(index), n)
    )
