"""Normals point outward, tables list every neighbour once, and the report finds each defect."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from extreme3d_fast.mesh import (
    Csr,
    boundary_loops,
    erode_mask,
    face_normals,
    mesh_report,
    rotate_vectors,
    transform_points,
    unique_edges,
    vertex_faces,
    vertex_neighbours,
    vertex_normals,
)

TETRAHEDRON = (
    np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    np.int32([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def moebius(n=12):
    """Band of n quads whose last pair of vertices is joined to the first one turned over."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    vertices = []
    for side in (1, -1):
        r = 2 + 0.5 * side * np.cos(a / 2)
        vertices.append(np.stack([r * np.cos(a), r * np.sin(a), 0.5 * side * np.sin(a / 2)], 1))
    faces = []
    for i in range(n):
        p, q = i, i + n
        r, s = (i + 1, i + 1 + n) if i + 1 < n else (n, 0)
        faces += [[p, r, q], [r, s, q]]
    return np.concatenate(vertices).astype(np.float32), np.int32(faces)


def grid(n):
    """n × n vertices in the plane z = 0, faces turned to +z."""
    y, x = np.mgrid[0:n, 0:n]
    v = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([a, a + 1, a + n], 1), np.stack([a + 1, a + n + 1, a + n], 1)])
    return v, faces.astype(np.int32)


def test_tetrahedron_is_valid_and_closed():
    report = mesh_report(*TETRAHEDRON)
    assert report.is_valid
    assert report.is_closed
    assert (report.vertices, report.edges, report.faces) == (4, 6, 4)
    assert report.components == 1


def test_tetrahedron_normals_by_hand():
    s = 3**-0.5
    np.testing.assert_allclose(
        face_normals(*TETRAHEDRON), [[0, 0, -1], [0, -1, 0], [-1, 0, 0], [s, s, s]], atol=1e-7
    )
    np.testing.assert_allclose(vertex_normals(*TETRAHEDRON)[0], [-s, -s, -s], atol=1e-7)
    # Vertex 1: half of −z, half of −y and the slanted face (1, 1, 1)/2: (1, 0, 0).
    np.testing.assert_allclose(vertex_normals(*TETRAHEDRON)[1], [1, 0, 0], atol=1e-7)


def test_sphere_normals_point_outward():
    vertices, faces = reference.sphere(4, 90.0)
    cosine = (vertex_normals(vertices, faces) * vertices).sum(1) / 90.0
    assert cosine.min() > 0.999  # facets of 5 degrees
    assert ((face_normals(vertices, faces) * vertices[faces].mean(1)).sum(1) > 0).all()


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_tables_equal_numpy_twin(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 20))
    faces = rng.integers(0, n, (int(rng.integers(0, 30)), 3)).astype(np.int32)
    keep = [len(set(t)) == 3 for t in faces.tolist()]
    edges = {
        tuple(sorted(e)) for t in faces[keep].tolist() for e in zip(t, t[1:] + t[:1], strict=True)
    }
    assert unique_edges(faces, n).tolist() == [list(e) for e in sorted(edges)]
    near, around = vertex_neighbours(faces, n), vertex_faces(faces, n)
    for v in range(n):
        mine = sorted({a + b - v for a, b in edges if v in (a, b)})
        assert near.indices[near.offsets[v] : near.offsets[v + 1]].tolist() == mine
        row = around.indices[around.offsets[v] : around.offsets[v + 1]].tolist()
        assert row == [f for f, t in enumerate(faces.tolist()) for c in t if c == v]


def test_euler_characteristic_of_a_sphere():
    report = mesh_report(*reference.sphere(5))
    assert report.vertices - report.edges + report.faces == 2
    assert report.is_valid


def test_moebius_band_is_manifold_but_not_oriented():
    report = mesh_report(*moebius())
    assert report.is_manifold
    assert not report.is_oriented
    assert report.inconsistent_edges == 1
    assert report.boundary_loops == 1
    (loop,) = boundary_loops(moebius()[1], 24)
    assert sorted(loop) == list(range(24))


def test_bow_tie_is_one_component_and_not_manifold():
    vertices = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]])
    faces = np.int32([[0, 1, 2], [0, 3, 4]])
    report = mesh_report(vertices, faces)
    assert (report.components, report.non_manifold_vertices) == (1, 1)
    assert not report.is_manifold
    assert [loop.tolist() for loop in boundary_loops(faces, 5)] == [[0, 1, 2], [0, 3, 4]]


def test_two_components_are_counted():
    v, f = TETRAHEDRON
    report = mesh_report(np.concatenate([v, v + 5]), np.concatenate([f, f + 4]))
    assert report.components == 2
    assert report.is_manifold
    assert not report.is_valid


def test_three_faces_on_an_edge_are_not_manifold():
    vertices = np.float32([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    report = mesh_report(vertices, [[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    assert report.non_manifold_edges == 1
    assert report.boundary_edges == 6
    assert not report.is_manifold


def test_turned_face_is_inconsistent():
    v, f = TETRAHEDRON
    report = mesh_report(v, np.concatenate([f[:3], f[3:, ::-1]]))
    assert report.inconsistent_edges == 3
    assert report.is_manifold


def test_lone_bad_and_repeated_vertices_are_counted():
    v, f = TETRAHEDRON
    v = np.concatenate([v, [[np.nan, 0, 0]]]).astype(np.float32)
    report = mesh_report(v, np.concatenate([f, [[1, 1, 2]]]))
    assert report.unreferenced_vertices == 1
    assert report.non_finite_vertices == 1
    assert report.degenerate_faces == 1
    assert report.edges == 6
    assert not report.is_valid


def test_collinear_face_has_no_area_at_any_scale():
    line = np.float32([[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    for scale in (1e-8, 1.0, 1e8):
        assert mesh_report(line * np.float32(scale), [[0, 1, 2]]).zero_area_faces == 1
        assert mesh_report(TETRAHEDRON[0] * np.float32(scale), TETRAHEDRON[1]).zero_area_faces == 0


def test_border_of_a_grid_runs_counter_clockwise_from_its_smallest_vertex():
    _, faces = grid(3)
    assert [loop.tolist() for loop in boundary_loops(faces, 9)] == [[0, 1, 2, 5, 8, 7, 6, 3]]


def test_grid_with_a_hole_has_two_borders():
    vertices, faces = grid(6)
    holed = faces[~np.isin(faces, [14]).any(1)]
    report = mesh_report(vertices, holed)
    loops = boundary_loops(holed, 36)
    assert report.boundary_loops == len(loops) == 2
    assert sum(map(len, loops)) == report.boundary_edges
    directed = {(a, b) for t in holed.tolist() for a, b in zip(t, t[1:] + t[:1], strict=True)}
    for loop in loops:
        assert all(
            e in directed for e in zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True)
        )


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_result(threads):
    vertices, faces = reference.sphere(7)
    np.testing.assert_array_equal(
        vertex_normals(vertices, faces), vertex_normals(vertices, faces, threads=threads)
    )
    assert mesh_report(vertices, faces) == mesh_report(vertices, faces, threads=threads)


def test_prepared_table_gives_the_same_normals():
    vertices, faces = reference.sphere(3)
    table = vertex_faces(faces, len(vertices))
    np.testing.assert_array_equal(
        vertex_normals(vertices, faces, faces_of_vertex=table), vertex_normals(vertices, faces)
    )


def test_empty_mesh_has_nothing():
    report = mesh_report(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    assert report.components == report.edges == report.boundary_loops == 0
    assert boundary_loops(np.zeros((0, 3), np.int32), 0) == []
    assert vertex_normals(np.zeros((2, 3)), np.zeros((0, 3), np.int32)).tolist() == [[0, 0, 0]] * 2


def test_bad_arguments_are_named():
    v, f = TETRAHEDRON
    with pytest.raises(ValueError, match="faces"):
        mesh_report(v, f + 1)
    with pytest.raises(ValueError, match="vertices"):
        mesh_report(v[:, :2], f)
    with pytest.raises(ValueError, match="offsets"):
        vertex_normals(
            v, f, faces_of_vertex=Csr(np.int32([0, 3, 2, 9, 12]), np.zeros(12, np.int32))
        )
    with pytest.raises(ValueError, match="vertex_faces"):
        vertex_normals(
            v, f, faces_of_vertex=Csr(np.int32([0, 3, 6, 9, 12]), np.full(12, 4, np.int32))
        )


def test_erosion_takes_the_rim_of_a_mask_away():
    """A strip of five quads: of columns 0 to 3 known, column 3 borders the unknown one."""
    faces = np.array(
        [
            t
            for k in range(5)
            for t in ((2 * k, 2 * k + 2, 2 * k + 1), (2 * k + 1, 2 * k + 2, 2 * k + 3))
        ]
    )
    mask = np.arange(12) // 2 <= 3
    np.testing.assert_array_equal(erode_mask(mask, faces), np.arange(12) // 2 <= 2)
    assert erode_mask(np.ones(12, bool), faces).all()
    with pytest.raises(ValueError, match="faces"):
        erode_mask(mask[:-1], faces)


def test_rigid_motions_equal_their_matrix_product(rng):
    b_from_a = np.eye(4, dtype=np.float32)
    b_from_a[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    b_from_a[:3, 3] = [5, -7, 600]
    points = rng.normal(0, 80, (50_000, 3)).astype(np.float32)
    expected = points.astype(np.float64) @ b_from_a[:3, :3].T
    for threads in (1, 3):
        turned = rotate_vectors(b_from_a, points, threads=threads)
        moved = transform_points(b_from_a, points, threads=threads)
        np.testing.assert_allclose(turned, expected, atol=1e-4)
        np.testing.assert_allclose(moved, expected + b_from_a[:3, 3], atol=2e-4)


def test_transform_rotates_then_translates():
    m = np.eye(4)
    m[:3, :3] = np.diag([1.0, -1.0, -1.0])
    m[:3, 3] = [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(transform_points(m, [[1.0, 1.0, 1.0]]), [[2.0, 1.0, 2.0]])
