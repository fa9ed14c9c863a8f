"""Real head scans in the head frame, and pictures of them at known poses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.surface import Surface, align, similarity

FACE_RADIUS = 95.0  # mm from the tip of the nose: the part of a scan that is measured
SIZE = 400  # px, side of a picture
_SUPERSAMPLING = 2
_LONGEST_EDGE = 20.0  # mm; longer ones are spikes and bridges of the reconstruction
_FILL = 0.5  # of the picture's side, spanned by the 200 mm square of the networks
MAX_TEXTURE = 2048
NOSE_TIP = 30  # among the 68 landmarks

# The LJSON file groups its points by part; this is their place in the 68-point scheme.
_JAMES_68 = [
    *range(17),
    *range(36, 48),
    *range(17, 22),
    *range(27, 36),
    *range(22, 27),
    *range(48, 68),
]


@dataclass(eq=False)
class Scan:
    """A scan in mm in the head frame, turned as the model's mean face lies best on it."""

    name: str
    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    landmarks: np.ndarray  # (51, 3) the 68 without the jaw
    colors: np.ndarray | None = None  # (V, 3) sRGB
    texture: np.ndarray | None = None  # (h, w, 3) sRGB
    corner_uv: np.ndarray | None = None  # (F, 3, 2), v up
    measured: np.ndarray | None = None  # (V,) bool, on the outside; None: all of it is

    @cached_property
    def face(self) -> np.ndarray:
        """(N, 3) the vertices that are measured."""
        tip = self.landmarks[NOSE_TIP - 17]
        near = np.linalg.norm(self.vertices - tip, axis=1) < FACE_RADIUS
        used = np.zeros(len(near), bool)
        used[self.faces] = True
        if self.measured is not None:
            used &= self.measured
        return self.vertices[near & used]

    @cached_property
    def normals(self) -> np.ndarray:
        from extreme3d_fast.mesh import vertex_normals

        return vertex_normals(self.vertices.astype(np.float32), self.faces.astype(np.int32))


@dataclass(frozen=True, eq=False)
class View:
    """A picture of a scan and the truth about it."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    rotation: np.ndarray  # (3, 3) camera_from_head
    box: np.ndarray  # (4,) px, tight box of the mean face's points in this pose
    camera: Any  # of the picture
    depth: np.ndarray  # (S, S) float32 mm, smooth across triangles, NaN where there is no scan
    normal: np.ndarray  # (S, S, 3) float32, unit, camera frame, towards the camera; NaN likewise


@dataclass(frozen=True)
class Light:
    """Even light from all round and one directed light, in linear light."""

    ambient: float
    directed: float
    direction: tuple[float, float, float]  # towards the light, camera frame (y down, z forward)


@cache
def load_scans(folder: Path, model: Any) -> list[Scan]:
    """The three scans of the research data.

    "james" has no unit: its scale is that of its landmarks on the mean head. The others are in mm
    or metres.
    """
    mean = model.landmark_basis("68").mean.astype(np.float64)[17:]
    surface = face_surface(model, model.vertices())
    scans = [_james(folder, mean), _flame(folder, mean), _meshmonk(folder, mean)]
    for scan in scans:
        sides = scan.vertices[scan.faces] - scan.vertices[np.roll(scan.faces, 1, axis=1)]
        real = (np.linalg.norm(sides, axis=2) < _LONGEST_EDGE).all(axis=1)
        scan.faces = scan.faces[real]
        scan.corner_uv = None if scan.corner_uv is None else scan.corner_uv[real]
        straighten(scan, surface, mean)
        if scan.texture is None:
            scan.colors = skin_colors(scan, model)
    return scans


def face_surface(model: Any, vertices: np.ndarray, reach: float = 150.0) -> Surface:
    """The model's skin round the face: what lies within `reach` mm of the tip of the nose."""
    tip = model.landmark_basis("68").mean[NOSE_TIP]
    near = np.linalg.norm(model.vertices()[: model.skin_vertex_count] - tip, axis=1) < reach
    faces = model.faces[near[model.faces].all(axis=1)]
    used, index = np.unique(faces, return_inverse=True)
    return Surface(vertices[used].astype(np.float64), index.reshape(-1, 3))


def render(
    scan: Scan,
    model: Any,
    background: np.ndarray,
    *,
    yaw: float,
    pitch: float = 0.0,
    distance: float = 700.0,
    seed: int = 0,
    size: int = SIZE,
    light: Light | None = None,
) -> View:
    """A picture of a scan before a blurred photo, under an ambient and one directed light.

    Args:
        scan: what to draw.
        model: gives the box of the face.
        background: (H, W, 3) uint8 RGB, any photo; it is blurred beyond recognition.
        yaw, pitch: degrees, see `rotation_from_angles`.
        distance: mm from the camera to the middle of the face; it does not change its size.
        seed: of light and skin tone.
        size: side of the picture, px.
        light: adds up as light does; None: a random one that scales sRGB values.
    """
    from extreme3d_fast.camera import Camera, rotation_from_angles
    from extreme3d_fast.pose import FACE_CENTER, SIDE_MM
    from extreme3d_fast.rasterize import rasterize
    from extreme3d_fast.smooth_depth import smooth_depth

    rng = np.random.default_rng(seed)
    side = size * _SUPERSAMPLING
    focal = _FILL * side * distance / SIDE_MM
    camera = Camera(focal, focal, side / 2, side / 2, side, side)
    rotation = rotation_from_angles(yaw, pitch)
    in_camera = (scan.vertices - FACE_CENTER) @ rotation.T + [0, 0, distance]
    # each face has its own corners, since texture coordinates jump along seams
    corners = in_camera[scan.faces].reshape(-1, 3).astype(np.float32)
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    raster = rasterize(corners, faces, camera)
    hit = raster.triangle >= 0
    triangle = raster.triangle[hit]
    uv = raster.barycentric[hit].astype(np.float64)
    bary = np.column_stack([uv, 1 - uv.sum(1)])

    def at_pixels(of_corner: np.ndarray) -> np.ndarray:  # (F, 3, d)
        return np.einsum("nk,nkd->nd", bary, of_corner[triangle])

    corner_normals = scan.normals[scan.faces] @ rotation.T
    normal = at_pixels(corner_normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.2), -1.0])
    tone = rng.uniform(0.75, 1.0)
    if light is not None:
        direction = np.array(light.direction)
    lit = np.maximum(normal @ (direction / np.linalg.norm(direction)), 0)[:, None]
    if scan.texture is not None and scan.corner_uv is not None:
        albedo, shade = sample_texture(scan.texture, at_pixels(scan.corner_uv)), 0.7 + 0.35 * lit
    else:
        assert scan.colors is not None
        albedo, shade = tone * at_pixels(scan.colors[scan.faces].astype(float)), 0.5 + 0.6 * lit
    if light is not None:  # sRGB is about the power 1 / 2.2 of light
        shade = (light.ambient + light.directed * lit) ** (1 / 2.2)
    scene = cv2.resize(background, (SIZE * _SUPERSAMPLING,) * 2, interpolation=cv2.INTER_AREA)
    scene = cv2.GaussianBlur(scene, (0, 0), len(scene) / 10)
    if len(scene) != side:
        scene = cv2.resize(scene, (side, side), interpolation=cv2.INTER_LINEAR)
    scene = scene.astype(np.float64)
    scene[hit] = np.clip(albedo * shade, 0, 255)
    image = cv2.resize(scene.astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA)
    depth = smooth_depth(raster, corners, corner_normals.reshape(-1, 3).astype(np.float32), faces)
    depth[~hit] = np.nan
    normals = np.full((side, side, 3), np.nan, np.float32)
    normals[hit] = normal
    depth, normals = (
        cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA) for a in (depth, normals)
    )
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    points = model.landmark_basis("478").mean[:468] - FACE_CENTER
    points = camera.project(points @ rotation.T + [0, 0, distance]) / _SUPERSAMPLING
    half = Camera(*(v / _SUPERSAMPLING for v in camera.pinhole), size, size)
    return View(
        image, rotation, np.concatenate([points.min(0), points.max(0)]), half, depth, normals
    )


def straighten(scan: Scan, mean_face: Surface, mean: np.ndarray) -> None:
    """Move a scan rigidly to where the mean face lies best on it; complete its landmarks."""
    tip = scan.landmarks[NOSE_TIP - 17]
    near = scan.vertices[np.linalg.norm(scan.vertices - tip, axis=1) < FACE_RADIUS]
    identity = (1.0, np.eye(3), np.zeros(3))
    _, rotation, shift = align(mean_face, near, identity, scale=False, iterations=40)
    scan.vertices = (scan.vertices - shift) @ rotation
    scan.landmarks = (scan.landmarks - shift) @ rotation
    unknown = np.isnan(scan.landmarks).any(axis=1)
    if unknown.any():
        scan.landmarks[unknown] = Surface(scan.vertices, scan.faces).closest(mean[unknown])[1]


def skin_colors(scan: Scan, model: Any) -> np.ndarray:
    """The built-in head's colours of skin, lips and eyes, carried over by nearest vertex."""
    from scipy.spatial import cKDTree

    basis = model.landmark_basis("68")
    # a few soft coefficients bring eyes and mouth to their places
    rows = basis.identity[:, 17:].reshape(model.n_identity, -1).T.astype(np.float64)
    gap = (scan.landmarks - basis.mean[17:]).ravel()
    alpha = np.linalg.solve(rows.T @ rows + 4.0 * np.eye(rows.shape[1]), rows.T @ gap)
    head = model.vertices(alpha.astype(np.float32))
    return np.asarray(model.colors[cKDTree(head).query(scan.vertices)[1]])


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N, 3) colours of a texture at (N, 2) coordinates."""
    height, width = texture.shape[:2]
    columns = 1024  # OpenCV wants a picture of coordinates, with sides below 32768
    at = np.resize(uv * [1, -1] + [0, 1], (-(-len(uv) // columns), columns, 2))
    at = (at * [width, height] - 0.5).astype(np.float32)
    found = cv2.remap(texture, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(-1, 3)[: len(uv)].astype(np.float64)


def _james(folder: Path, mean: np.ndarray) -> Scan:
    vertices, faces, uv, faces_uv = read_obj(folder / "james_menpo_james.obj")
    group = json.loads((folder / "james_menpo_james.ljson").read_text())["groups"]["LJSON"]
    points = np.zeros((68, 3))
    points[_JAMES_68] = np.array(group["landmarks"]["points"], float)
    s, rotation, shift = similarity(points[17:], mean)
    texture = cv2.imread(str(folder / "james_menpo_james.jpg"), cv2.IMREAD_COLOR)[:, :, ::-1]
    factor = min(1.0, MAX_TEXTURE / max(texture.shape[:2]))
    return Scan(
        "james",
        s * vertices @ rotation.T + shift,
        faces,
        s * points[17:] @ rotation.T + shift,
        texture=cv2.resize(texture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA),
        corner_uv=uv[faces_uv],
    )


def _flame(folder: Path, mean: np.ndarray) -> Scan:
    vertices, faces, _, _ = read_obj(folder / "flame_fitting_scan_scan.obj")
    points = 1000 * np.load(folder / "flame_fitting_scan_scan_lmks.npy")  # metres
    _, rotation, shift = similarity(points, mean, scale=False)
    return Scan("flame", 1000 * vertices @ rotation.T + shift, faces, points @ rotation.T + shift)


def _meshmonk(folder: Path, mean: np.ndarray) -> Scan:
    vertices, faces, _, _ = read_obj(folder / "meshmonk_demoface_DemoFace_10K.obj")
    # it has no landmarks but looks along z already; its nose is what is foremost between the eyes
    front = vertices[
        (np.abs(vertices[:, 0]) < 40) & (vertices[:, 1] > -20) & (vertices[:, 1] < 130)
    ]
    landmarks = np.full((51, 3), np.nan)
    landmarks[NOSE_TIP - 17] = mean[NOSE_TIP - 17]
    shift = mean[NOSE_TIP - 17] - front[front[:, 2].argmax()]
    return Scan("meshmonk", vertices + shift, faces, landmarks)


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles, texture coordinates and their triangles."""
    vertices, uv, faces, faces_uv = [], [], [], []
    for line in path.read_text().splitlines():
        key, *values = line.split() or [""]
        if key == "v":
            vertices.append([float(v) for v in values[:3]])
        elif key == "vt":
            uv.append([float(v) for v in values[:2]])
        elif key == "f":
            corners = [v.split("/") for v in values[:3]]
            faces.append([int(c[0]) - 1 for c in corners])
            if len(corners[0]) > 1 and corners[0][1]:
                faces_uv.append([int(c[1]) - 1 for c in corners])
    return np.array(vertices), np.array(faces), np.array(uv), np.array(faces_uv)
