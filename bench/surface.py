"""Distance from a scan to a mesh after the similarity that brings them together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_NEAREST = 8  # triangles, by their middles, among which the closest point is looked for
_ROBUST_MM = 1.5  # distances well above pull less: hair, spikes
_SAMPLE = 2500  # points the alignment looks at


@dataclass
class Surface:
    """A triangle mesh that answers closest-point queries."""

    vertices: np.ndarray
    faces: np.ndarray
    face_normals: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        from scipy.spatial import cKDTree

        corners = self.vertices[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        self.face_normals = normals / np.maximum(length, 1e-12)
        self._tree = cKDTree(corners.mean(1))

    def closest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Triangle (N,) and point (N, 3) of the surface nearest to each point."""
        _, near = self._tree.query(points, min(_NEAREST, len(self.faces)))
        near = near.reshape(len(points), -1)
        foot = closest_on_triangles(points[:, None], self.vertices[self.faces[near]])
        best = ((foot - points[:, None]) ** 2).sum(2).argmin(1)
        rows = np.arange(len(points))
        return near[rows, best], foot[rows, best]


def closest_on_triangles(p: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The point of each triangle (..., 3, 3) that is closest to p (..., 3)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    g11, g12, g22 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    det = np.maximum(g11 * g22 - g12 * g12, 1e-20)
    v, w = (g22 * d1 - g12 * d2) / det, (g11 * d2 - g12 * d1) / det
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)

    def on_edge(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        e = end - start
        t = ((p - start) * e).sum(-1) / np.maximum((e * e).sum(-1), 1e-20)
        return start + np.clip(t, 0, 1)[..., None] * e

    edges = np.stack([on_edge(a, b), on_edge(b, c), on_edge(c, a)], -2)
    nearest = ((edges - p[..., None, :]) ** 2).sum(-1).argmin(-1)
    edge = np.take_along_axis(edges, nearest[..., None, None], -2)[..., 0, :]
    return np.where(inside[..., None], a + v[..., None] * ab + w[..., None] * ac, edge)


def similarity(
    source: np.ndarray, target: np.ndarray, *, scale: bool = True
) -> tuple[float, np.ndarray, np.ndarray]:
    """(s, R, t) with s R x + t closest to target in the least-squares sense (Umeyama 1991)."""
    a, b = source.mean(0), target.mean(0)
    u, d, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    s = float((d * sign).sum() / ((source - a) ** 2).sum()) if scale else 1.0
    return s, rotation, b - s * rotation @ a


def align(
    mesh: Surface,
    points: np.ndarray,
    start: tuple[float, np.ndarray, np.ndarray],
    *,
    scale: bool = True,
    iterations: int = 20,
) -> tuple[float, np.ndarray, np.ndarray]:
    """(s, R, t), mesh to points: ICP from `start`, point to plane, robust."""
    from extreme3d_fast.camera import rotation_from_vector

    s, rotation, shift = start
    if len(points) > _SAMPLE:
        rows = np.random.default_rng(0).choice(len(points), _SAMPLE, replace=False)
        points = points[rows]
    for _ in range(iterations):
        # in the frame of the mesh, whose tree is built once
        local = (points - shift) @ rotation / s
        face, foot = mesh.closest(local)
        n = mesh.face_normals[face]
        residual = ((local - foot) * n).sum(1)
        weight = 1 / (1 + (np.linalg.norm(local - foot, axis=1) / _ROBUST_MM) ** 2)
        middle = foot.mean(0)
        arm = foot - middle
        # mesh moved by w x arm + shift + growth arm
        jacobian = np.column_stack([np.cross(arm, n), n, (arm * n).sum(1)])
        if not scale:
            jacobian = jacobian[:, :6]
        left = jacobian.T @ (weight[:, None] * jacobian)
        step = np.linalg.solve(
            left + 1e-6 * np.diag(np.diag(left)), jacobian.T @ (weight * residual)
        )
        turn, growth = rotation_from_vector(step[:3]), 1 + (step[6] if scale else 0.0)
        # x -> middle + growth turn (x - middle) + step, then into the frame of the points
        shift = s * rotation @ (middle + step[3:6] - growth * turn @ middle) + shift
        rotation, s = rotation @ turn, s * growth
        if np.linalg.norm(step[:3]) < 1e-5 and np.linalg.norm(step[3:6]) < 1e-3:
            break
    return s, rotation, shift


def distances(
    mesh: Surface, points: np.ndarray, placed: tuple[float, np.ndarray, np.ndarray]
) -> np.ndarray:
    """(N,) distance of each point to the mesh placed by (s, R, t), in the points' unit."""
    s, rotation, shift = placed
    local = (points - shift) @ rotation / s
    return s * np.linalg.norm(local - mesh.closest(local)[1], axis=1)
