"""Pictures for judging by eye: a painter's-algorithm renderer, relief in clay, sheets of tiles."""

from __future__ import annotations

import cv2
import numpy as np

# Of shaded relief, towards it, from above on the left; camera frame.
LIGHT = np.array([-0.5, -0.6, -0.62])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros_like(vertices)
    for k in range(3):
        for d in range(3):
            out[:, d] += np.bincount(faces[:, k], normal[:, d], len(vertices))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def project(
    vertices, yaw=0.0, pitch=0.0, size=400, centre=(0.0, -10.0, 40.0), span=260.0, distance=900.0
):
    """(N, 3) head-frame mm -> pixels x, y and depth, and the rotation used; perspective camera."""
    a, b = np.radians(yaw), np.radians(pitch)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    rotation = tilt @ turn
    p = (vertices - np.asarray(centre)) @ rotation.T
    scale = size / span * distance / (distance - p[:, 2])
    return np.stack([size / 2 + p[:, 0] * scale, size / 2 - p[:, 1] * scale, p[:, 2]], 1), rotation


def render(vertices, faces, colors=None, *, yaw=0.0, pitch=0.0, size=400, supersample=2, **view):
    """(size, size, 3) uint8 BGR picture, light from above the viewer's left shoulder."""
    vertices = np.asarray(vertices, float)
    s = size * supersample
    p, rotation = project(vertices, yaw, pitch, s, **view)
    normals = vertex_normals(vertices, faces) @ rotation.T
    key, fill = np.array([-0.45, 0.5, 0.75]), np.array([0.7, 0.1, 0.5])
    shade = 0.22 + 0.68 * np.clip(normals @ (key / np.linalg.norm(key)), 0, 1)
    shade += 0.18 * np.clip(normals @ (fill / np.linalg.norm(fill)), 0, 1)
    albedo = np.full((len(vertices), 3), 200.0) if colors is None else np.asarray(colors, float)
    rgb = np.clip(albedo * shade[:, None], 0, 255)
    tri = p[faces]
    area = np.cross(tri[:, 1, :2] - tri[:, 0, :2], tri[:, 2, :2] - tri[:, 0, :2])
    front = np.flatnonzero(area < 0)  # image y points down
    front = front[np.argsort(tri[front, :, 2].mean(1), kind="stable")]
    image = np.full((s, s, 3), 255, np.uint8)
    polygons = np.round(tri[front, :, :2] * 16).astype(np.int32)
    fill_colors = rgb[faces[front]].mean(1)[:, ::-1]
    for polygon, color in zip(polygons, fill_colors.tolist(), strict=True):
        cv2.fillConvexPoly(image, polygon, color, cv2.LINE_8, 4)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def sheet(images, columns):
    """Pictures of one size in rows; the last row is filled up with black."""
    images = [*images, *[np.zeros_like(images[0])] * (-len(images) % columns)]
    rows = [np.hstack(images[i : i + columns]) for i in range(0, len(images), columns)]
    return np.vstack(rows)


def shaded(normals: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: grey clay with such unit normals (camera frame) under LIGHT."""
    grey = 40 + 190 * np.maximum(normals @ (LIGHT / np.linalg.norm(LIGHT)), 0)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def shaded_depth(depth: np.ndarray, mm_per_pixel: float) -> np.ndarray:
    """(H, W, 3) uint8: a surface of such depth (mm) in clay, black where it is infinite or ends."""
    there = np.isfinite(depth)
    zy, zx = np.gradient(np.where(there, depth, 0) / mm_per_pixel)
    normals = np.stack([zx, zy, -np.ones_like(zx)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    inner = cv2.erode(there.astype(np.uint8), np.ones((3, 3), np.uint8))
    return shaded(normals) * inner[..., None]
