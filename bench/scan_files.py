"""Head scans of any folder: read, the face found in rendered views, and brought to the head frame.

Nothing is asked of a scan but that it shows a face: unit, axes and winding are found. What cannot
be brought to the head frame is left out, with the reason.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.columns import in_photo
from bench.photos import read_rgb
from bench.scan_views import (
    MAX_TEXTURE,
    NOSE_TIP,
    Scan,
    face_surface,
    sample_texture,
    skin_colors,
    straighten,
)
from bench.surface import Surface, similarity
from extreme3d_fast.camera import CAMERA_FROM_FRONTAL_HEAD, Camera, rotation_from_angles
from extreme3d_fast.detect import FaceDetector
from extreme3d_fast.pose import FACE_CENTER
from extreme3d_fast.rasterize import rasterize, vertex_visibility

SUFFIXES = (".glb", ".obj", ".ply")
UNITS = {"mm": 1.0, "cm": 10.0, "in": 25.4, "m": 1000.0}
# A unit is believed if it makes the head so many times as large as it looks, or less.
UNIT_TOLERANCE = 1.25
# mm RMS between landmarks on the scan and those of the head model that was fitted to its picture.
MAX_LANDMARK_RMS = 8.0
MAX_MEAN_FACE = 5.0  # mm, median distance of the mean face: real scans reach 1.4
MIN_LANDMARKS = 25  # of 51 that must lie on the scan
_INNER_LIPS = slice(60 - 17, 68 - 17)  # behind them an open mouth has no surface
_KEPT = 0.8  # of the landmarks, those that fit best: others fall off edges, into hair or nostrils
_TRIMS = 10  # rounds of fitting the best ones
_SIDE = 384  # px of a picture that is searched
SPAN = 1.1  # longest sides of the scan's box across a picture
FACE_SPAN = 300.0  # mm across a picture of the face
_DISTANCE = 1500.0  # mm of the camera from what it looks at, and five times what it sees
_GOOD_RMS = 3.0  # mm; a view with landmarks that fit so well needs no better
_LOOKS = 3  # at the face, each from where the last one said that the front is
_CLAY = np.array([205.0, 170.0, 150.0])  # sRGB of a scan without colours
_WHITE = 255
_STAND_IN = 2  # px
_IMAGES = (".jpg", ".jpeg", ".png")
_SEEN_YAWS = (-80, -40, 0, 40, 80)  # degrees; what none of these views shows is not measured
# All rotations that map axes to axes: where a head may look, and which way its top may be. Those
# of heads that look nearly along z with y up come first.
AXIS_ROTATIONS = sorted(
    (
        np.array(rows)
        for rows in itertools.product(np.vstack([np.eye(3), -np.eye(3)]), repeat=3)
        if np.linalg.det(np.array(rows)) > 0.5
    ),
    key=lambda rotation: -np.trace(CAMERA_FROM_FRONTAL_HEAD @ rotation),
)
# Half way to the furthest from all of those, for scans that stand askew.
_ASKEW = rotation_from_angles(45, 30, 30)


class Unusable(Exception):
    """A scan that cannot be measured; says why."""


@dataclass(frozen=True)
class Placed:
    """How a scan was brought to the head frame."""

    unit: str  # of UNITS, or "head": none fits, the scan has the size that its face seems to have
    mm_per_unit: float
    landmark_rms_mm: float
    mean_face_mm: float  # median distance of the mean face
    colors: str  # "texture", "vertices" or "none"
    vertices: int


@dataclass(frozen=True, eq=False)
class _Look:
    """A picture of a scan; `points` are those of the scan, NaN where there is none."""

    image: np.ndarray  # (S, S, 3) uint8
    points: np.ndarray  # (S, S, 3) in the scan's own frame
    faces_camera: float  # share of the surface that is seen whose winding says it faces the camera


def load_folder(
    folder: Path, reconstructor: Any, unit: str = "auto"
) -> tuple[list[Scan], dict[str, Placed], dict[str, str]]:
    """The scans of a folder and its folders, how each was placed, and why others are left out.

    Args:
        folder: holds .glb, .obj and .ply files with textures or vertex colours.
        reconstructor: finds the face and its landmarks.
        unit: of the files, one of UNITS; "auto": the one that suits the size of the face.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"no {', '.join(SUFFIXES)} in {folder}")
    scans, placed, skipped = [], {}, {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            scan = read_mesh(path, name)
            placed[name] = place(scan, reconstructor, unit)
        except Unusable as error:
            skipped[name] = str(error)
        else:
            scans.append(scan)
    return scans, placed, skipped


# === Files ===


def read_mesh(path: Path, name: str = "") -> Scan:
    """A file as a scan in its own unit and frame, corners at one place joined."""
    try:
        import trimesh
    except ImportError:
        raise SystemExit("--scans needs trimesh: pip install .[bench]") from None
    try:
        parts = _parts_of(trimesh.load(path, process=False))
        if not parts:
            raise Unusable("it has no triangles")
        moved = [part.copy().apply_transform(pose) for part, pose in parts]
        # one texture for all: trimesh packs those of the parts
        mesh = moved[0] if len(moved) == 1 else trimesh.util.concatenate(moved)
        vertices = np.asarray(mesh.vertices, np.float64)
        faces = np.asarray(mesh.faces, np.int64)
        uv, texture = _texture_of(mesh, path)
        linear = path.suffix.lower() == ".glb"
        colors = None if uv is not None else _colors_of([part for part, _ in parts], linear=linear)
    except Unusable:
        raise
    except Exception as error:  # whatever readers of three formats raise on a broken file
        raise Unusable(f"it cannot be read: {type(error).__name__}: {error}") from error
    whole = np.isfinite(vertices).all(axis=1)
    faces = faces[whole[faces].all(axis=1)]
    if not len(faces):
        raise Unusable("it has no triangles")
    corner_uv = None if uv is None else uv[faces]
    used, faces = np.unique(faces, return_inverse=True)
    points, first, joined = np.unique(
        vertices[used], axis=0, return_index=True, return_inverse=True
    )
    faces = joined.reshape(-1)[faces.reshape(-1, 3)]
    return Scan(
        name or path.name,
        points,
        faces,
        np.full((51, 3), np.nan),
        colors=None if colors is None else colors[used][first],
        texture=texture,
        corner_uv=corner_uv,
    )


def _parts_of(loaded: Any) -> list[tuple[Any, np.ndarray]]:
    """The triangle meshes of a file, and (4, 4) where each belongs."""
    import trimesh

    if not isinstance(loaded, trimesh.Scene):
        parts = [(loaded, np.eye(4))]
    else:
        placed = [loaded.graph[node] for node in loaded.graph.nodes_geometry]
        parts = [(loaded.geometry[name], pose) for pose, name in placed]
    return [p for p in parts if isinstance(p[0], trimesh.Trimesh) and len(p[0].faces)]


def _texture_of(mesh: Any, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """uv (V, 2) with v up, and the texture (h, w, 3) sRGB; None where a mesh has none."""
    uv = getattr(mesh.visual, "uv", None)
    if uv is None:
        return None, None
    material = mesh.visual.material
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    # trimesh has a stand-in of 2 px for pictures that are missing
    real = picture is not None and min(picture.size) > _STAND_IN
    texture = np.asarray(picture.convert("RGB")) if real else None
    for beside in (path.with_suffix(s) for s in _IMAGES):  # what an .obj names is often not there
        if texture is None and beside.exists():
            texture = read_rgb(beside)
    if texture is None:
        return None, None
    factor = MAX_TEXTURE / max(texture.shape[:2])
    if factor < 1:
        texture = cv2.resize(texture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(uv, np.float64), np.ascontiguousarray(texture)


def _colors_of(parts: list[Any], *, linear: bool) -> np.ndarray | None:
    """(V, 3) sRGB of the vertices of all parts; None if one has none. glTF's are linear."""
    found = []
    for part in parts:
        if part.visual.kind in ("vertex", "face"):
            colors = np.asarray(part.visual.vertex_colors)
        else:  # glTF with a material beside the colours
            colors = dict(getattr(part.visual, "vertex_attributes", {}).items()).get("color")
        if colors is None:
            return None
        full = np.iinfo(colors.dtype).max if colors.dtype.kind == "u" else 1.0
        found.append(np.asarray(colors)[:, :3] / full)
    s = np.concatenate(found)
    if linear:
        s = np.where(s <= 0.0031308, 12.92 * s, 1.055 * s ** (1 / 2.4) - 0.055)
    return np.rint(255 * s).astype(np.uint8)


# === The head frame ===


def place(scan: Scan, reconstructor: Any, unit: str = "auto") -> Placed:
    """Brings a scan to the head frame, in mm, and completes it."""
    model = reconstructor.head_model
    marks = _best_view(scan, reconstructor)
    for _ in range(_LOOKS):
        look = _look(scan, *marks.face_camera())
        if look.faces_camera < 0.5:
            _turn_inside_out(scan)
        marks = _marks_in(look, reconstructor) or marks
    if marks.rms > MAX_LANDMARK_RMS:
        raise Unusable(f"landmarks on it are {marks.rms:.1f} mm RMS off those of a head")
    name, mm = guess_unit(marks.head_from_scan[0]) if unit == "auto" else (unit, UNITS[unit])
    # the unit, not the model's face, says how large the head is
    _, rotation, shift = similarity(mm * marks.on_scan, marks.on_head, scale=False)
    scan.vertices = mm * scan.vertices @ rotation.T + shift
    scan.landmarks[marks.rows] = mm * marks.on_scan @ rotation.T + shift
    mean = model.landmark_basis("68").mean.astype(np.float64)[17:]
    tip = NOSE_TIP - 17  # what is measured lies round it
    if not marks.rows[tip]:
        scan.landmarks[tip] = Surface(scan.vertices, scan.faces).closest(mean[tip : tip + 1])[1][0]
    scan.measured = _outside(scan)
    if len(scan.face) < MIN_LANDMARKS:
        raise Unusable(f"it has only {len(scan.face)} vertices on its face")
    mean_face = face_surface(model, model.vertices())
    straighten(scan, mean_face, mean)
    gap = np.linalg.norm(scan.face - mean_face.closest(scan.face)[1], axis=1)
    if np.median(gap) > MAX_MEAN_FACE:
        raise Unusable(f"the mean face lies {np.median(gap):.1f} mm off it (median): no head?")
    colors = "texture" if scan.texture is not None else "vertices"
    if scan.texture is None and scan.colors is None:
        colors, scan.colors = "none", skin_colors(scan, model)
    return Placed(
        name,
        round(mm, 4),
        round(marks.rms, 2),
        round(float(np.median(gap)), 2),
        colors,
        len(scan.vertices),
    )


def guess_unit(mm_per_unit: float) -> tuple[str, float]:
    """The unit that a size of the head suggests, and its mm; "head" and that size if none does."""
    name = min(UNITS, key=lambda u: abs(np.log(UNITS[u] / mm_per_unit)))
    off = max(UNITS[name] / mm_per_unit, mm_per_unit / UNITS[name])
    return (name, UNITS[name]) if off < UNIT_TOLERANCE else ("head", mm_per_unit)


@dataclass(frozen=True, eq=False)
class _Marks:
    """Landmarks of the face that a picture shows, on the scan and on the head fitted to it."""

    rows: np.ndarray  # (51,) bool, of which landmarks they are: the 68 without the jaw
    on_scan: np.ndarray  # (n, 3) in the scan's own frame
    on_head: np.ndarray  # (n, 3) mm, head frame

    @cached_property
    def head_from_scan(self) -> tuple[float, np.ndarray, np.ndarray]:
        return similarity(self.on_scan, self.on_head)

    @cached_property
    def rms(self) -> float:
        """mm, after the similarity."""
        s, rotation, shift = self.head_from_scan
        gap = s * self.on_scan @ rotation.T + shift - self.on_head
        return float(np.sqrt((gap**2).sum(1).mean()))

    def face_camera(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Arguments of `_look` for a picture of the face from its front."""
        s, rotation, shift = self.head_from_scan
        center = (FACE_CENTER - shift) @ rotation / s
        return CAMERA_FROM_FRONTAL_HEAD @ rotation, center, FACE_SPAN / s


def _best_view(scan: Scan, reconstructor: Any) -> _Marks:
    """Landmarks of the face, from whichever side it is seen best.

    A mask seen from behind looks like a face too; its landmarks lie on no head.
    """
    detector = FaceDetector()
    low, high = scan.vertices.min(0), scan.vertices.max(0)
    center, span = (low + high) / 2, SPAN * float(np.max(high - low))
    best: _Marks | None = None
    for rotation in (r @ first for first in (np.eye(3), _ASKEW) for r in AXIS_ROTATIONS):
        look = _look(scan, rotation, center, span)
        # the estimator searches on where the detector finds nothing: that is for photos
        marks = _marks_in(look, reconstructor) if detector.detect(look.image) else None
        if marks and (best is None or marks.rms < best.rms):
            best = marks
            if best.rms < _GOOD_RMS:
                return best
    if best is None:
        raise Unusable("no face is seen from any side")
    return best


def _look(scan: Scan, rotation: np.ndarray, center: np.ndarray, span: float) -> _Look:
    """A picture whose camera, turned by `rotation`, has `center` before it and spans `span`."""
    scale = _DISTANCE / 5 / span  # the span is a fifth of the distance: little perspective
    focal = _SIDE * 5.0
    camera = Camera(focal, focal, _SIDE / 2, _SIDE / 2, _SIDE, _SIDE)
    in_camera = scale * (scan.vertices - center) @ rotation.T + [0, 0, _DISTANCE]
    raster = rasterize(
        in_camera.astype(np.float32), scan.faces.astype(np.int32), camera, cull_back_faces=False
    )
    hit = raster.triangle >= 0
    triangle = raster.triangle[hit]
    uv = raster.barycentric[hit].astype(np.float64)
    weights = np.column_stack([uv, 1 - uv.sum(1)])
    corners = in_camera[scan.faces[triangle]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    towards = -(normal * corners.mean(1)).sum(1) / np.linalg.norm(corners.mean(1), axis=1)
    if scan.texture is not None and scan.corner_uv is not None:
        albedo = sample_texture(
            scan.texture, np.einsum("nk,nkd->nd", weights, scan.corner_uv[triangle])
        )
    elif scan.colors is not None:
        albedo = np.einsum("nk,nkd->nd", weights, scan.colors[scan.faces[triangle]].astype(float))
    else:
        albedo = np.tile(_CLAY, (len(triangle), 1))
    image = np.full((_SIDE, _SIDE, 3), _WHITE, np.uint8)
    image[hit] = np.clip(albedo * (0.4 + 0.6 * np.abs(towards))[:, None], 0, 255)
    points = np.full((_SIDE, _SIDE, 3), np.nan)
    points[hit] = np.einsum("nk,nkd->nd", weights, scan.vertices[scan.faces[triangle]])
    return _Look(image, points, float((towards > 0).mean()) if len(towards) else 1.0)


def _marks_in(look: _Look, reconstructor: Any) -> _Marks | None:
    """Landmarks of the face that a picture shows; None where there is none, or next to none."""
    from extreme3d_fast import NoFaceFound

    try:
        foundation = reconstructor.estimate_foundation(look.image)
    except NoFaceFound:
        return None
    model = reconstructor.head_model
    pixels = np.floor(in_photo(foundation, model).landmarks[17:]).astype(int)
    inside = ((pixels >= 0) & (pixels < _SIDE)).all(axis=1)
    x, y = np.where(inside[:, None], pixels, 0).T
    on_scan = look.points[y, x]
    possible = inside & np.isfinite(on_scan).all(axis=1)
    possible[_INNER_LIPS] = False
    if possible.sum() < MIN_LANDMARKS:
        return None
    rows = possible
    head = model.landmark_basis("68").positions(foundation.identity, foundation.expression)
    on_head = np.asarray(head, np.float64)[17:]
    for _ in range(_TRIMS):
        s, rotation, shift = similarity(on_scan[rows], on_head[rows])
        gap = np.linalg.norm(s * on_scan @ rotation.T + shift - on_head, axis=1)
        gap = np.where(possible, gap, np.inf)
        rows = gap <= np.sort(gap[possible])[int(_KEPT * possible.sum()) - 1]
    return _Marks(rows, on_scan[rows], on_head[rows])


def _turn_inside_out(scan: Scan) -> None:
    scan.faces = np.ascontiguousarray(scan.faces[:, ::-1])
    if scan.corner_uv is not None:
        scan.corner_uv = np.ascontiguousarray(scan.corner_uv[:, ::-1])


def _outside(scan: Scan) -> np.ndarray:
    """(V,) bool: what can be seen of a scan in the head frame; not the inside of a mouth or a
    second shell."""
    camera = Camera(*(_SIDE * 5.0,) * 2, *(_SIDE / 2,) * 2, _SIDE, _SIDE)
    seen = np.zeros(len(scan.vertices), bool)
    faces, normals = scan.faces.astype(np.int32), scan.normals.astype(np.float64)
    for yaw in _SEEN_YAWS:
        rotation = rotation_from_angles(yaw)
        points = (scan.vertices - FACE_CENTER) @ rotation.T + [0, 0, _DISTANCE]
        points = points.astype(np.float32)
        depth = rasterize(points, faces, camera).depth
        seen |= vertex_visibility(points, (normals @ rotation.T).astype(np.float32), depth, camera)
    return seen
