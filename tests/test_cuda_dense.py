"""Dense mesh, sparse mesh, registration and completion on device arrays against the host's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from portrait_stages import portrait_stages

from extreme3d_fast.camera import Camera
from extreme3d_fast.completion import complete_dense
from extreme3d_fast.dense import DenseMesh, compose_depth, dense_mesh
from extreme3d_fast.device import Device, DeviceArray
from extreme3d_fast.mesh import erode_mask, transform_points, vertex_faces
from extreme3d_fast.rasterize import Raster
from extreme3d_fast.registration import register_dense
from extreme3d_fast.sparse import sparse_from_dense

Float32 = NDArray[np.float32]
INF = np.float32(np.inf)
# Sums of three products of some hundred mm: a few roundings of 3e-5 mm each.
ROUNDING = 2e-4
HEAD_FROM_CAMERA = np.array(
    [[1, 0, 0, -3], [0, -0.6, 0.8, 5], [0, -0.8, -0.6, 600], [0, 0, 0, 1]], np.float32
)


def put_pinhole(device: Device, camera: Camera) -> DeviceArray:
    return device.put(np.array(camera.pinhole, np.float32))


def meshed(
    device: Device, depth: Float32, camera: Camera, max_slope: float, frame: Float32 | None = None
) -> tuple[Float32, NDArray[np.int32], NDArray[np.int32]]:
    """Vertices, vertex of each pixel and pixel of each vertex."""
    pixels = depth.size
    out = [
        device.empty((pixels, 3)),
        device.empty(depth.shape, "int32"),
        device.empty(pixels, "int32"),
        device.empty(1, "int32"),
    ]
    device.ops.DenseMesher(camera.width, camera.height).mesh(
        device.put(depth),
        put_pinhole(device, camera),
        max_slope,
        *out,
        frame_from_camera=None if frame is None else device.put(frame),
        stream=device.stream,
    )
    count = int(device.get(out[3], np.int32)[0])
    vertices, vertex_of_pixel, pixel_of_vertex = (
        device.get(array, dtype)
        for array, dtype in zip(out[:3], (np.float32, np.int32, np.int32), strict=True)
    )
    return vertices[:count], vertex_of_pixel, pixel_of_vertex[:count]


def assert_meshed_as_on_the_host(
    device: Device, depth: Float32, camera: Camera, max_slope: float = 8.0
) -> DenseMesh:
    expected = dense_mesh(depth, camera, max_slope=max_slope)
    vertices, vertex_of_pixel, pixel_of_vertex = meshed(device, depth, camera, max_slope)
    np.testing.assert_array_equal(vertex_of_pixel, expected.vertex_of_pixel)
    np.testing.assert_array_equal(pixel_of_vertex, np.flatnonzero(expected.vertex_of_pixel >= 0))
    np.testing.assert_allclose(vertices, expected.vertices, rtol=1e-6, atol=1e-6)
    return expected


def test_depth_is_composed_on_the_face_alone(device: Device) -> None:
    depth = np.array([[500, INF, 600], [700, 800, 900]], np.float32)
    weight = np.array([[1, 1, 0.2], [0, 0.5, 0]], np.float32)
    bump = np.array([[1.5, 3, -2], [4, 0, 1]], np.float32)
    out = device.empty((2, 3))
    device.ops.compose_depth(*map(device.put, (depth, weight, bump)), out, device.stream)
    np.testing.assert_array_equal(
        device.get(out), compose_depth(np.where(weight > 0, depth, INF), bump)
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2), (9, 12), (16, 16), (23, 31)])
@pytest.mark.parametrize("hidden", [0.0, 0.1, 0.4, 1.0])
def test_dense_mesh_of_any_depth_is_the_hosts(
    device: Device, rng: np.random.Generator, shape: tuple[int, int], hidden: float
) -> None:
    camera = Camera(100.0, 110.0, 6.0, 4.5, shape[1], shape[0])
    for step in (0.0, 5.0, 20.0):  # mm; 24 and 30 are torn at 300 mm
        depth = rng.normal(300, step, shape).astype(np.float32)
        depth[rng.random(shape) < hidden] = rng.choice([np.inf, np.nan, 0.5, -3])
        assert_meshed_as_on_the_host(device, depth, camera)


def test_dense_mesh_can_be_had_in_another_frame(device: Device, rng: np.random.Generator) -> None:
    camera = Camera(100.0, 110.0, 6.0, 4.5, 12, 9)
    depth = rng.normal(300, 3, (9, 12)).astype(np.float32)
    vertices, _, _ = meshed(device, depth, camera, 8.0, HEAD_FROM_CAMERA)
    expected = transform_points(HEAD_FROM_CAMERA, dense_mesh(depth, camera).vertices)
    np.testing.assert_allclose(vertices, expected, atol=ROUNDING)


def put_sparse(
    device: Device,
    vertices: Float32,
    visible: NDArray[np.bool_],
    bump: Float32,
    weight: Float32,
    camera: Camera,
) -> tuple[Float32, NDArray[np.bool_]]:
    out, moved = device.empty(vertices.shape), device.empty(len(vertices), "uint8")
    device.ops.sparse_from_dense(
        *map(device.put, (vertices, visible, bump, weight)),
        put_pinhole(device, camera),
        out,
        moved,
        device.stream,
    )
    return device.get(out), device.get(moved, np.bool_)


@pytest.mark.parametrize("count", [0, 1, 257])
@pytest.mark.parametrize("shown", [0.0, 0.6, 1.0])
def test_vertices_follow_the_bump_map_as_on_the_host(
    device: Device, rng: np.random.Generator, count: int, shown: float
) -> None:
    camera = Camera(100.0, 110.0, 16.0, 11.5, 31, 23)
    vertices = rng.normal([0, 0, 300], [50, 40, 20], (count, 3)).astype(np.float32)
    vertices[::9, 2] = -1  # behind the camera
    visible = rng.random(count) < shown
    bump = rng.normal(0, 3, (23, 31)).astype(np.float32)
    weight = np.clip(rng.uniform(-0.5, 1, bump.shape), 0, 1).astype(np.float32)
    ours = put_sparse(device, vertices, visible, bump, weight, camera)
    expected = sparse_from_dense(vertices, visible, bump, weight > 0, camera)
    np.testing.assert_array_equal(ours[1], expected[1])
    np.testing.assert_allclose(ours[0], expected[0], atol=ROUNDING)


def test_detail_of_a_portrait_is_carried_as_on_the_host(device: Device) -> None:
    """From the bump map to the reflected dense mesh, as `Reconstructor` goes."""
    stages = portrait_stages()
    view, camera, model = stages.view, stages.foundation.camera, stages.reconstructor.head_model
    faces, mirror = model.faces, model.mirror[: model.skin_vertex_count]
    region = stages.reconstructor._region
    in_head = view.head[: model.skin_vertex_count]
    head_from_camera = np.linalg.inv(stages.foundation.camera_from_head.astype(np.float64))
    frame = head_from_camera.astype(np.float32)

    depth = compose_depth(np.where(view.weight > 0, view.depth, INF), stages.bump)
    composed = device.empty(depth.shape)
    put = device.put
    device.ops.compose_depth(
        put(view.depth), put(view.weight), put(stages.bump), composed, device.stream
    )
    np.testing.assert_array_equal(device.get(composed), depth)
    dense = assert_meshed_as_on_the_host(device, depth, camera)
    dense_in_head = transform_points(head_from_camera, dense.vertices)
    ours, _, pixel_of_vertex = meshed(device, depth, camera, 8.0, frame)
    np.testing.assert_allclose(ours, dense_in_head, atol=ROUNDING)

    moved_in_camera, moved = sparse_from_dense(
        view.in_camera, stages.visible, stages.bump, view.weight > 0, camera
    )
    observed = erode_mask(stages.visible & moved & region, faces)
    sparse_in_head = np.where(
        observed[:, None], transform_points(head_from_camera, moved_in_camera), in_head
    )
    count = len(in_head)
    out_sparse, out_observed = device.empty((count, 3)), device.empty(count, "uint8")
    device.ops.observe(
        *map(put, (view.in_camera, in_head, stages.visible, region, faces)),
        *map(put, vertex_faces(faces, count)),
        *map(put, (stages.bump, view.weight)),
        put_pinhole(device, camera),
        put(frame),
        device.empty((count, 3)),
        device.empty(count, "uint8"),
        out_sparse,
        out_observed,
        device.stream,
    )
    assert 0.1 < observed.mean() < 0.9
    np.testing.assert_array_equal(device.get(out_observed, np.bool_), observed)
    np.testing.assert_allclose(device.get(out_sparse), sparse_in_head, atol=ROUNDING)

    recovered = region & ~observed
    assert_reflected_as_on_the_host(
        device,
        view.raster,
        dense,
        pixel_of_vertex,
        dense_in_head,
        sparse_in_head,
        faces,
        mirror,
        recovered,
    )


def assert_reflected_as_on_the_host(
    device: Device,
    raster: Raster,
    dense: DenseMesh,
    pixel_of_vertex: NDArray[np.int32],
    dense_in_head: Float32,
    sparse: Float32,
    faces: NDArray[np.int32],
    mirror: NDArray[np.int32],
    recovered: NDArray[np.bool_],
) -> None:
    """In two steps, and in one; the arrays are longer than the mesh."""
    registration = register_dense(raster, dense, dense_in_head, sparse, faces)
    expected = complete_dense(*registration, sparse, faces, mirror, recovered)
    put = device.put
    n, room = len(dense_in_head), len(dense_in_head) + 5
    long_pixels = np.full(room, -99, np.int32)
    long_pixels[:n] = pixel_of_vertex
    long_dense = np.full((room, 3), np.nan, np.float32)
    long_dense[:n] = dense_in_head
    count = put(np.array([n], np.int32))
    seen = put(raster.triangle), put(raster.barycentric), put(long_pixels), put(long_dense)
    completed = put(sparse), put(faces), put(mirror), put(recovered)

    def empty(*last: int, dtype: str = "float32") -> DeviceArray:
        return device.empty((room, *last), dtype)

    def check(array: DeviceArray, values: NDArray[np.generic], atol: float) -> None:
        np.testing.assert_allclose(device.get(array, values.dtype)[:n], values, atol=atol)

    triangle, uv, residual = empty(dtype="int32"), empty(2), empty(3)
    device.ops.register_dense(
        *seen, *completed[:2], count, triangle, uv, residual, stream=device.stream
    )
    check(triangle, registration.triangle, 0)
    check(uv, registration.uv, 0)
    check(residual, registration.residual, ROUNDING)
    vertices, defined = empty(3), empty(dtype="uint8")
    device.ops.complete_dense(
        triangle, uv, residual, *completed, count, vertices, defined, stream=device.stream
    )
    check(vertices, expected.vertices, ROUNDING)
    check(defined, expected.defined, 0)

    fused = [empty(dtype="int32"), empty(2), empty(3), empty(dtype="uint8")]
    device.ops.reflect_dense(*seen, *completed, count, *fused, stream=device.stream)
    check(fused[0], registration.triangle, 0)
    check(fused[1], registration.uv, 0)
    check(fused[2], expected.vertices, ROUNDING)
    check(fused[3], expected.defined, 0)


@pytest.mark.parametrize("recovered", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("hidden", [0.0, 0.5, 1.0])
def test_random_meshes_are_reflected_as_on_the_host(
    device: Device, rng: np.random.Generator, recovered: float, hidden: float
) -> None:
    shape, vertices = (13, 17), 40
    camera = Camera(100.0, 110.0, 6.0, 4.5, shape[1], shape[0])
    depth = np.full(shape, 300, np.float32)
    depth[rng.random(shape) < hidden] = np.inf
    dense = dense_mesh(depth, camera)
    barycentric = rng.dirichlet([1, 1, 1], shape)[..., :2].astype(np.float32)
    raster = Raster(depth, rng.integers(-1, 60, shape, dtype=np.int32), barycentric)
    faces = rng.integers(0, vertices, (60, 3), dtype=np.int32)
    assert_reflected_as_on_the_host(
        device,
        raster,
        dense,
        np.flatnonzero(dense.vertex_of_pixel >= 0).astype(np.int32),
        transform_points(HEAD_FROM_CAMERA, dense.vertices),
        rng.normal(0, 90, (vertices, 3)).astype(np.float32),
        faces,
        np.arange(vertices, dtype=np.int32)[::-1].copy(),
        rng.random(vertices) < recovered,
    )
