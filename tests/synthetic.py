"""Symmetric test heads: closed meshes with an exact mirror table, seen by a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import trimesh
from scipy.spatial import cKDTree

from extreme3d_fast.camera import Camera
from extreme3d_fast.completion import DenseCompletion, complete_dense
from extreme3d_fast.rasterize import Raster, rasterize
from extreme3d_fast.soft_symmetry import SoftSymmetry, SoftSymmetrySolver
from extreme3d_fast.zipper import ZipperedMesh, zip_meshes

CAMERA = Camera(500.0, 500.0, 125.0, 125.0, 250, 250)
DISTANCE_MM = 700.0


@dataclass(frozen=True)
class Head:
    vertices: npt.NDArray[np.float32]  # (V, 3) mm, head frame
    faces: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.int32]
    region: npt.NDArray[np.bool_]

    @property
    def normals(self) -> npt.NDArray[np.float32]:
        mesh = trimesh.Trimesh(self.vertices, self.faces, process=False)
        return np.asarray(mesh.vertex_normals, np.float32)


def ellipsoid_head(subdivisions: int = 5) -> Head:
    """An ellipsoid with a nose; the icosphere is symmetric in all three coordinate planes."""
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    v = np.asarray(sphere.vertices)
    mirror = cKDTree(v).query(v * [-1, 1, 1])[1]
    v = 0.5 * (v + v[mirror] * [-1, 1, 1]) * [75.0, 110.0, 95.0]
    nose = 20 * np.exp(-((v[:, 0] / 14) ** 2) - ((v[:, 1] + 5) / 20) ** 2)
    v[:, 2] += nose * (v[:, 2] > 0)
    region = (v[:, 2] > -30) & (np.abs(v[:, 1]) < 95)
    return Head(
        v.astype(np.float32), sphere.faces.astype(np.int32), mirror.astype(np.int32), region
    )


def camera_from_head(yaw_degrees: float) -> npt.NDArray[np.float64]:
    a = np.radians(yaw_degrees)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ turn
    matrix[2, 3] = DISTANCE_MM
    return matrix


@dataclass(frozen=True)
class Sewn:
    head: Head
    raster: Raster
    observed: npt.NDArray[np.bool_]
    detailed: npt.NDArray[np.float32]  # R before symmetry, head frame
    symmetry: SoftSymmetry
    dense: npt.NDArray[np.float32]
    reflected: DenseCompletion
    mesh: ZipperedMesh


def sew(head: Head, yaw_degrees: float, bump_mm: float = 0.5, threads: int = 1) -> Sewn:
    """Section 4.3 on a head with a wavy bump map, every stage but registration our own."""
    pose = camera_from_head(yaw_degrees)
    rotation, translation = pose[:3, :3], pose[:3, 3]
    in_camera = (head.vertices @ rotation.T + translation).astype(np.float32)
    normals = head.normals @ rotation.T
    raster = rasterize(in_camera, head.faces, CAMERA, threads=threads)

    def bump(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return bump_mm * np.sin(x / 4) * np.sin(y / 5)

    pixels = CAMERA.fx * in_camera[:, :2] / in_camera[:, 2:] + CAMERA.cx
    column, row = np.clip(pixels.astype(int), 0, CAMERA.width - 1).T
    toward = -np.einsum("ij,ij->i", in_camera, normals) / np.linalg.norm(in_camera, axis=1)
    observed = (toward > 0.4) & (in_camera[:, 2] < raster.depth[row, column] + 3) & head.region
    scale = 1 + bump(*pixels.T) / in_camera[:, 2]
    moved = np.where(observed[:, None], in_camera * scale[:, None], in_camera)
    detailed = ((moved - translation) @ rotation).astype(np.float32)

    solver = SoftSymmetrySolver(head.faces, head.mirror, head.region)
    symmetry = solver.solve(head.vertices, detailed, observed, threads=threads)

    y, x = np.nonzero(raster.triangle >= 0)
    z = raster.depth[y, x] + bump(x + 0.5, y + 0.5)
    rays = np.stack([(x + 0.5 - CAMERA.cx) / CAMERA.fx, (y + 0.5 - CAMERA.cy) / CAMERA.fy], 1)
    dense = (np.c_[rays * z[:, None], z] - translation) @ rotation
    vertex_of_pixel = np.full(raster.triangle.shape, -1, np.int32)
    vertex_of_pixel[y, x] = np.arange(len(z))
    triangle, uv = raster.triangle[y, x], raster.barycentric[y, x]
    weights = np.c_[uv, 1 - uv.sum(1)]
    corners = symmetry.vertices[head.faces[triangle]]
    residual = dense - np.einsum("ij,ijk->ik", weights, corners)
    recovered = symmetry.recovery > 0
    reflected = complete_dense(
        triangle, uv, residual, symmetry.vertices, head.faces, head.mirror, recovered
    )
    mesh = zip_meshes(
        head.faces,
        head.mirror,
        symmetry.vertices,
        in_camera,
        observed,
        recovered,
        dense,
        reflected.vertices,
        reflected.defined,
        raster.triangle,
        vertex_of_pixel,
        CAMERA,
        threads=threads,
    )
    return Sewn(
        head, raster, observed, detailed, symmetry, dense.astype(np.float32), reflected, mesh
    )
