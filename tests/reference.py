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


def vertex_visibility(vertices, normals, depth, camera, min_cosine, depth_tolerance):
    """One vertex after the other: facing, inside, and not behind its pixel's surface."""
    visible = np.zeros(len(vertices), bool)
    for v, (p, n) in enumerate(zip(vertices.astype(float), normals.astype(float), strict=True)):
        if not (p[2] > 1 and np.linalg.norm(n) > 0):
            continue
        n = n / np.linalg.norm(n)
        x, y = camera.fx * p[0] / p[2] + camera.cx, camera.fy * p[1] / p[2] + camera.cy
        if -n @ p / np.linalg.norm(p) <= min_cosine:
            continue
        if not (0 <= x < camera.width and 0 <= y < camera.height):
            continue
        i, j = int(x), int(y)
        z = float(depth[j, i])
        seen = np.array([(i + 0.5 - camera.cx) / camera.fx, (j + 0.5 - camera.cy) / camera.fy, 1])
        visible[v] = not np.isfinite(z) or n @ (z * seen - p) <= depth_tolerance
    return visible


# --- Dense mesh -------------------------------------------------------------------------------


def dense_mesh(depth, camera, max_slope):
    """Two passes in pixel order: all triangles of all blocks, then the pixels they use."""
    depth = depth.astype(np.float32)
    height, width = depth.shape
    is_surface = np.isfinite(depth) & (depth > 1)

    def edge_stands(a, b):
        if not (is_surface[a] and is_surface[b]):
            return False
        apart = np.hypot((a[1] - b[1]) / camera.fx, (a[0] - b[0]) / camera.fy)
        return abs(depth[a] - depth[b]) <= max_slope * apart * min(depth[a], depth[b])

    triangles = []
    for y in range(height - 1):
        for x in range(width - 1):
            p00, p10, p01, p11 = (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)
            if not (is_surface[p00] and is_surface[p11]):
                main = False
            elif not (is_surface[p10] and is_surface[p01]):
                main = True
            else:
                main = abs(depth[p00] - depth[p11]) <= abs(depth[p10] - depth[p01])
            pair = (
                [(p00, p01, p11), (p00, p11, p10)] if main else [(p00, p01, p10), (p10, p01, p11)]
            )
            triangles += [
                t for t in pair if all(edge_stands(t[k], t[(k + 1) % 3]) for k in range(3))
            ]
    pixels = sorted({p for t in triangles for p in t})
    index = {p: i for i, p in enumerate(pixels)}
    vertex_of_pixel = np.full(depth.shape, -1, np.int32)
    for p, i in index.items():
        vertex_of_pixel[p] = i
    vertices = [
        (
            (x + 0.5 - camera.cx) / camera.fx * depth[y, x],
            (y + 0.5 - camera.cy) / camera.fy * depth[y, x],
            depth[y, x],
        )
        for y, x in pixels
    ]
    faces = [[index[p] for p in t] for t in triangles]
    return (
        np.array(vertices, float).reshape(-1, 3),
        np.array(faces, np.int32).reshape(-1, 3),
        vertex_of_pixel,
    )


# --- Dense to sparse, and registration --------------------------------------------------------


def sparse_from_dense(vertices, visible, bump, valid, camera):
    """One vertex after the other."""
    out, moved = vertices.astype(float).copy(), np.zeros(len(vertices), bool)
    for v, p in enumerate(vertices.astype(float)):
        x, y = camera.fx * p[0] / p[2] + camera.cx, camera.fy * p[1] / p[2] + camera.cy
        if not (visible[v] and 0 <= x <= camera.width and 0 <= y <= camera.height):
            continue
        total = weight = 0.0
        for j in range(int(np.floor(y - 0.5)), int(np.floor(y - 0.5)) + 2):
            for i in range(int(np.floor(x - 0.5)), int(np.floor(x - 0.5)) + 2):
                if 0 <= i < camera.width and 0 <= j < camera.height and valid[j, i]:
                    w = (1 - abs(x - 0.5 - i)) * (1 - abs(y - 0.5 - j))
                    total, weight = total + w * bump[j, i], weight + w
        if weight >= 0.5:
            out[v], moved[v] = p * (p[2] + total / weight) / p[2], True
    return out, moved


def interpolate(vertices, faces, triangle, uv):
    """Eq. 6 with the corners of the given triangles."""
    p1, p2, p3 = vertices.astype(float)[faces[triangle]].transpose(1, 0, 2)
    u, v = uv.astype(float).T[..., None]
    return u * p1 + v * p2 + (1 - u - v) * p3


def register_dense(triangle, barycentric, vertex_of_pixel, dense, sparse, faces):
    """Eq. 6-7 pixel by pixel, as three fancy-indexed assignments."""
    at = (vertex_of_pixel >= 0) & (triangle >= 0)
    rows = vertex_of_pixel[at]
    out_triangle = np.full(len(dense), -1, np.int32)
    uv, residual = np.zeros((len(dense), 2), np.float32), np.zeros((len(dense), 3))
    out_triangle[rows], uv[rows] = triangle[at], barycentric[at]
    residual[rows] = dense[rows] - interpolate(sparse, faces, triangle[at], barycentric[at])
    return out_triangle, uv, residual


def recover_dense(triangle, uv, residual, sparse, faces):
    """Eq. 8."""
    return interpolate(sparse, faces, triangle, uv) + residual
