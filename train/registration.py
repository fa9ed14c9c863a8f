"""Closest points, Laplacian-regularised non-rigid registration and displacement transfer."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from preview import vertex_normals
from scipy.spatial import cKDTree


def similarity(source: np.ndarray, target: np.ndarray, *, scale: bool = True):
    """(s, R, t) with s R x + t closest to target in the least-squares sense (Umeyama)."""
    a, b = source.mean(0), target.mean(0)
    u, d, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    s = (d * np.diag(sign)).sum() / ((source - a) ** 2).sum() if scale else 1.0
    return s, rotation, b - s * rotation @ a


@dataclass
class Surface:
    """A triangle mesh that answers closest-point queries."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray = field(init=False)
    rim: np.ndarray = field(init=False)  # faces that touch the open border

    def __post_init__(self):
        self.normals = vertex_normals(self.vertices, self.faces)
        sides = np.sort(self.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        edges, count = np.unique(sides, axis=0, return_counts=True)
        border = np.zeros(len(self.vertices), bool)
        border[edges[count == 1].ravel()] = True
        self.rim = border[self.faces].any(1)
        self._tree = cKDTree(self.vertices[self.faces].mean(1))

    def closest(self, points: np.ndarray, k: int = 10):
        """Face (N,), barycentric weights (N, 3), point (N, 3) of the nearest surface point."""
        _, near = self._tree.query(points, k)
        corners = self.vertices[self.faces[near]]
        weights = barycentric_of_closest(points[:, None], corners)
        foot = (weights[..., None] * corners).sum(2)
        best = ((foot - points[:, None]) ** 2).sum(2).argmin(1)
        rows = np.arange(len(points))
        return near[rows, best], weights[rows, best], foot[rows, best]


def barycentric_of_closest(p: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric weights of the point of each triangle (…, 3, 3) closest to p (…, 3)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    g11, g12, g22 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    det = np.maximum(g11 * g22 - g12 * g12, 1e-20)
    v, w = (g22 * d1 - g12 * d2) / det, (g11 * d2 - g12 * d1) / det
    inside = np.stack([1 - v - w, v, w], -1)

    def on_edge(p0, p1, i, j):
        e = p1 - p0
        t = np.clip(((p - p0) * e).sum(-1) / np.maximum((e * e).sum(-1), 1e-20), 0, 1)
        out = np.zeros((*t.shape, 3))
        out[..., i], out[..., j] = 1 - t, t
        return out

    options = np.stack([on_edge(a, b, 0, 1), on_edge(b, c, 1, 2), on_edge(c, a, 2, 0)], -2)
    feet = options @ corners
    best = ((feet - p[..., None, :]) ** 2).sum(-1).argmin(-1)
    edge = np.take_along_axis(options, best[..., None, None], -2)[..., 0, :]
    return np.where((inside >= 0).all(-1)[..., None], inside, edge)


def uniform_laplacian(edges: np.ndarray, n: int) -> sp.csr_matrix:
    """I − D⁻¹A of the vertex graph."""
    i, j = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = sp.csr_matrix((np.ones(len(i)), (i, j)), shape=(n, n))
    degree = np.asarray(adjacency.sum(1)).ravel()
    return (sp.identity(n) - sp.diags(1 / np.maximum(degree, 1)) @ adjacency).tocsr()


def solve_fields(system: sp.spmatrix, rhs: np.ndarray) -> np.ndarray:
    return spl.splu(
        system.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    ).solve(rhs)


def shortest_path(edges: np.ndarray, vertices: np.ndarray, a: int, b: int) -> list[int]:
    """Vertices of the shortest edge path from a to b."""
    neighbours: dict[int, list[int]] = {}
    for i, j in edges.tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    best, parent, queue = {a: 0.0}, {}, [(0.0, a)]
    while queue:
        d, i = heapq.heappop(queue)
        if i == b:
            break
        if d > best[i]:
            continue
        for j in neighbours[i]:
            e = d + float(np.linalg.norm(vertices[i] - vertices[j]))
            if e < best.get(j, np.inf):
                best[j], parent[j] = e, i
                heapq.heappush(queue, (e, j))
    path = [b]
    while path[-1] != a:
        path.append(parent[path[-1]])
    return path[::-1]


def resample(curve: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Points of a polyline (N, 3) at fractions in [0, 1] of its length."""
    s = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.stack(
        [np.interp(fractions * s[-1], s, curve[:, d]) for d in range(curve.shape[1])], 1
    )


def fractions_of(curve: np.ndarray) -> np.ndarray:
    s = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return s / s[-1]


def register_template(
    start: np.ndarray,
    points: sp.csr_matrix,
    point_normal_faces: np.ndarray,
    movable: np.ndarray,
    smooth: sp.csr_matrix,
    target: Surface,
    constraints: list[tuple[sp.csr_matrix, np.ndarray, float]],
    mirror: np.ndarray,
    *,
    schedule: list[tuple[float, float]],
):
    """Moves the template's coarse vertices so that its refined points lie on the target.

    start: (Vc, 3) mm; points: (P, Vc) operator of the refined mesh; point_normal_faces: its
    triangles; movable: (P,) which refined points may attach to the target; smooth: quadratic form
    of the displacement; constraints: (operator rows, positions, weight); schedule: one
    (smoothness, reach mm) pair an iteration. The result is exactly symmetric.
    """
    x = start.copy()
    for smoothness, reach in schedule:
        p = points @ x
        normals = vertex_normals(p, point_normal_faces)
        face, weights, foot = target.closest(p[movable])
        target_normal = (weights[..., None] * target.normals[target.faces[face]]).sum(1)
        gap = foot - p[movable]
        ok = (
            (np.linalg.norm(gap, axis=1) < reach)
            & ((normals[movable] * target_normal).sum(1) > 0.5)
            & ~target.rim[face]
        )
        rows = points[movable[ok]]
        n = target_normal[ok] / np.linalg.norm(target_normal[ok], axis=1, keepdims=True)
        offset = (n * gap[ok]).sum(1)
        # point-to-plane with a little point-to-point: 3×3 blocks couple the coordinates
        stiff = 0.02
        system = sp.kron(sp.identity(3), smoothness * smooth + stiff * rows.T @ rows, format="csr")
        along = sp.hstack([rows.multiply(n[:, [d]]) for d in range(3)]).tocsr()
        system = system + along.T @ along
        rhs = along.T @ offset + stiff * np.concatenate([rows.T @ gap[ok][:, d] for d in range(3)])
        rhs -= smoothness * np.concatenate([smooth @ (x - start)[:, d] for d in range(3)])
        for operator, position, weight in constraints:
            system = system + sp.kron(sp.identity(3), weight * operator.T @ operator, format="csr")
            miss = position - operator @ x
            rhs += weight * np.concatenate([operator.T @ miss[:, d] for d in range(3)])
        step = solve_fields(system, rhs).reshape(3, -1).T
        x = x + step
        x = 0.5 * (x + x[mirror] * [-1, 1, 1])
    return x, movable[ok]
