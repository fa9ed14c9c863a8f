"""Eq. 9: hidden vertices from their mirror images."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from synthetic import ellipsoid_head

from extreme3d_fast.soft_symmetry import Recovery, SoftSymmetrySolver, soft_symmetry

HEAD = ellipsoid_head(4)
REFLECT = np.array([-1.0, 1.0, 1.0], np.float32)
TOLERANCE_MM = 1e-3  # float32 vertices of a 100 mm head: 8e-6 mm each, times the solve


def wavy(vertices, amplitude=2.0):
    """A displacement without any symmetry, smooth on the scale of the mesh."""
    x, y, z = vertices.T
    return (
        amplitude * np.stack([np.sin(y / 20), np.cos(x / 15 + 1), np.sin((x + z) / 25)], 1)
    ).astype(np.float32)


def twin(foundation, detailed, visible, faces, mirror, region):
    """Eq. 9 written down naively: dense loops, scipy's LU."""
    n = len(foundation)

    def weights(x):
        w = scipy.sparse.lil_matrix((n, n))
        for face in faces:
            for k in range(3):
                a, b, c = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
                u, v = x[b] - x[a], x[c] - x[a]
                cot = np.clip(u @ v / np.linalg.norm(np.cross(u, v)), -20, 20)
                w[b, c] += cot / 2
                w[c, b] += cot / 2
        w = w.tocsr()
        w.data = np.maximum(w.data, 1e-3)
        return w

    mirrored = detailed[mirror] * REFLECT
    wr, wf = weights(mirrored.astype(float)), weights(foundation.astype(float))
    unknown = np.flatnonzero(region & ~visible)
    matrix = scipy.sparse.lil_matrix((n, n))
    rhs = np.array(detailed, float)
    recovery = np.zeros(n, int)
    for i in unknown:
        ring = wr[i].indices
        seen = visible[mirror[i]] and visible[mirror[ring]].all()
        recovery[i] = Recovery.MIRRORED if seen else Recovery.FOUNDATION
    for i in range(n):
        if recovery[i] == Recovery.KEPT:
            matrix[i, i] = 1
            continue
        reflected = recovery[i] == Recovery.MIRRORED
        m = (mirrored if reflected else foundation).astype(float)
        rhs[i] = 0
        for j in wr[i].indices:
            w = (wr if reflected and recovery[j] != Recovery.FOUNDATION else wf)[i, j]
            rhs[i] += w * (m[i] - m[j])
            matrix[i, i] += w
            matrix[i, j] = -w
    return scipy.sparse.linalg.spsolve(matrix.tocsc(), rhs), recovery


def test_symmetric_detail_is_completed_exactly():
    truth = HEAD.vertices + 0.5 * (wavy(HEAD.vertices) + wavy(HEAD.vertices)[HEAD.mirror] * REFLECT)
    visible = HEAD.region & (HEAD.vertices[:, 0] > -8)
    known = visible | ~HEAD.region
    detailed = np.where(known[:, None], truth, HEAD.vertices).astype(np.float32)
    result = soft_symmetry(HEAD.vertices, detailed, visible, HEAD.faces, HEAD.mirror, HEAD.region)
    # vertices whose mirrored ring reaches the rim of the region carry F's differential instead
    inner = result.recovery == Recovery.MIRRORED
    assert inner.sum() > 300
    error = np.linalg.norm(result.vertices - truth, axis=1)
    assert np.median(error[inner]) < 0.15
    assert np.median(error[inner]) < 0.1 * np.median(
        np.linalg.norm(truth - HEAD.vertices, axis=1)[inner]
    )


def test_without_detail_the_foundation_comes_back():
    visible = HEAD.region & (HEAD.vertices[:, 0] > 0)
    result = soft_symmetry(
        HEAD.vertices, HEAD.vertices, visible, HEAD.faces, HEAD.mirror, HEAD.region
    )
    assert np.abs(result.vertices - HEAD.vertices).max() < TOLERANCE_MM
    np.testing.assert_array_equal(result.recovery > 0, HEAD.region & ~visible)


def test_lopsided_foundation_comes_back_too():
    """Without detail nothing moves, even where the two sides of F differ."""
    lopsided = HEAD.vertices + wavy(HEAD.vertices, 4.0)
    visible = HEAD.region & (np.abs(HEAD.vertices[:, 0]) < 20)
    result = soft_symmetry(lopsided, lopsided, visible, HEAD.faces, HEAD.mirror, HEAD.region)
    assert (result.recovery == Recovery.FOUNDATION).sum() > 200
    assert np.abs(result.vertices - lopsided)[result.recovery == Recovery.FOUNDATION].max() < 0.05


def test_vertices_without_a_mirror_image_follow_the_foundation():
    """Basel's table pairs some vertices with themselves for want of a partner."""
    lonely = np.flatnonzero(HEAD.region & (HEAD.vertices[:, 0] < -30))[::7]
    mirror = HEAD.mirror.copy()
    mirror[mirror[lonely]] = mirror[lonely]
    mirror[lonely] = lonely
    visible = HEAD.region & (HEAD.vertices[:, 0] > 0)
    result = soft_symmetry(HEAD.vertices, HEAD.vertices, visible, HEAD.faces, mirror, HEAD.region)
    assert (result.recovery[lonely] == Recovery.FOUNDATION).all()
    assert np.abs(result.vertices - HEAD.vertices).max() < TOLERANCE_MM


def test_translated_detail_is_carried_to_the_boundary_value():
    # all boundary moved by a constant: differentials of F are unchanged, so everything moves along
    shift = np.array([0.0, 3.0, -2.0], np.float32)
    visible = HEAD.region & (HEAD.vertices[:, 2] > 60)
    detailed = HEAD.vertices + shift
    result = soft_symmetry(HEAD.vertices, detailed, visible, HEAD.faces, HEAD.mirror, HEAD.region)
    assert np.abs(result.vertices - detailed).max() < TOLERANCE_MM


def test_equals_the_naive_twin():
    head = ellipsoid_head(3)
    rng = np.random.default_rng(3)
    foundation = head.vertices + rng.normal(0, 0.3, head.vertices.shape).astype(np.float32)
    visible = head.region & (head.vertices[:, 0] > -15) & (head.vertices[:, 2] > 0)
    detailed = np.where(visible[:, None], foundation + wavy(foundation), foundation)
    arguments = (
        foundation,
        detailed.astype(np.float32),
        visible,
        head.faces,
        head.mirror,
        head.region,
    )
    result = soft_symmetry(*arguments)
    expected, recovery = twin(*arguments)
    np.testing.assert_array_equal(result.recovery, recovery)
    assert {0, 1, 2} == set(recovery)
    assert np.abs(result.vertices - expected).max() < TOLERANCE_MM


def test_known_vertices_keep_every_bit():
    visible = HEAD.region & (HEAD.vertices[:, 0] > 0)
    detailed = HEAD.vertices + wavy(HEAD.vertices)
    result = soft_symmetry(HEAD.vertices, detailed, visible, HEAD.faces, HEAD.mirror, HEAD.region)
    kept = visible | ~HEAD.region
    np.testing.assert_array_equal(result.vertices[kept], detailed[kept])


@pytest.mark.parametrize("threads", [2, 5])
def test_result_does_not_depend_on_threads(threads):
    head = ellipsoid_head(6)  # several chunks of work in every loop
    solver = SoftSymmetrySolver(head.faces, head.mirror, head.region)
    visible = head.region & (head.vertices[:, 0] > 0)
    detailed = head.vertices + wavy(head.vertices)
    one = solver.solve(head.vertices, detailed, visible, threads=1)
    many = solver.solve(head.vertices, detailed, visible, threads=threads)
    assert (one.recovery > 0).sum() > 8000
    np.testing.assert_array_equal(one.vertices, many.vertices)


def test_mirror_image_of_the_input_gives_mirror_image_of_the_output():
    visible = HEAD.region & (HEAD.vertices[:, 0] > -10)
    detailed = HEAD.vertices + wavy(HEAD.vertices) * visible[:, None]
    solver = SoftSymmetrySolver(HEAD.faces, HEAD.mirror, HEAD.region)
    right = solver.solve(HEAD.vertices, detailed, visible)
    m = HEAD.mirror
    left = solver.solve(HEAD.vertices[m] * REFLECT, detailed[m] * REFLECT, visible[m])
    assert np.abs(left.vertices[m] * REFLECT - right.vertices).max() < TOLERANCE_MM


def test_a_region_with_nothing_known_around_it_is_kept():
    nothing = np.zeros(len(HEAD.vertices), bool)
    everywhere = ~nothing
    result = soft_symmetry(
        HEAD.vertices, HEAD.vertices, nothing, HEAD.faces, HEAD.mirror, everywhere
    )
    np.testing.assert_array_equal(result.vertices, HEAD.vertices)
    assert not result.recovery.any()


def test_bad_input_is_an_error():
    solver = SoftSymmetrySolver(HEAD.faces, HEAD.mirror, HEAD.region)
    visible = np.ones(len(HEAD.vertices), bool)
    with pytest.raises(ValueError, match="foundation"):
        solver.solve(HEAD.vertices[:-1], HEAD.vertices, visible)
    broken = HEAD.vertices.copy()
    broken[5, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        solver.solve(broken, HEAD.vertices, visible)
    with pytest.raises(ValueError, match="involution"):
        SoftSymmetrySolver(HEAD.faces, np.roll(HEAD.mirror, 1), HEAD.region)
    with pytest.raises(ValueError, match="names a vertex twice"):
        SoftSymmetrySolver(np.r_[HEAD.faces, [[3, 5, 5]]], HEAD.mirror, HEAD.region)
    with pytest.raises(ValueError, match="more than two"):
        SoftSymmetrySolver(np.r_[HEAD.faces, HEAD.faces[:1]], HEAD.mirror, HEAD.region)
