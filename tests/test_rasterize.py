"""The rasteriser covers exactly, interpolates depth correctly, and survives any input."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from extreme3d_fast.camera import Camera
from extreme3d_fast.mesh import vertex_normals
from extreme3d_fast.rasterize import (
    interpolate,
    pixels_of_vertices,
    rasterize,
    vertex_visibility,
)

CAMERA = Camera(500.0, 500.0, 32.0, 32.0, 64, 64)
CAMERA_WIDE = Camera(1000.0, 1000.0, 100.0, 100.0, 200, 200)


def at_pixels(xy, z, camera=CAMERA):
    """Camera-frame points that project to image positions `xy` (N, 2) at depth z."""
    xy = np.asarray(xy, float)
    z = np.broadcast_to(np.asarray(z, float), len(xy))
    xs = (xy[:, 0] - camera.cx) / camera.fx * z
    ys = (xy[:, 1] - camera.cy) / camera.fy * z
    return np.stack([xs, ys, z], 1).astype(np.float32)


def random_soup(seed, n=60):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-10, 74, (3 * n, 2))
    return at_pixels(xy, rng.uniform(80, 120, 3 * n)), np.arange(3 * n, dtype=np.int32).reshape(
        -1, 3
    )


def sphere(levels=5, radius=25.0, centre_z=600.0):
    v, f = reference.sphere(levels, radius)
    return (v + np.float32([0, 0, centre_z])).astype(np.float32), f


def test_one_triangle_by_hand():
    # Right angle at pixel corner (10, 10), legs of 4 px: centres with x + y below 14.
    corners = at_pixels([[10, 10], [10, 14], [14, 10]], 100.0)
    raster = rasterize(corners, [[0, 1, 2]], CAMERA)
    rows = {int(y): np.flatnonzero(raster.triangle[y] == 0).tolist() for y in range(10, 15)}
    # The hypotenuse is a lower-right edge: centres on it (x + y = 24 - 0.5 - 0.5) are not covered.
    assert rows == {10: [10, 11, 12], 11: [10, 11], 12: [10], 13: [], 14: []}
    # Centre (10.5, 10.5): 1/8 towards each far corner.
    np.testing.assert_allclose(raster.barycentric[10, 10], [0.75, 0.125], atol=1e-6)
    np.testing.assert_allclose(raster.depth[10, 10], 100.0, rtol=1e-6)
    assert np.isinf(raster.depth[0, 0])


def test_depth_is_perspective_correct():
    z = np.array([50.0, 200.0, 100.0])
    raster = rasterize(at_pixels([[2, 2], [2, 62], [62, 2]], z), [[0, 1, 2]], CAMERA)
    seen = raster.triangle == 0
    u, v = raster.barycentric[seen].T.astype(float)
    np.testing.assert_allclose(
        raster.depth[seen], 1 / (u / z[0] + v / z[1] + (1 - u - v) / z[2]), rtol=1e-6
    )


def test_sphere_depth_closed_form():
    camera = Camera(1000.0, 1000.0, 50.0, 50.0, 100, 100)
    radius, centre = 25.0, 600.0
    raster = rasterize(*sphere(7, radius, centre), camera)
    x, y = np.meshgrid(np.arange(100) + 0.5, np.arange(100) + 0.5)
    ray = np.stack([(x - 50) / 1000, (y - 50) / 1000, np.ones_like(x)], -1)
    a, b, c = (ray**2).sum(-1), -2 * centre, centre**2 - radius**2
    disc = b * b - 4 * a * c
    z = (-b - np.sqrt(np.where(disc > 0, disc, np.nan))) / (2 * a)
    inner = (x - 50) ** 2 + (y - 50) ** 2 < 35**2
    # Facets of up to 0.5 mm sag by 1e-3 mm, seen at up to 44 degrees; snapping adds as much.
    assert np.abs(raster.depth - z)[inner].max() < 0.004


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([1.0, 0.5, 0.25, 1 / 256, 1e-4]))
def test_triangulated_plane_covers_each_pixel_exactly_once(seed, lattice):
    # Vertices on a lattice of halves fall on pixel centres and edges: the hard case of the rule.
    rng = np.random.default_rng(seed)
    inner = np.round(rng.uniform(1, 63, (80, 2)) / lattice) * lattice
    xy = np.unique(np.concatenate([[[-1, -1], [65, -1], [-1, 65], [65, 65]], inner]), axis=0)
    faces = Delaunay(xy).simplices
    a, b, c = xy[faces].transpose(1, 0, 2)
    turn = (b - a)[:, 1] * (c - a)[:, 0] - (b - a)[:, 0] * (c - a)[:, 1]
    faces[turn < 0] = faces[turn < 0][:, [0, 2, 1]]
    vertices = at_pixels(xy, 100.0)
    count = sum(
        (rasterize(vertices, face[None], CAMERA, cull_back_faces=False).triangle == 0).astype(int)
        for face in faces
    )
    # Snapping may turn a sliver over, which then covers what it took from its neighbours.
    assert (count == 1).all() or (lattice < 1 / 256 and (count >= 1).all())
    assert (rasterize(vertices, faces, CAMERA).triangle >= 0).all()


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_equals_numpy_twin(seed, cull):
    vertices, faces = random_soup(seed)
    raster = rasterize(vertices, faces, CAMERA, cull_back_faces=cull)
    depth, triangle, barycentric = reference.rasterize(vertices, faces, CAMERA, cull)
    np.testing.assert_array_equal(raster.triangle, triangle)
    np.testing.assert_allclose(raster.depth, depth, rtol=1e-6)
    np.testing.assert_allclose(raster.barycentric, barycentric, atol=1e-6)


def test_back_faces_are_culled_only_on_request():
    vertices, faces = sphere(3)
    front = rasterize(vertices, faces, CAMERA)
    inside_out = rasterize(vertices, faces[:, ::-1], CAMERA)
    both = rasterize(vertices, faces[:, ::-1], CAMERA, cull_back_faces=False)
    assert (inside_out.depth > front.depth)[front.triangle >= 0].all()  # the far half shows
    np.testing.assert_allclose(both.depth, front.depth, rtol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 2**31))
def test_order_of_triangles_and_vertices_is_irrelevant(seed):
    rng = np.random.default_rng(seed)
    vertices, faces = random_soup(seed)
    new_vertex, new_face = rng.permutation(len(vertices)), rng.permutation(len(faces))
    shuffled = rasterize(vertices[np.argsort(new_vertex)], new_vertex[faces][new_face], CAMERA)
    straight = rasterize(vertices, faces, CAMERA)
    np.testing.assert_array_equal(shuffled.depth, straight.depth)
    seen = shuffled.triangle >= 0
    np.testing.assert_array_equal(new_face[shuffled.triangle[seen]], straight.triangle[seen])


def test_equal_depth_goes_to_the_smaller_index():
    corners = at_pixels([[10, 10], [10, 50], [50, 10]], 100.0)
    raster = rasterize(corners, [[0, 1, 2]] * 5, CAMERA)
    assert raster.triangle.max() == 0


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_result(threads):
    vertices, faces = sphere(6)
    one = rasterize(vertices, faces, Camera(8000.0, 8000.0, 200.0, 150.0, 400, 300))
    many = rasterize(
        vertices, faces, Camera(8000.0, 8000.0, 200.0, 150.0, 400, 300), threads=threads
    )
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_corner_that_cannot_be_drawn_takes_only_its_own_faces(bad, axis):
    vertices, faces = random_soup(7)
    vertices = vertices.copy()
    vertices[0, axis] = bad
    rest = rasterize(vertices[3:], faces[:-1], CAMERA)
    raster = rasterize(vertices, faces, CAMERA)
    if not (bad == 3e38 and axis == 2):  # that far away everything projects to the centre: drawable
        np.testing.assert_array_equal(raster.depth, rest.depth)
    assert not np.isnan(raster.depth).any()


def test_faces_at_or_behind_the_camera_are_left_out():
    corners = at_pixels([[10, 10], [10, 50], [50, 10]], 100.0)
    for z in (1.0, 0.0, -100.0):
        raster = rasterize(corners * [1, 1, 0] + np.float32([0, 0, z]), [[0, 1, 2]], CAMERA)
        assert (raster.triangle == -1).all()
        assert np.isinf(raster.depth).all()


def test_triangle_far_larger_than_the_image_covers_it():
    corners = at_pixels([[-1e6, -1e6], [-1e6, 2e6], [2e6, -1e6]], 1e3)
    raster = rasterize(corners, [[0, 1, 2]], CAMERA)
    assert (raster.triangle == 0).all()
    np.testing.assert_allclose(raster.depth, 1e3, rtol=1e-5)


def test_nothing_to_draw_gives_an_empty_image():
    raster = rasterize(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), CAMERA)
    assert (raster.triangle == -1).all()
    assert raster.barycentric.shape == (64, 64, 2)


def test_out_is_overwritten_and_returned():
    vertices, faces = sphere(3)
    first = rasterize(vertices + np.float32([5, 0, 0]), faces, CAMERA)
    again = rasterize(vertices, faces, CAMERA, out=first)
    for a, b, fresh in zip(again, first, rasterize(vertices, faces, CAMERA), strict=True):
        assert a is b
        np.testing.assert_array_equal(a, fresh)


def test_out_of_another_kind_is_refused():
    vertices, faces = sphere(1)
    out = rasterize(vertices, faces, CAMERA)
    with pytest.raises(ValueError, match="depth"):
        rasterize(vertices, faces, CAMERA, out=out._replace(depth=np.zeros((3, 64), np.float32)))
    with pytest.raises(TypeError, match="triangle"):
        rasterize(vertices, faces, CAMERA, out=out._replace(triangle=np.zeros((64, 64))))
    with pytest.raises(TypeError, match="depth"):
        rasterize(vertices, faces, CAMERA, out=out._replace(depth=out.depth.T))
    out.depth.setflags(write=False)
    with pytest.raises(ValueError, match="writeable"):
        rasterize(vertices, faces, CAMERA, out=out)


def test_bad_arguments_are_named():
    corners = at_pixels([[10, 10], [10, 50], [50, 10]], 100.0)
    with pytest.raises(ValueError, match="faces"):
        rasterize(corners, [[0, 1, 3]], CAMERA)
    with pytest.raises(ValueError, match="faces"):
        rasterize(corners, [[0, 1, -1]], CAMERA)
    with pytest.raises(ValueError, match="vertices_in_camera"):
        rasterize(corners[:, :2], [[0, 1, 2]], CAMERA)
    with pytest.raises(ValueError, match="width"):
        rasterize(corners, [[0, 1, 2]], Camera(500.0, 500.0, 32.0, 32.0, 0, 64))
    with pytest.raises(TypeError, match="faces"):
        rasterize(corners, [[0.5, 1, 2]], CAMERA)


# --- Visibility -------------------------------------------------------------------------------


def visible_of(vertices, faces, camera, **options):
    normals = vertex_normals(vertices, faces)
    depth = rasterize(vertices, faces, camera).depth
    return vertex_visibility(vertices, normals, depth, camera, **options), normals


@pytest.mark.parametrize("min_cosine", [0.0, 0.15, 0.5])
def test_exactly_the_cap_of_a_sphere_is_visible(min_cosine):
    camera = Camera(1000.0, 1000.0, 100.0, 100.0, 200, 200)
    vertices, faces = sphere(6, 40.0, 600.0)
    visible, _ = visible_of(vertices, faces, camera, min_cosine=min_cosine, depth_tolerance=0.5)
    outward = (vertices - [0, 0, 600]) / 40.0
    cosine = -(outward * vertices).sum(1) / np.linalg.norm(vertices, axis=1)
    # Facet normals differ from the sphere's by up to the size of a facet, 0.02 rad.
    assert visible[cosine > min_cosine + 0.01].all()
    assert not visible[cosine < min_cosine - 0.01].any()


def test_what_stands_behind_something_is_hidden():
    far, faces = sphere(5, 40.0, 700.0)
    near, _ = sphere(5, 10.0, 500.0)
    both = np.concatenate([near, far])
    visible, _ = visible_of(both, np.concatenate([faces, faces + len(near)]), CAMERA_WIDE)
    x, y = far[:, 0] / far[:, 2], far[:, 1] / far[:, 2]
    radius = np.hypot(x, y) * 1000  # in pixels; the near sphere's outline has 20 px
    front = far[:, 2] < 680
    assert not visible[len(near) :][front & (radius < 19)].any()
    assert visible[len(near) :][front & (radius > 21.5)].all()


def test_steep_plane_does_not_hide_itself():
    # 78 degrees from facing: 0.5 px of shift is 1.4 mm of depth, more than the tolerance.
    n, camera = 60, CAMERA_WIDE
    s, t = np.meshgrid(np.linspace(-30, 30, n), np.linspace(-30, 30, n))
    vertices = np.stack([s, t, 600 + 4.7 * s], -1).reshape(-1, 3).astype(np.float32)
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([a, a + n, a + 1], 1), np.stack([a + 1, a + n, a + n + 1], 1)])
    visible, normals = visible_of(vertices, faces, camera, min_cosine=0.1, depth_tolerance=0.05)
    cosine = -(normals * vertices).sum(1) / np.linalg.norm(vertices, axis=1)
    assert (cosine > 0.1).all()
    assert visible.all()


@pytest.mark.parametrize("seed", range(3))
def test_visibility_equals_numpy_twin(seed):
    rng = np.random.default_rng(seed)
    vertices, faces = random_soup(seed)
    normals = rng.normal(size=vertices.shape).astype(np.float32)
    depth = rasterize(vertices, faces, CAMERA).depth
    np.testing.assert_array_equal(
        vertex_visibility(vertices, normals, depth, CAMERA, min_cosine=0.1, depth_tolerance=1.0),
        reference.vertex_visibility(vertices, normals, depth, CAMERA, 0.1, 1.0),
    )


def test_vertices_outside_the_image_or_not_finite_are_not_visible():
    vertices = np.concatenate(
        [
            at_pixels([[-1, 5], [5, 64.5], [5, 5]], 100.0),
            [[np.nan, 0, 100], [0, 0, -100], [0, 0, 0]],
        ]
    )
    normals = np.tile([0, 0, -1], (6, 1))
    depth = np.full((64, 64), np.inf)
    assert vertex_visibility(vertices, normals, depth, CAMERA).tolist() == [0, 0, 1, 0, 0, 0]
    assert not vertex_visibility(vertices, 0 * normals, depth, CAMERA).any()


def test_interpolated_weights_stay_within_those_of_the_corners():
    """Rounding may leave a barycentric sum above one; a weight must not become negative for it."""
    vertices, faces = random_soup(5)
    raster = rasterize(vertices, faces, CAMERA)
    on_edge = np.float32([0.7, 0.3 + 1e-7])
    assert on_edge.sum() > 1
    raster = raster._replace(barycentric=np.broadcast_to(on_edge, raster.barycentric.shape))
    weight = np.zeros(len(vertices), np.float32)
    weight[faces[:, 2]] = 1
    image = interpolate(raster, weight, faces)
    assert image.min() == 0
    assert image.max() <= 1


def test_interpolation_is_exact_for_functions_linear_in_the_image():
    """Screen-space weights carry a + b x + c y of the projected corners to the pixel centres."""
    corners = np.float32([[-40, -40, 600], [-40, 40, 600], [40, 40, 600], [40, -40, 600]])
    faces = np.int32([[0, 1, 2], [0, 2, 3]])
    camera = Camera(400.0, 400.0, 32.0, 32.0, 64, 64)
    raster = rasterize(corners, faces, camera)
    x, y = camera.project(corners).T
    image = interpolate(raster, 2 + 0.5 * x - 0.25 * y, faces)
    row, column = np.nonzero(raster.triangle >= 0)
    assert len(row) > 1000
    expected = 2 + 0.5 * (column + 0.5) - 0.25 * (row + 0.5)
    np.testing.assert_allclose(image[row, column], expected, atol=2e-3)  # corners snap to 1/256 px
    assert (image[raster.triangle < 0] == 0).all()
    np.testing.assert_array_equal(
        image, interpolate(raster, 2 + 0.5 * x - 0.25 * y, faces, threads=3)
    )
    with pytest.raises(ValueError, match="faces"):
        interpolate(raster, np.zeros(3), faces)


def test_pixel_of_a_vertex_is_where_it_projects():
    rng = np.random.default_rng(3)
    vertices = at_pixels(rng.uniform(-20, 84, (500, 2)), 100.0)
    x, y = np.floor(CAMERA.project(vertices)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < CAMERA.width) & (y < CAMERA.height)
    want = np.where(inside, y * CAMERA.width + x, -1)
    got = pixels_of_vertices(vertices, CAMERA)
    assert (got != want).sum() <= 1  # one may lie within rounding of a border
    np.testing.assert_array_equal(pixels_of_vertices(vertices, CAMERA, threads=3), got)


@pytest.mark.parametrize("place", [[1, 0, 0], [np.nan, 0, 100], [np.inf, 0, 1], [99, 0, 100]])
def test_vertex_that_projects_nowhere_has_no_pixel(place):
    assert pixels_of_vertices(np.float32([place]), CAMERA) == [-1]
