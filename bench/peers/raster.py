"""Depth, triangle and weights of each pixel: our rasteriser, Open3D's rays, pyrender's OpenGL."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import cv2
import numpy as np

from bench.peers.contest import Agreement, Contender, Contest, gather, load
from bench.peers.settings import Settings, captured

NAME = "raster"
HELP = "depth, triangle and weights of each pixel: Open3D, pyrender"
THREADS = "both"
PACKAGES = ("open3d", "pyrender", "PyOpenGL")

OURS = "ours"
OTHER_PIXELS = 0.01  # share of the pixels that may see another surface: at edges, rules differ
SAME_MM = 0.05  # of depth
SAME_WEIGHT = 0.02  # of barycentric weights, on the same triangle; triangles are pixels in size
OTHER_PIXELS_GL = 0.02  # samples beside the centre miss the face, or hit it, at its outline
RING = np.ones((3, 3), np.uint8)


class Scene(NamedTuple):
    vertices: np.ndarray  # (V, 3) float32 mm, camera frame
    faces: np.ndarray  # (F, 3) int32
    camera: Any
    threads: int


def contest(settings: Settings) -> Contest:
    from extreme3d_fast.rasterize import Raster, rasterize

    found, photo = captured(settings, "rasterize")
    given = found["rasterize"].given
    scene = Scene(given["vertices_in_camera"], given["faces"], given["camera"], settings.threads)
    image = (scene.camera.height, scene.camera.width)
    memory = Raster(
        np.empty(image, np.float32), np.empty(image, np.int32), np.empty((*image, 2), np.float32)
    )

    def ours() -> Raster:
        # rays hit both sides of a face: no culling, though the pipeline culls
        return rasterize(
            scene.vertices,
            scene.faces,
            scene.camera,
            cull_back_faces=False,
            threads=scene.threads,
            out=memory,
        )

    truth = Raster(*(a.copy() for a in ours()))
    peers, missing = gather(
        {"Open3D": lambda: _open3d(scene, truth), "pyrender": lambda: _pyrender(scene, truth)}
    )
    return Contest(
        given=f"{photo}: {scene.camera.width} x {scene.camera.height} pixels, "
        f"{len(scene.vertices):,} vertices, {len(scene.faces):,} faces, both sides of faces drawn",
        ours=[Contender(OURS, ours, "depth, triangle and weights of all pixels, arrays reused")],
        peers=peers,
        missing=missing,
        least_ms=20.0,
    )


def _open3d(scene: Scene, truth: Any) -> list[Contender]:
    o3d = load("open3d", "open3d")
    camera = scene.camera
    rays = np.zeros((camera.height, camera.width, 6), np.float32)
    rays[..., 3] = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    rays[..., 4] = ((np.arange(camera.height) + 0.5 - camera.cy) / camera.fy)[:, None]
    rays[..., 5] = 1  # so that distances are depths
    rays = o3d.core.Tensor(rays)
    vertices = o3d.core.Tensor(scene.vertices)
    faces = o3d.core.Tensor(scene.faces.astype(np.uint32))

    def build() -> Any:
        made = o3d.t.geometry.RaycastingScene(nthreads=scene.threads)
        made.add_triangles(vertices, faces)
        return made

    ready = build()
    ready.cast_rays(rays)  # the tree is built on the first use

    def agreement(answer: Any) -> Agreement:
        depth = answer["t_hit"].numpy()
        triangle = answer["primitive_ids"].numpy().astype(np.int64)
        note = _weights_note(answer["primitive_uvs"].numpy(), triangle, scene, truth)
        return _pixels(depth, truth.depth, OTHER_PIXELS, note)

    def whole() -> Any:
        return build().cast_rays(rays)

    return [
        Contender(
            "Open3D RaycastingScene",
            whole,
            "tree of the mesh (which moves with each photo) and one ray a pixel; rays prepared",
            OURS,
            agreement,
        ),
        Contender(
            "Open3D, rays alone",
            lambda: ready.cast_rays(rays),
            "rays into a tree that is there already, as if the mesh did not move",
            OURS,
            agreement,
        ),
    ]


def _weights_note(uv: np.ndarray, triangle: np.ndarray, scene: Scene, truth: Any) -> str:
    """How far barycentric weights differ where both see the same triangle.

    Ours are linear in the image (Eq. 6), Open3D's on the surface: a corner's share on the surface
    is its share in the image times its depth, or 1/z would not be linear.
    """
    same = (triangle == truth.triangle) & (truth.triangle >= 0)
    screen = truth.barycentric[same]
    screen = np.c_[screen, 1 - screen.sum(1)]
    surface = screen / scene.vertices[scene.faces[truth.triangle[same]], 2]
    surface /= surface.sum(1, keepdims=True)
    # their u and v are of the second and third corner
    error = np.abs(surface[:, 1:] - uv[same]).max(1)
    share = same.sum() / max((truth.triangle >= 0).sum(), 1)
    return (
        f"same triangle in {share:.2%} of the pixels, weights there within {SAME_WEIGHT} in "
        f"{(error <= SAME_WEIGHT).mean():.2%}"
    )


def _pixels(
    depth: np.ndarray, truth: np.ndarray, tolerance: float, note: str, *, loose: bool = False
) -> Agreement:
    """Share of the pixels that see another depth, or something where the other sees nothing.

    loose: depths of the pixels round about will do.
    """
    seen, expected = np.isfinite(depth), np.isfinite(truth)
    other = seen != expected
    both = seen & expected
    nearest, furthest = (cv2.erode(truth, RING), cv2.dilate(truth, RING)) if loose else (truth,) * 2
    other[both] = (depth[both] < nearest[both] - SAME_MM) | (depth[both] > furthest[both] + SAME_MM)
    share = other.sum() / max((seen | expected).sum(), 1)
    return Agreement(
        float(share), tolerance, f"of the pixels see another depth (> {SAME_MM} mm)", note
    )


def _pyrender(scene: Scene, truth: Any) -> list[Contender]:
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    os.environ["LP_NUM_THREADS"] = str(scene.threads)  # Mesa's rasteriser on the CPU
    pyrender = load("pyrender", "pyrender")
    camera = scene.camera
    z = scene.vertices[:, 2]
    near, far = float(z.min()) * 0.95, float(z.max()) * 1.05  # all its depth bits for the head
    lens = pyrender.IntrinsicsCamera(
        camera.fx, camera.fy, camera.cx, camera.cy, znear=near, zfar=far
    )
    positions = np.ascontiguousarray(scene.vertices * np.float32([1, -1, -1]))  # OpenGL's axes
    flags = pyrender.RenderFlags.DEPTH_ONLY | pyrender.RenderFlags.SKIP_CULL_FACES
    renderer = pyrender.OffscreenRenderer(camera.width, camera.height)

    def build() -> Any:
        made = pyrender.Scene()
        # smooth, without normals: nothing but positions goes to the device
        shape = pyrender.Primitive(positions=positions, indices=scene.faces, mode=4)
        made.add(pyrender.Mesh([shape]))
        made.add(lens)
        return made

    ready = build()

    def draw(of: Any) -> np.ndarray:
        depth = renderer.render(of, flags=flags)
        return np.where(depth > 0, depth, np.float32(np.inf))

    driver = _driver(lambda: renderer.render(ready, flags=flags))

    def agreement(depth: np.ndarray) -> Agreement:
        note = (
            "depth alone, and not at the centres of pixels (of several samples it keeps one), so "
            "set against ours of the pixels round about"
        )
        return _pixels(depth, truth.depth, OTHER_PIXELS_GL, note, loose=True)

    return [
        Contender(
            "pyrender",
            lambda: draw(build()),
            f"mesh to the device, drawn, depth read back ({driver}); ours gives triangle and "
            "weights too",
            OURS,
            agreement,
        ),
        Contender(
            "pyrender, drawing alone",
            lambda: draw(ready),
            f"mesh on the device already, as if it did not move ({driver})",
            OURS,
            agreement,
        ),
    ]


def _driver(draw: Any) -> str:
    """What draws: with a graphics card, the comparison is another one."""
    from OpenGL.GL import GL_RENDERER, glGetString

    draw()  # makes the context
    return bytes(glGetString(GL_RENDERER)).decode()
