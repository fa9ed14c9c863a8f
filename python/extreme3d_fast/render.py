"""Pictures of coloured meshes, drawn in software: single views, turntables and sheets of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from extreme3d_fast import _core
from extreme3d_fast._arrays import Float32, UInt8
from extreme3d_fast.camera import Camera
from extreme3d_fast.mesh_io import Mesh, merged

__all__ = ["Shading", "render_meshes", "turntable_sheet", "view_of"]

Shading: TypeAlias = Literal["color", "clay"]
Rgb: TypeAlias = tuple[int, int, int]

WHITE: Rgb = (255, 255, 255)
SHEET_YAWS = (-90.0, -60.0, -30.0, 0.0, 30.0, 60.0, 90.0)
SHEET_SHADINGS: tuple[Shading, ...] = ("color", "clay")

# The viewer stands this many radii of the head's bounding sphere away: about 0.8 m, where portraits
# are taken from.
VIEW_DISTANCE = 5.0
_MARGIN = 0.98
SUPERSAMPLE = 2  # samples a pixel, along each axis


def view_of(vertices: Float32, yaw: float, pitch: float, size: int) -> tuple[Camera, Float32]:
    """A camera that frames the vertices, the same distance and zoom for every yaw and pitch.

    Args:
        vertices: (V, 3) float32, mm, head frame.
        yaw: Degrees; positive turns the head to its own left, which is the picture's right.
        pitch: Degrees; positive turns the head to look up.
        size: Width and height of the picture, px.

    Returns:
        The camera, and camera_from_head (4, 4) float32.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    center = 0.5 * (low + high)
    offset = vertices - center
    radius = max(float(np.sqrt(np.einsum("ij,ij->i", offset, offset).max())), 1e-3)
    camera_from_head = np.eye(4, dtype=np.float32)
    camera_from_head[:3, :3] = turned_head(yaw, pitch)
    camera_from_head[:3, 3] = [0, 0, VIEW_DISTANCE * radius] - camera_from_head[:3, :3] @ center
    return view_camera(size), camera_from_head


def turned_head(yaw: float, pitch: float) -> npt.NDArray[np.float64]:
    """(3, 3) rotation from the head's frame to the camera's; see `view_of`."""
    cos_yaw, sin_yaw = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    cos_pitch, sin_pitch = np.cos(np.radians(-pitch)), np.sin(np.radians(-pitch))
    turn = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    nod = np.array([[1, 0, 0], [0, cos_pitch, -sin_pitch], [0, sin_pitch, cos_pitch]])
    return np.asarray(np.diag([1.0, -1.0, -1.0]) @ nod @ turn)


def view_camera(size: int) -> Camera:
    """The camera of all views of that size."""
    # The sphere's outline is the cone of sine radius / distance.
    focal = _MARGIN * 0.5 * size * np.sqrt(VIEW_DISTANCE**2 - 1.0)
    return Camera(focal, focal, 0.5 * size, 0.5 * size, size, size)


def require_view(
    angles: Sequence[tuple[float, float]], size: int, shading: Shading, background: Rgb
) -> None:
    """Raises ValueError for what cannot be drawn; see `render_meshes`."""
    if shading not in ("color", "clay"):
        raise ValueError(f"shading should be 'color' or 'clay', is {shading!r}")
    for yaw, pitch in angles:
        if not (np.isfinite(yaw) and np.isfinite(pitch)):
            raise ValueError(f"yaw and pitch should be finite, are {yaw} and {pitch}")
    if not 1 <= size <= 8192:
        raise ValueError(f"size should be from 1 to 8192 pixels, is {size}")
    if len(background) != 3 or not all(0 <= c <= 255 for c in background):
        raise ValueError(f"background should be three numbers in [0, 255], is {background}")


def render_meshes(
    meshes: Mapping[str, Mesh],
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    size: int = 512,
    shading: Shading = "color",
    background: Rgb = WHITE,
    threads: int = 2,
) -> UInt8:
    """Draw meshes together, framed as a head.

    Args:
        meshes: Name to mesh, mm, head frame.
        yaw: Degrees; positive turns the head to its own left, which is the picture's right.
        pitch: Degrees; positive turns the head to look up.
        size: Width and height of the picture, px.
        shading: "color" shows the vertex colours, "clay" the shape alone under studio lights.
        background: sRGB colour, 0 to 255.
        threads: Number of threads; the picture is the same for any.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ValueError: Wrong mesh arrays, angles, size, shading or background.
    """
    require_view([(yaw, pitch)], size, shading, background)
    mesh = merged(meshes)
    camera, camera_from_head = view_of(mesh.vertices, yaw, pitch, size)
    # Column by column: a BLAS call would start its threads for this little work.
    in_camera = np.tile(camera_from_head[:3, 3], (len(mesh.vertices), 1))
    for axis in range(3):
        in_camera += mesh.vertices[:, axis, None] * camera_from_head[:3, axis]
    return np.asarray(
        _core.render(
            in_camera,
            mesh.faces,
            mesh.colors,
            *camera.pinhole,
            size,
            size,
            clay=shading == "clay",
            supersample=SUPERSAMPLE,
            background=background,
            threads=threads,
        )
    )


def turntable_sheet(
    meshes: Mapping[str, Mesh],
    photo: npt.NDArray[np.uint8] | None = None,
    *,
    yaws: Sequence[float] = SHEET_YAWS,
    size: int = 320,
    background: Rgb = WHITE,
    threads: int = 2,
) -> UInt8:
    """Views from several sides in one picture: colours above, clay below, the photo at the left.

    Args:
        meshes: Name to mesh, mm, head frame.
        photo: (H, W, 3) uint8 RGB, shown at the height of both rows; None leaves it out.
        yaws: Degrees, one column each.
        size: Height of a view before its empty border is cut off, px.
        background: sRGB colour, 0 to 255.
        threads: Number of threads.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: Wrong mesh arrays, size or background.
    """
    rows = [
        np.stack(
            [
                render_meshes(
                    meshes,
                    yaw=yaw,
                    size=size,
                    shading=shading,
                    background=background,
                    threads=threads,
                )
                for yaw in yaws
            ]
        )
        for shading in SHEET_SHADINGS
    ]
    return sheet_of(rows, photo, background)


def sheet_of(rows: list[UInt8], photo: npt.NDArray[np.uint8] | None, background: Rgb) -> UInt8:
    """Rows of (K, S, S, 3) views as one picture; see `turntable_sheet`."""
    size = rows[1].shape[1]
    # One cut for all views, so that they stay at one scale and height.
    drawn = (rows[1] != np.array(background, np.uint8)).any(axis=(0, 3))
    if drawn.any():
        pad = max(size // 64, 1)
        top, bottom = _extent(drawn.any(axis=1), pad)
        left, right = _extent(drawn.any(axis=0), pad)
        rows = [row[:, top:bottom, left:right] for row in rows]
    sheet = np.vstack([np.hstack(list(row)) for row in rows])
    if photo is None:
        return sheet
    scale = sheet.shape[0] / photo.shape[0]
    width = max(round(photo.shape[1] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.hstack([cv2.resize(photo, (width, sheet.shape[0]), interpolation=method), sheet])


def _extent(used: npt.NDArray[np.bool_], pad: int) -> tuple[int, int]:
    at = np.flatnonzero(used)
    return max(int(at[0]) - pad, 0), min(int(at[-1]) + 1 + pad, len(used))
