"""NumPy twins of the C++ stages, written naively from the formulas, and meshes to try them on."""

from __future__ import annotations

import numpy as np

# --- Meshes -----------------------------------------------------------------------------------


def sphere(levels: int, radius: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Octahedron halved `levels` times: 8 * 4^levels triangles, counter-clockwise from outside."""
    v = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], float)
    f = np.array(
        [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    )
    for _ in range(levels):
        edges = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1)
        unique, inverse = np.unique(edges, axis=0, return_inverse=True)
        mid = len(v) + inverse.reshape(3, -1).T  # midpoints of edges 01, 12, 20
        v = np.concatenate([v, v[unique].mean(axis=1)])
        f = np.concatenate(
            [
                np.stack([f[:, 0], mid[:, 0], mid[:, 2]], 1),
                np.stack([f[:, 1], mid[:, 1], mid[:, 0]], 1),
                np.stack([f[:, 2], mid[:, 2], mid[:, 1]], 1),
                mid,
            ]
        )
    v = radius * v / np.linalg.norm(v, axis=1, keepdims=True)
    return v.astype(np.float32), f.astype(np.int32)


# --- Rasteriser -------------------------------------------------------------------------------

SUB_PIXEL = 256


def rasterize(vertices, faces, camera, cull_back_faces=True):
    """Every triangle against every pixel, coverage in Python integers."""
    depth = np.full((camera.height, camera.width), np.inf)
    triangle = np.full((camera.height, camera.width), -1, np.int32)
    barycentric = np.zeros((camera.height, camera.width, 2))
    px, py = np.meshgrid(
        SUB_PIXEL * np.arange(camera.width, dtype=np.int64) + SUB_PIXEL // 2,
        SUB_PIXEL * np.arange(camera.height, dtype=np.int64) + SUB_PIXEL // 2,
    )
    for index, face in enumerate(faces):
        p = vertices[face].astype(np.float32)
        if not (np.isfinite(p).all() and (p[:, 2] > 1).all()):
            continue
        x = np.float32(camera.fx) * (p[:, 0] / p[:, 2]).astype(np.float64) + camera.cx
        y = np.float32(camera.fy) * (p[:, 1] / p[:, 2]).astype(np.float64) + camera.cy
        x, y = x.astype(np.float32).astype(float), y.astype(np.float32).astype(float)
        if max(abs(x).max(), abs(y).max()) >= 2**21:
            continue
        x = np.floor(x * SUB_PIXEL + 0.5).astype(np.int64)
        y = np.floor(y * SUB_PIXEL + 0.5).astype(np.int64)
        order = [0, 1, 2]
        area = (y[1] - y[0]) * (x[2] - x[0]) - (x[1] - x[0]) * (y[2] - y[0])
        if area == 0 or (area < 0 and cull_back_faces):
            continue
        if area < 0:
            order, area = [0, 2, 1], -area
        weight, inside = np.zeros((3, *px.shape)), np.ones(px.shape, bool)
        for k in range(3):
            a, b = order[(k + 1) % 3], order[(k + 2) % 3]
            ex, ey = x[b] - x[a], y[b] - y[a]
            value = ey * (px - x[a]) - ex * (py - y[a])
            inside &= (value >= 0) if ey > 0 or (ey == 0 and ex < 0) else (value > 0)
            weight[order[k]] = value / area
        z = 1 / np.tensordot(1 / p[:, 2].astype(float), weight, 1).clip(1e-12)
        nearer = inside & (z < depth)
        depth[nearer], triangle[nearer] = z[nearer], index
        barycentric[nearer] = np.moveaxis(weight[:2], 0, -1)[nearer]
    return depth, triangle, barycentric
