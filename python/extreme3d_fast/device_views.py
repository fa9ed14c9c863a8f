"""Pictures of coloured meshes on a device; the same ones as `render` draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import UInt8
from extreme3d_fast.device import Device, DeviceArray
from extreme3d_fast.mesh_io import Mesh, merged
from extreme3d_fast.render import (
    SHEET_SHADINGS,
    SHEET_YAWS,
    SUPERSAMPLE,
    VIEW_DISTANCE,
    WHITE,
    Rgb,
    Shading,
    require_view,
    sheet_of,
    turned_head,
    view_camera,
)

__all__ = ["DeviceMesh", "ViewRenderer"]


class DeviceMesh(NamedTuple):
    """A `Mesh` in device memory, written on the stream of the renderer's device.

    Its indices are not checked.
    """

    vertices: DeviceArray
    faces: DeviceArray
    colors: DeviceArray


class ViewRenderer:
    """Draws meshes on a device, one call at a time; its memory grows with what it is given.

    Args:
        device: where it draws.

    >>> from extreme3d_fast.device import Device
    >>> views = ViewRenderer(Device("cuda"))              # doctest: +SKIP
    >>> views.render_meshes(face.meshes, yaw=30.0)        # doctest: +SKIP
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory: dict[str, tuple[int, DeviceArray]] = {}  # number of elements, and they
        self._room = (0, 0, 0)  # vertices, faces and size that it is made for
        self._renderer: Any = None
        self._rasterizer: Any = None

    def render_meshes(
        self,
        meshes: Mapping[str, Mesh] | DeviceMesh,
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        size: int = 512,
        shading: Shading = "color",
        background: Rgb = WHITE,
    ) -> UInt8:
        """As `render.render_meshes`, but for what rounding decides: (size, size, 3) uint8 RGB."""
        views = self.render_views(
            meshes, [(yaw, pitch)], size=size, shading=shading, background=background
        )
        return np.asarray(views[0])

    def turntable_sheet(
        self,
        meshes: Mapping[str, Mesh] | DeviceMesh,
        photo: npt.NDArray[np.uint8] | None = None,
        *,
        yaws: Sequence[float] = SHEET_YAWS,
        size: int = 320,
        background: Rgb = WHITE,
    ) -> UInt8:
        """As `render.turntable_sheet`: (H, W, 3) uint8 RGB."""
        mesh = self._put(meshes)
        angles = [(yaw, 0.0) for yaw in yaws]
        rows = [
            self.render_views(mesh, angles, size=size, shading=shading, background=background)
            for shading in SHEET_SHADINGS
        ]
        return sheet_of(rows, photo, background)

    def render_views(
        self,
        meshes: Mapping[str, Mesh] | DeviceMesh,
        angles: Sequence[tuple[float, float]],
        *,
        size: int = 512,
        shading: Shading = "color",
        background: Rgb = WHITE,
    ) -> UInt8:
        """Draws meshes together, from several sides.

        Args:
            meshes: name to mesh, or one mesh in device memory; mm, head frame.
            angles: yaw and pitch of each view, degrees; see `render.render_meshes`.
            size: width and height of a picture, px.
            shading: "color" shows the vertex colours, "clay" the shape alone under studio lights.
            background: sRGB colour, 0 to 255.

        Returns:
            (K, size, size, 3) uint8 RGB.

        Raises:
            ValueError: Wrong mesh arrays, angles, size, shading or background.
        """
        require_view(angles, size, shading, background)
        mesh = self._put(meshes)
        device, ops, stream = self._device, self._device.ops, self._device.stream
        count, fine = len(angles), SUPERSAMPLE * size
        n_vertices, n_faces = ops.shape(mesh.vertices)[0], ops.shape(mesh.faces)[0]
        if n_vertices == 0:
            raise ValueError("meshes should have at least one vertex")
        self._make_room(n_vertices, n_faces, size)
        pinhole = np.array(view_camera(size).pinhole, np.float32)
        turns = np.array([turned_head(*angle) for angle in angles], np.float32).reshape(-1, 3, 3)

        counts = self._upload("counts", np.array([n_vertices, n_faces], np.int32))
        pinholes = self._upload("pinholes", np.stack([pinhole, SUPERSAMPLE * pinhole]))
        coarse, sampled = (ops.slice(pinholes, k, k + 1, [4]) for k in range(2))
        poses = self._take("poses", (count, 4, 4))
        in_camera = self._take("in_camera", (n_vertices, 3))
        samples = (
            self._take("depth", (fine, fine)),
            self._take("triangle", (fine, fine), "int32"),
            self._take("barycentric", (fine, fine, 2)),
        )
        pictures = self._take("pictures", (count, size, size, 3), "uint8")
        ops.frame_views(
            mesh.vertices,
            ops.slice(counts, 0, 1),
            self._upload("turns", turns),
            VIEW_DISTANCE,
            self._take("bounds", (7,), "int32"),
            poses,
            stream,
        )
        self._renderer.prepare(mesh.faces, ops.slice(counts, 1, 2), n_vertices, stream)
        for k in range(count):
            pose = ops.slice(poses, k, k + 1, [4, 4])
            ops.transform_points(pose, mesh.vertices, in_camera, stream)
            self._rasterizer.rasterize(
                in_camera, mesh.faces, sampled, *samples, cull_back_faces=False, stream=stream
            )
            self._renderer.shade(
                in_camera,
                mesh.faces,
                mesh.colors,
                *samples,
                coarse,
                shading == "clay",
                background,
                ops.slice(pictures, k, k + 1, [size, size, 3]),
                stream,
            )
        return device.get(pictures, np.uint8)

    def _put(self, meshes: Mapping[str, Mesh] | DeviceMesh) -> DeviceMesh:
        if isinstance(meshes, DeviceMesh):
            return meshes
        mesh = merged(meshes)
        on_device = DeviceMesh(
            self._upload("vertices", mesh.vertices),
            self._upload("faces", mesh.faces),
            self._upload("colors", mesh.colors),
        )
        self._device.wait()  # the arrays may be temporaries
        return on_device

    def _make_room(self, n_vertices: int, n_faces: int, size: int) -> None:
        """Heads differ by a few vertices, and pictures mostly are all of one size."""
        vertices, faces, old_size = self._room
        fits = n_vertices <= vertices and n_faces <= faces
        if fits and size == old_size:
            return
        if not fits:
            vertices, faces = max(vertices, _rounded(n_vertices)), max(faces, _rounded(n_faces))
        ops, fine = self._device.ops, SUPERSAMPLE * size
        self._room = (0, 0, 0)  # should memory run out
        self._renderer = self._rasterizer = None
        self._renderer = ops.Renderer(vertices, faces, size)
        self._rasterizer = ops.Rasterizer(vertices, faces, fine, fine)
        self._room = (vertices, faces, size)

    def _take(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> DeviceArray:
        """An array of this name, which is kept between calls."""
        n = math.prod(shape)
        have, memory = self._memory.get(name, (-1, None))
        if n > have:
            self._memory.pop(name, None)  # frees it first
            del memory
            have = _rounded(n)
            memory = self._device.empty(have, dtype)
            self._memory[name] = (have, memory)
        return self._device.ops.slice(memory, 0, n, list(shape))

    def _upload(self, name: str, values: npt.NDArray[Any]) -> DeviceArray:
        target = self._take(name, values.shape, values.dtype.name)
        self._device.ops.upload(np.ascontiguousarray(values), target, self._device.stream)
        return target


def _rounded(n: int) -> int:
    """Room for n, and for a bit more."""
    return n + n // 8
