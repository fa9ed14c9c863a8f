"""The z-buffer and maps of pixels and vertices on device arrays against the host's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from extreme3d_fast.camera import Camera
from extreme3d_fast.detect import transform_points as transform_pixels
from extreme3d_fast.device import Device
from extreme3d_fast.foundation_view import _photo_in_crop
from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_normals
from extreme3d_fast.mesh_io import Mesh
from extreme3d_fast.rasterize import (
    Raster,
    interpolate,
    pixels_of_vertices,
    rasterize,
    vertex_visibility,
)
from extreme3d_fast.reconstructor import Reconstructor
from extreme3d_fast.smooth_depth import smooth_depth

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

CAMERA = Camera(500.0, 500.0, 32.0, 30.0, 64, 60)
FRONTAL = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 600], [0, 0, 0, 1]], np.float32)


class View(NamedTuple):
    """A surface in front of a camera."""

    vertices: Float32
    normals: Float32
    faces: Int32
    camera: Camera


@pytest.fixture(scope="module")
def head(portrait: npt.NDArray[np.uint8]) -> View:
    """The foundation of a real photo."""
    reconstructor = Reconstructor(threads=1, occlusion="none", detail="none")
    foundation = reconstructor.estimate_foundation(portrait)
    model = reconstructor.head_model
    skin = model.vertices(foundation.identity, foundation.expression)[: model.skin_vertex_count]
    pose = foundation.camera_from_head
    normals = rotate_vectors(pose, vertex_normals(skin, model.faces))
    return View(transform_points(pose, skin), normals, model.faces, foundation.camera)


@pytest.fixture(scope="module")
def ball(sphere: Mesh) -> View:
    vertices = transform_points(FRONTAL, sphere.vertices / np.float32(4))
    return View(vertices, vertex_normals(vertices, sphere.faces), sphere.faces, CAMERA)


def at_pixels(xy: npt.ArrayLike, z: npt.ArrayLike, camera: Camera = CAMERA) -> Float32:
    """Camera-frame points that project to image positions `xy` (N, 2) at depth z."""
    xy = np.asarray(xy, np.float64)
    depth = np.broadcast_to(np.asarray(z, np.float64), len(xy))
    return camera.unproject(xy, depth).astype(np.float32)


def pinhole(device: Device, camera: Camera) -> object:
    return device.put(np.float32(camera.pinhole))


def empty_raster(device: Device, camera: Camera) -> tuple[object, object, object]:
    shape = (camera.height, camera.width)
    return device.empty(shape), device.empty(shape, "int32"), device.empty((*shape, 2))


def rasterized(
    device: Device, vertices: Float32, faces: Int32, camera: Camera, *, cull: bool = True
) -> Raster:
    rasterizer = device.ops.Rasterizer(len(vertices), len(faces), camera.width, camera.height)
    out = empty_raster(device, camera)
    for _ in range(2):  # nothing is left of the first
        rasterizer.rasterize(
            device.put(vertices),
            device.put(faces),
            pinhole(device, camera),
            *out,
            cull_back_faces=cull,
            stream=device.stream,
        )
    return Raster(device.get(out[0]), device.get(out[1], np.int32), device.get(out[2]))


def assert_raster_is_the_hosts(
    device: Device, vertices: Float32, faces: Int32, camera: Camera, *, cull: bool = True
) -> Raster:
    raster = rasterized(device, vertices, faces, camera, cull=cull)
    expected = rasterize(vertices, faces, camera, cull_back_faces=cull)
    for name in Raster._fields:
        np.testing.assert_array_equal(
            getattr(raster, name), getattr(expected, name), err_msg=name, strict=True
        )
    return raster


def soup(rng: np.random.Generator, n: int, spread: float) -> tuple[Float32, Int32]:
    """Triangles whose corners lie up to `spread` px from random places in the image and about."""
    place = rng.uniform(-10, 74, (n, 1, 2)) + rng.uniform(-spread, spread, (n, 3, 2))
    vertices = at_pixels(place.reshape(-1, 2), rng.uniform(80, 120, 3 * n))
    return vertices, np.arange(3 * n, dtype=np.int32).reshape(-1, 3)


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("spread", [1.0, 6.0, 50.0, 3000.0])
def test_raster_of_random_triangles_is_the_hosts_to_the_bit(
    device: Device, rng: np.random.Generator, spread: float, cull: bool
) -> None:
    raster = assert_raster_is_the_hosts(device, *soup(rng, 300, spread), CAMERA, cull=cull)
    assert (raster.triangle >= 0).any()


@pytest.mark.parametrize("lattice", [1.0, 0.5, 1 / 256])
def test_triangles_that_share_edges_on_pixel_centres_are_drawn_as_on_the_host(
    device: Device, rng: np.random.Generator, lattice: float
) -> None:
    side = 20
    x, y = np.meshgrid(np.linspace(-2, 66, side), np.linspace(-2, 62, side))
    xy = np.stack([x, y], -1).reshape(-1, 2) + rng.uniform(-1, 1, (side * side, 2))
    a = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([a, a + side, a + 1], 1),
            np.stack([a + 1, a + side, a + side + 1], 1),
        ]
    ).astype(np.int32)
    vertices = at_pixels(np.round(xy / lattice) * lattice, 100.0)
    raster = assert_raster_is_the_hosts(device, vertices, faces, CAMERA)
    assert (raster.triangle >= 0).all()


def test_equal_depth_goes_to_the_smaller_index(device: Device) -> None:
    for size in (4, 40):  # drawn by one thread, and by many
        corners = at_pixels([[10, 10], [10, 10 + size], [10 + size, 10]], 100.0)
        raster = rasterized(device, corners, np.int32([[0, 1, 2]] * 300), CAMERA)
        assert raster.triangle.max() == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1.0, -100.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_corners_that_cannot_be_drawn_are_left_out_as_on_the_host(
    device: Device, rng: np.random.Generator, bad: float, axis: int
) -> None:
    vertices, faces = soup(rng, 40, 20.0)
    vertices[::5, axis] = bad
    with np.errstate(all="ignore"):
        assert_raster_is_the_hosts(device, vertices, faces, CAMERA, cull=False)


def test_degenerate_triangles_are_drawn_as_on_the_host(
    device: Device, rng: np.random.Generator
) -> None:
    vertices, faces = soup(rng, 100, 10.0)
    faces[::3, 1] = faces[::3, 0]  # an edge
    faces[1::3] = faces[1::3, :1]  # a point
    vertices[3 * 50 + 2] = 2 * vertices[3 * 50 + 1] - vertices[3 * 50]  # a line, after rounding
    assert_raster_is_the_hosts(device, vertices, faces, CAMERA, cull=False)


def test_triangles_off_the_screen_and_far_larger_than_it_are_drawn_as_on_the_host(
    device: Device,
) -> None:
    off = at_pixels([[-90, 5], [-90, 50], [-20, 5], [20, 70], [20, 99], [40, 70]], 90.0)
    huge = at_pixels([[-1e6, -1e6], [-1e6, 2e6], [2e6, -1e6]], 1e3)
    beyond = at_pixels([[-3e6, -3e6], [-3e6, 6e6], [6e6, -3e6]], 500.0)  # the guard band
    faces = np.arange(12, dtype=np.int32).reshape(-1, 3)
    raster = assert_raster_is_the_hosts(device, np.concatenate([off, huge, beyond]), faces, CAMERA)
    assert (raster.triangle == 2).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 257), (300, 2)])
def test_images_of_any_size_are_filled(device: Device, size: tuple[int, int]) -> None:
    camera = Camera(50.0, 50.0, size[0] / 2, size[1] / 2, *size)
    corners = at_pixels([[-1, -1], [-1, 1e4], [1e4, -1]], 100.0, camera)
    raster = assert_raster_is_the_hosts(device, corners, np.int32([[0, 1, 2]]), camera)
    assert (raster.triangle == 0).all()


def test_nothing_to_draw_gives_an_empty_image(device: Device) -> None:
    nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    raster = assert_raster_is_the_hosts(device, *nothing, CAMERA)
    assert (raster.triangle == -1).all()


@pytest.mark.parametrize("scale", [1, 3])
def test_raster_of_a_head_is_the_hosts_to_the_bit(device: Device, head: View, scale: int) -> None:
    camera = Camera(*(scale * np.array(head.camera.pinhole)), 500 * scale, 500 * scale)
    raster = assert_raster_is_the_hosts(device, head.vertices, head.faces, camera)
    assert (raster.triangle >= 0).mean() > 0.1


def test_meshes_larger_than_was_made_room_for_are_refused(device: Device) -> None:
    rasterizer = device.ops.Rasterizer(3, 1, CAMERA.width, CAMERA.height)
    out, camera = empty_raster(device, CAMERA), pinhole(device, CAMERA)
    vertices, faces = device.empty((4, 3)), device.empty((2, 3), "int32")
    with pytest.raises(ValueError, match="vertices_in_camera has 4 rows, there is room for 3"):
        rasterizer.rasterize(vertices, faces, camera, *out)
    with pytest.raises(ValueError, match="faces has 2 rows, there is room for 1"):
        rasterizer.rasterize(device.empty((3, 3)), faces, camera, *out)
    with pytest.raises(ValueError, match=r"depth should have shape \(60, 64"):
        rasterizer.rasterize(
            device.empty((3, 3)),
            device.empty((1, 3), "int32"),
            camera,
            device.empty((64, 60)),
            *out[1:],
        )
    with pytest.raises(ValueError, match="width and height"):
        device.ops.Rasterizer(3, 1, 0, 5)


# --- Maps of what the pixels see --------------------------------------------------------------


@pytest.mark.parametrize("which", ["ball", "head"])
def test_interpolated_values_are_the_hosts_to_the_bit(
    device: Device, request: pytest.FixtureRequest, which: str
) -> None:
    view: View = request.getfixturevalue(which)
    raster = rasterize(view.vertices, view.faces, view.camera)
    values = np.sin(view.vertices[:, 0]).astype(np.float32)
    out = device.empty(raster.depth.shape)
    device.ops.interpolate(
        device.put(raster.triangle),
        device.put(raster.barycentric),
        device.put(values),
        device.put(view.faces),
        out,
        device.stream,
    )
    np.testing.assert_array_equal(device.get(out), interpolate(raster, values, view.faces))


@pytest.mark.parametrize("which", ["ball", "head"])
def test_smooth_depth_is_the_hosts(
    device: Device, request: pytest.FixtureRequest, which: str
) -> None:
    view: View = request.getfixturevalue(which)
    raster = rasterize(view.vertices, view.faces, view.camera)
    out = device.empty(raster.depth.shape)
    device.ops.smooth_depth(
        *map(device.put, (*raster, view.vertices, view.normals, view.faces)), out, device.stream
    )
    expected = smooth_depth(raster, view.vertices, view.normals, view.faces)
    # depths of up to a metre have 6e-5 mm between floats, and contraction moves a few of those
    np.testing.assert_allclose(device.get(out), expected, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(np.isinf(device.get(out)), raster.triangle < 0)


@pytest.mark.parametrize("which", ["ball", "head"])
def test_visible_vertices_are_the_hosts(
    device: Device, request: pytest.FixtureRequest, which: str
) -> None:
    view: View = request.getfixturevalue(which)
    depth = rasterize(view.vertices, view.faces, view.camera).depth
    out = device.empty(len(view.vertices), "uint8")
    device.ops.vertex_visibility(
        *map(device.put, (view.vertices, view.normals, depth)),
        pinhole(device, view.camera),
        0.2,
        2.0,
        out,
        device.stream,
    )
    expected = vertex_visibility(
        view.vertices, view.normals, depth, view.camera, min_cosine=0.2, depth_tolerance=2.0
    )
    assert expected.any()
    assert not expected.all()
    # rounding decides on vertices at the bounds of cosine and depth
    assert (device.get(out, np.bool_) != expected).mean() < 1e-4


@pytest.mark.parametrize("which", ["ball", "head", "wild"])
def test_pixels_of_vertices_are_the_hosts(
    device: Device, request: pytest.FixtureRequest, rng: np.random.Generator, which: str
) -> None:
    if which == "wild":  # outside, behind the camera, not finite
        vertices = at_pixels(rng.uniform(-20, 84, (300, 2)), 100.0)
        vertices[::7] *= -1
        for k, bad in enumerate([0, np.nan, np.inf, -np.inf]):
            vertices[20 + 3 * k + np.arange(3), np.arange(3)] = bad
        camera = CAMERA
    else:
        view: View = request.getfixturevalue(which)
        vertices, camera = view.vertices, view.camera
    out = device.empty(len(vertices), "int32")
    device.ops.pixels_of_vertices(
        device.put(vertices),
        pinhole(device, camera),
        camera.width,
        camera.height,
        out,
        device.stream,
    )
    expected = pixels_of_vertices(vertices, camera)
    np.testing.assert_array_equal(device.get(out, np.int32), expected)


# --- Padding ----------------------------------------------------------------------------------


def photo_mask(
    device: Device, crop_from_image: npt.NDArray[np.float64], shape: tuple[int, int], size: int
) -> npt.NDArray[np.bool_]:
    h, w = shape
    corners = transform_pixels(crop_from_image, np.array([[0, 0], [w, 0], [w, h], [0, h]], float))
    out = device.empty((size, size), "uint8")
    device.ops.photo_mask(
        device.put(corners.ravel()), device.empty((size, 2), "int32"), out, device.stream
    )
    return device.get(out, np.bool_)


def similarity(
    scale: float, angle: float, at: npt.ArrayLike, to: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Scales and turns, and takes one point to another."""
    matrix = np.eye(3)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:2, 2] = np.asarray(to) - matrix[:2, :2] @ at
    return matrix


def test_photo_mask_is_what_opencv_draws(device: Device, rng: np.random.Generator) -> None:
    cut = different = 0
    for turn in rng.uniform(-np.pi, np.pi, 300):
        shape, size = tuple(int(n) for n in rng.integers(1, 3000, 2)), int(rng.integers(1, 150))
        to_crop = similarity(
            np.exp(rng.uniform(-5, 1)), turn, rng.random(2) * shape[::-1], rng.random(2) * size
        )
        expected = _photo_in_crop(to_crop, shape, size)
        cut += bool(expected.any() and not expected.all())
        different += (photo_mask(device, to_crop, shape, size) != expected).sum()
    assert cut > 100
    # OpenCV leaves a gap of a pixel or two in the first row of one crop in a thousand
    assert different <= 12


@pytest.mark.parametrize("angle", [0.0, 0.25, 0.5, 1.0, -0.5, 1e-3])  # of pi
@pytest.mark.parametrize("shift", [0.0, 0.5, 0.25])
def test_photo_mask_of_upright_photos_is_what_opencv_draws(
    device: Device, angle: float, shift: float
) -> None:
    for scale, to in ((0.5, (20, 10)), (3.0, (-7, 30)), (0.01, (40, 40)), (1.0, (200, 200))):
        to_crop = similarity(scale, angle * np.pi, (30, 20), np.array(to) + shift)
        expected = _photo_in_crop(to_crop, (75, 50), 64)
        np.testing.assert_array_equal(photo_mask(device, to_crop, (75, 50), 64), expected)


# --- Boxes and sums ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (50, 70), (500, 500)])
def test_weight_sums_are_those_in_double(
    device: Device, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    weight, mask = rng.random(shape).astype(np.float32), rng.random(shape) < 0.7
    out = device.empty(2, "float64")
    device.ops.WeightSums().sum(device.put(weight), device.put(mask), out, device.stream)
    expected = [weight.sum(dtype=float), weight[~mask].sum(dtype=float)]
    np.testing.assert_allclose(device.get(out, np.float64), expected, rtol=1e-12)  # order of terms
