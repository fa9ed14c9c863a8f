"""Eq. 10 and the sewing of D, its reflection and R."""

from functools import cache

import numpy as np
import pytest
import trimesh
from synthetic import CAMERA, Sewn, camera_from_head, ellipsoid_head, sew

from extreme3d_fast.completion import complete_dense
from extreme3d_fast.zipper import VertexSource, Zipper

YAWS = [0, 12, 30, 55, 80, 90, -40]


@cache
def sewn(yaw: float) -> Sewn:
    return sew(ellipsoid_head(5), yaw)


def as_trimesh(s: Sewn) -> trimesh.Trimesh:
    return trimesh.Trimesh(s.mesh.vertices, s.mesh.faces, process=False)


@pytest.mark.parametrize("yaw", YAWS)
def test_closed_head_stays_one_closed_oriented_surface(yaw):
    mesh = as_trimesh(sewn(yaw))
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert mesh.body_count == 1
    assert mesh.volume > 0
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)  # none unreferenced


@pytest.mark.parametrize("yaw", YAWS)
def test_detail_is_sewn_in(yaw):
    s = sewn(yaw)
    counts = np.bincount(s.mesh.source, minlength=3)
    seen = (s.raster.triangle >= 0).sum()
    assert counts[VertexSource.DENSE] > 0.6 * seen
    if abs(yaw) >= 55:  # half of the face is hidden, its other half is seen
        assert counts[VertexSource.REFLECTED] > 0.5 * counts[VertexSource.DENSE]


@pytest.mark.parametrize("yaw", YAWS)
def test_vertices_come_from_the_mesh_they_name(yaw):
    s = sewn(yaw)
    for source, positions in [
        (VertexSource.SPARSE, s.symmetry.vertices),
        (VertexSource.DENSE, s.dense),
        (VertexSource.REFLECTED, s.reflected.vertices),
    ]:
        mine = s.mesh.source == source
        np.testing.assert_array_equal(s.mesh.vertices[mine], positions[s.mesh.source_vertex[mine]])


@pytest.mark.parametrize("yaw", [0, 30, 80])
def test_sewing_alone_folds_nothing(yaw):
    """Without detail only the facets of the test's coarse R (1.8 degrees a fold) are left."""
    s = sew(ellipsoid_head(5), yaw, bump_mm=0.0)
    mesh = as_trimesh(s)
    angles = np.degrees(mesh.face_adjacency_angles)
    seam = s.mesh.seam[mesh.face_adjacency_edges].any(1)
    assert np.percentile(angles[seam], 50) < 1.5
    assert np.percentile(angles[seam], 95) < 5.0


def test_frontal_mesh_is_symmetric_where_only_r_remains():
    s = sew(ellipsoid_head(5), 0, bump_mm=0.0)
    assert np.abs(s.symmetry.vertices - s.head.vertices).max() < 1e-3


def test_nothing_observed_returns_r():
    head = ellipsoid_head(4)
    n = len(head.vertices)
    pixels = np.full((250, 250), -1, np.int32)
    none = np.zeros((0, 3), np.float32)
    mesh = Zipper(head.faces, head.mirror).zip(
        head.vertices,
        head.vertices + [0, 0, 700],
        np.zeros(n, bool),
        np.zeros(n, bool),
        none,
        none,
        np.zeros(0, bool),
        pixels,
        pixels,
        CAMERA,
    )
    np.testing.assert_array_equal(mesh.vertices, head.vertices)
    np.testing.assert_array_equal(mesh.faces, head.faces)


def test_r_stays_where_d_has_no_vertices():
    """Observed, but the dense mesh is empty there: nothing may be taken from R."""
    s = sewn(0)
    head = s.head
    empty = np.full(s.raster.triangle.shape, -1, np.int32)
    none = np.zeros((0, 3), np.float32)
    in_camera = head.vertices @ camera_from_head(0)[:3, :3].T + camera_from_head(0)[:3, 3]
    mesh = Zipper(head.faces, head.mirror).zip(
        s.symmetry.vertices,
        in_camera,
        s.observed,
        s.symmetry.recovery > 0,
        none,
        none,
        np.zeros(0, bool),
        s.raster.triangle,
        empty,
        CAMERA,
    )
    np.testing.assert_array_equal(mesh.vertices, s.symmetry.vertices)
    np.testing.assert_array_equal(mesh.faces, head.faces)


def test_r_stays_where_it_is_the_denser_mesh():
    """Seen from far away a pixel spans many faces: D would only take detail away."""
    far = sew(ellipsoid_head(6), 0)  # faces of 2 mm under pixels of 1.4 mm: D is kept
    coarse = sew(ellipsoid_head(7), 0)  # faces of 1 mm: R is kept
    assert (far.mesh.source == VertexSource.DENSE).sum() > 1000
    assert (coarse.mesh.source == VertexSource.DENSE).sum() < 200


def test_boundary_of_an_open_mesh_is_kept():
    """A head with two holes where eyes would be stays open there and nowhere else."""
    head = ellipsoid_head(5)
    x, y, z = head.vertices[head.faces].mean(1).T
    eyes = (z > 0) & (np.hypot(np.abs(x) - 30, y - 30) < 12)
    s = sew(type(head)(head.vertices, head.faces[~eyes], head.mirror, head.region), 25)
    before = trimesh.Trimesh(head.vertices, head.faces[~eyes], process=False)
    after = as_trimesh(s)
    assert after.body_count == 1
    assert after.is_winding_consistent
    assert after.euler_number == before.euler_number
    edges, counts = np.unique(after.edges_sorted, axis=0, return_counts=True)
    assert counts.max() == 2
    open_before = trimesh.grouping.group_rows(before.edges_sorted, require_count=1)
    open_after = edges[counts == 1]
    assert len(open_after) == len(open_before)
    assert (s.mesh.source[open_after] == VertexSource.SPARSE).all()


def test_reflection_of_a_registered_point_is_its_mirror_image():
    """Eq. 10 on an exactly symmetric R: P^Df is P^D with x negated."""
    head = ellipsoid_head(4)
    rng = np.random.default_rng(0)
    n = 500
    triangle = rng.integers(0, len(head.faces), n).astype(np.int32)
    uv = rng.dirichlet([1, 1, 1], n)[:, :2].astype(np.float32)
    residual = rng.normal(0, 0.5, (n, 3)).astype(np.float32)
    weights = np.c_[uv, 1 - uv.sum(1)]
    points = np.einsum("ij,ijk->ik", weights, head.vertices[head.faces[triangle]]) + residual
    everything = np.ones(len(head.vertices), bool)
    result = complete_dense(
        triangle, uv, residual, head.vertices, head.faces, head.mirror, everything
    )
    assert result.defined.all()
    assert np.abs(result.vertices - points * [-1, 1, 1]).max() < 1e-4


def test_reflection_is_defined_where_any_mirrored_corner_was_recovered():
    head = ellipsoid_head(3)
    recovered = np.zeros(len(head.vertices), bool)
    recovered[head.mirror[head.faces[7, 1]]] = True
    n = len(head.faces)
    result = complete_dense(
        np.r_[np.arange(n), -1],
        np.full((n + 1, 2), 1 / 3, np.float32),
        np.zeros((n + 1, 3), np.float32),
        head.vertices,
        head.faces,
        head.mirror,
        recovered,
    )
    expected = recovered[head.mirror[head.faces]].any(1)
    np.testing.assert_array_equal(result.defined[:-1].astype(bool), expected)
    assert not result.defined[-1]


@pytest.mark.parametrize("threads", [2, 5])
def test_result_does_not_depend_on_threads(threads):
    one, many = sewn(30), sew(ellipsoid_head(5), 30, threads=threads)
    np.testing.assert_array_equal(one.mesh.vertices, many.mesh.vertices)
    np.testing.assert_array_equal(one.mesh.faces, many.mesh.faces)


def test_bad_input_is_an_error():
    head = ellipsoid_head(3)
    with pytest.raises(ValueError, match="involution"):
        Zipper(head.faces, np.roll(head.mirror, 1))
    with pytest.raises(ValueError, match="names a vertex twice"):
        Zipper(np.r_[head.faces, [[3, 5, 5]]], head.mirror)
    with pytest.raises(ValueError, match="twice in the same direction"):
        Zipper(np.r_[head.faces, head.faces[:1]], head.mirror)
