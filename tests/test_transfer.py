"""A reference's bump lands on the same place of another head."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_references import reference_face, write_reference_set

from extreme3d_fast._arrays import bounding_box
from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.face_chart import CHART_SHAPE, FaceChart, continued
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_normals
from extreme3d_fast.rasterize import interpolate, rasterize, vertex_visibility
from extreme3d_fast.references import Reference, ReferenceFace, ReferenceSet, ReferenceWriter
from extreme3d_fast.transfer import (
    expected_relief,
    mean_relief,
    warp_by_similarity,
    warp_by_surface,
)

CAMERA = Camera(1300.0, 1300.0, 250.0, 250.0, 500, 500)
# mm RMS: a px of the chart is 1.1 mm, the waves below are 100 mm long and 0.5 mm high
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def model():
    return HeadModel.load()


def pose(yaw, pitch=0.0):
    out = np.eye(4, dtype=np.float32)
    out[:3, :3] = rotation_from_angles(yaw, pitch, 0)
    out[:3, 3] = out[:3, :3] @ [0, -10, -60] + [0, 0, 720]
    return out


@pytest.fixture(scope="module")
def chart(model):
    return FaceChart(model)


def seen(model, identity, camera_from_head, camera=CAMERA):
    """What the pixels of a crop see of a head's skin, and the skin's vertices in the camera."""
    skin = slice(0, model.skin_vertex_count)
    rest = np.zeros(model.n_expression, np.float32)
    in_camera = transform_points(camera_from_head, model.vertices(identity, rest)[skin])
    return rasterize(in_camera, model.faces, camera), in_camera


def reference(model, chart, identity, camera_from_head, pattern):
    """A face with a pattern of its vertices as its bump map."""
    raster, in_camera = seen(model, identity, camera_from_head)
    rest = np.zeros(model.n_expression, np.float32)
    head = model.vertices(identity, rest)[: model.skin_vertex_count]
    normals = rotate_vectors(camera_from_head, vertex_normals(head, model.faces))
    visible = vertex_visibility(in_camera, normals, raster.depth, CAMERA, depth_tolerance=2)
    bump, shown = chart.unroll(
        interpolate(raster, pattern, model.faces),
        raster.triangle >= 0,
        in_camera,
        visible,
        CAMERA,
    )
    landmarks = model.landmark_basis("68").positions(identity, rest)
    return ReferenceFace(
        bump=continued(bump, shown),
        seen=shown,
        identity=identity,
        expression=rest,
        camera=CAMERA,
        camera_from_head=camera_from_head,
        landmarks68=CAMERA.project(transform_points(camera_from_head, landmarks)).astype("f4"),
    )


def smooth_pattern(model):
    """(V,) mm: differs from place to place, and between left and right."""
    x, y, _ = model.vertices(*zero(model))[: model.skin_vertex_count].T
    return (0.5 * np.sin(x / 17 + 0.4) + 0.4 * np.cos(y / 21)).astype(np.float32)


def zero(model):
    return np.zeros(model.n_identity, np.float32), np.zeros(model.n_expression, np.float32)


def face_pixels(model, raster):
    weight = interpolate(raster, model.face_weight, model.faces)
    return weight > 0.9


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("yaw", "other_yaw"), [(0, 0), (0, 12), (35, 20)])
def test_pattern_of_the_skin_stays_on_the_skin(model, chart, yaw, other_yaw, mirrored):
    rng = np.random.default_rng(0)
    mine, theirs = (rng.normal(size=model.n_identity).astype(np.float32) for _ in range(2))
    pattern = smooth_pattern(model)
    mirror = model.mirror[: model.skin_vertex_count]
    face = reference(model, chart, theirs, pose(-other_yaw if mirrored else other_yaw), pattern)
    raster, _ = seen(model, mine, pose(yaw))
    want = interpolate(raster, pattern[mirror] if mirrored else pattern, model.faces)
    side = slice(None, None, -1 if mirrored else 1)
    borrowed = warp_by_surface(face.bump[:, side], face.seen[:, side], chart, raster)
    compared = borrowed.valid & face_pixels(model, raster)
    assert compared.sum() > 0.75 * face_pixels(model, raster).sum()
    assert np.sqrt(np.mean((borrowed.bump - want)[compared] ** 2)) < TOLERANCE


def test_what_the_reference_does_not_show_is_not_valid(model, chart):
    raster, in_camera = seen(model, zero(model)[0], pose(0))
    face = reference(model, chart, zero(model)[0], pose(50), smooth_pattern(model))
    valid = warp_by_surface(face.bump, face.seen, chart, raster).valid
    x = CAMERA.project(in_camera)[:, 0].mean()
    columns = np.arange(500)
    left, right = valid[:, columns > x + 40].sum(), valid[:, columns < x - 40].sum()
    assert min(left, right) < 0.3 * max(left, right)
    assert not valid[raster.triangle < 0].any()


@settings(max_examples=15, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(0.8, 1.3), st.floats(-30, 30), st.booleans())
def test_similar_pictures_are_laid_on_each_other(model, chart, turn, scale, shift, mirrored):
    pattern = smooth_pattern(model)
    face = reference(model, chart, zero(model)[0], pose(0), pattern)
    raster, _ = seen(model, zero(model)[0], pose(0))
    picture = interpolate(raster, pattern, model.faces)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def moved(points):
        return (points - 250) @ rotation.T + 250 + [shift, -shift]

    # the head is symmetric, so its mirror image has the same landmarks
    borrowed = warp_by_similarity(
        face, mirrored, model, chart, moved(face.landmarks68), CAMERA.width
    )
    at = np.stack(np.meshgrid([200.5, 220.5, 280.5], [210.5, 260.5, 300.5]), -1).reshape(-1, 2)
    x, y = np.floor(moved(at)).astype(int).T
    if mirrored:
        at = [500, 0] + at * [-1, 1]
    column, row = np.floor(at).astype(int).T
    assert borrowed.valid[y, x].all()
    np.testing.assert_allclose(borrowed.bump[y, x], picture[row, column], atol=0.06)


def test_landmarks_in_one_place_are_refused(model, chart):
    face = reference(model, chart, zero(model)[0], pose(0), smooth_pattern(model))
    face = dataclasses.replace(face, landmarks68=np.full((68, 2), 250, np.float32))
    with pytest.raises(ValueError, match="one place"):
        warp_by_similarity(face, False, model, chart, np.full((68, 2), 100.0), 500)


def test_mean_counts_what_is_seen(tmp_path):
    """Two faces: one knows the left half of the chart, the other one, mirrored, the same half."""
    rng = np.random.default_rng(0)
    left = np.arange(CHART_SHAPE[1]) < CHART_SHAPE[1] // 2
    faces = []
    for height, seen_half in ((1.0, left), (3.0, ~left)):
        face = reference_face(rng)
        seen_there = np.broadcast_to(seen_half, CHART_SHAPE)
        bump = np.full(CHART_SHAPE, height, np.float32)
        faces.append(dataclasses.replace(face, bump=bump, seen=np.array(seen_there)))
    with ReferenceWriter(tmp_path / "two.npz", head_model="") as writer:
        for face in faces:
            writer.add(face, np.ones(4))
    found = [Reference(0, False, 0.0, 1.0), Reference(1, True, 0.0, 1.0)]
    mean, known = mean_relief(ReferenceSet.load(tmp_path / "two.npz"), found)
    assert np.array_equal(known, np.broadcast_to(left, CHART_SHAPE))
    np.testing.assert_allclose(mean[known], 2.0, atol=0.01)
    one, known = mean_relief(ReferenceSet.load(tmp_path / "two.npz"), found[:1])
    np.testing.assert_allclose(one[known], 1.0, atol=0.01)


def waves(rng, count):
    """(count, H, W) mm: smooth relief, of three waves each."""
    y, x = np.mgrid[: CHART_SHAPE[0], : CHART_SHAPE[1]].astype(np.float32)
    return np.stack(
        [
            sum(0.2 * np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.05, 0.3, (3, 3)))
            for _ in range(count)
        ]
    ).astype(np.float32)


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """A set of a dozen faces that show everything, what a search finds, and their relief."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("alike") / "set.npz"
    reliefs = waves(rng, 12)
    face = dataclasses.replace(reference_face(rng), seen=np.ones(CHART_SHAPE, bool))
    with ReferenceWriter(path, head_model="") as writer:
        for bump in reliefs:
            writer.add(dataclasses.replace(face, bump=bump), np.ones(4))
    return ReferenceSet.load(path), [Reference(i, False, 0.0, 1.0) for i in range(12)], reliefs


def half_hidden():
    """(H, W) bool: the lower half of the chart is hidden, on both sides."""
    return np.broadcast_to(np.arange(CHART_SHAPE[0])[:, None] < CHART_SHAPE[0] // 2, CHART_SHAPE)


def test_nothing_seen_is_expected_to_be_the_mean(alike):
    references, found, reliefs = alike
    nothing = np.zeros(CHART_SHAPE, bool)
    relief, known = expected_relief(references, found, np.zeros(CHART_SHAPE, np.float32), nothing)
    np.testing.assert_allclose(relief, reliefs.mean(0), atol=0.03)  # of the stored maps
    assert known.all()


def test_relief_that_mixes_references_is_expected_where_it_is_hidden(alike):
    references, found, reliefs = alike
    mean = reliefs.mean(0)
    own = mean + 0.8 * (reliefs[2] - mean) - 0.5 * (reliefs[7] - mean)
    seen = half_hidden()
    relief, _ = expected_relief(references, found, np.where(seen, own, 0), seen)
    error, without = (np.sqrt(np.mean((r - own)[~seen] ** 2)) for r in (relief, mean))
    assert error < 0.8 * without


def test_relief_of_the_other_side_counts(alike):
    references, found, reliefs = alike
    right = np.broadcast_to(np.arange(CHART_SHAPE[1]) < CHART_SHAPE[1] // 2, CHART_SHAPE)
    symmetric = 5 * (reliefs[0] + reliefs[0][:, ::-1])
    with_own, _ = expected_relief(references, found, np.where(right, symmetric, 0), right)
    nothing = np.zeros(CHART_SHAPE, bool)
    without, _ = expected_relief(references, found, symmetric, nothing)
    error, error_without = (
        np.abs((relief - symmetric)[:, 170:280]).mean() for relief in (with_own, without)
    )
    assert error < 0.9 * error_without


def test_one_reference_is_lent_as_it_is(alike):
    references, found, reliefs = alike
    seen = half_hidden()
    relief, _ = expected_relief(references, found[4:5], np.where(seen, reliefs[0], 0), seen)
    np.testing.assert_allclose(relief[~seen], reliefs[4][~seen], atol=0.03)


def expected_naively(reliefs, shown, own, seen):
    """Twin: `expected_relief` from the formula in its docstring, (N, H, W) reliefs in float64."""
    weight = np.maximum(shown, 1e-3)
    mean = (weight * reliefs).sum(0) / weight.sum(0)
    known = shown.mean(0) >= 0.25
    deviation = shown * (reliefs - mean)

    def half(maps):
        height, width = maps.shape[-2:]
        return maps.reshape(*maps.shape[:-2], height // 2, 2, width // 2, 2).mean((-3, -1))

    use = half(seen & known) == 1
    links = (
        ((..., slice(None), slice(1, None)), (..., slice(None), slice(-1))),
        ((..., slice(1, None), slice(None)), (..., slice(-1), slice(None))),
    )

    def slopes(maps):
        return np.concatenate(
            [(half(maps)[b] - half(maps)[a])[..., use[a] & use[b]] for a, b in links], -1
        )

    gradients, wanted = slopes(deviation), slopes(np.where(seen, own - mean, 0))
    gram = gradients @ gradients.T
    prior = 3 * np.trace(gram) / len(reliefs) * np.eye(len(reliefs))
    coefficients = np.linalg.lstsq(gram + prior, gradients @ wanted, rcond=None)[0]
    relief = mean + np.tensordot(coefficients, deviation, 1)
    inner = cv2.erode(seen[:, ::-1].astype(np.float32), np.ones((9, 9), np.uint8))
    share = 0.25 * cv2.blur(inner, (9, 9))
    return relief + share * (own[:, ::-1] - relief), known | seen[:, ::-1]


@pytest.mark.parametrize("count", [1, 9, 16])
@pytest.mark.parametrize("side", ["left", "all", "nothing", "speckled"])
def test_expected_relief_is_the_conditional_mean(tmp_path, count, side):
    rng = np.random.default_rng(5)
    write_reference_set(tmp_path / "set.npz", 10, seed=5)
    references = ReferenceSet.load(tmp_path / "set.npz")
    found = [Reference(i // 2, bool(i % 2), 0.0, 1.0) for i in rng.permutation(20)[:count]]
    reliefs, shown = [], []
    for reference in found:
        maps = references.relief(reference.index)
        bump, there = (m[:, ::-1] for m in maps) if reference.mirrored else maps
        reliefs.append(bump.astype(np.float64))
        shown.append(there)
    y, x = np.mgrid[: CHART_SHAPE[0], : CHART_SHAPE[1]]
    own = waves(rng, 1)[0]
    seen = {
        "left": (x < 170) & (y > 30),
        "all": x >= 0,
        "nothing": x < 0,
        "speckled": rng.random(CHART_SHAPE) < 0.999,
    }[side]
    relief, known = expected_relief(references, found, own, seen)
    expected, expected_known = expected_naively(np.stack(reliefs), np.stack(shown), own, seen)
    np.testing.assert_array_equal(known, expected_known)
    np.testing.assert_allclose(relief, expected, atol=1e-5)  # mm, of a few; float32
    np.testing.assert_array_equal(
        relief, expected_relief(references, found, own, seen, threads=3)[0]
    )


def test_nobody_to_expect_relief_from_is_refused(alike):
    references, found, reliefs = alike
    with pytest.raises(ValueError, match="found"):
        expected_relief(references, [], reliefs[0], half_hidden())
    with pytest.raises(ValueError, match="own"):
        expected_relief(references, found, reliefs[0][1:], half_hidden())
    with pytest.raises(TypeError, match="seen"):
        expected_relief(references, found, reliefs[0], reliefs[0])


def sampled(image, x, y):
    """Twin of bilinear interpolation at positions that count from pixel centres; 0 outside."""
    padded = np.pad(image.astype(np.float64), 2)
    column = np.clip(np.floor(x).astype(int), -2, image.shape[1])
    row = np.clip(np.floor(y).astype(int), -2, image.shape[0])
    a, b = np.clip(x - column, 0, 1), np.clip(y - row, 0, 1)
    corner = (
        padded[row + 2, column + 2],
        padded[row + 2, np.minimum(column + 3, padded.shape[1] - 1)],
    )
    below = np.minimum(row + 3, padded.shape[0] - 1)
    under = padded[below, column + 2], padded[below, np.minimum(column + 3, padded.shape[1] - 1)]
    return (1 - b) * ((1 - a) * corner[0] + a * corner[1]) + b * ((1 - a) * under[0] + a * under[1])


def visible_skin(in_camera, raster, model, camera_from_head):
    head = model.vertices(*zero(model))[: model.skin_vertex_count]
    normals = rotate_vectors(camera_from_head, vertex_normals(head, model.faces))
    return vertex_visibility(in_camera, normals, raster.depth, CAMERA, depth_tolerance=2)


@pytest.mark.parametrize("yaw", [0, 50])
def test_unrolled_map_is_the_blurred_one_at_the_places_of_the_skin(model, chart, yaw):
    rng = np.random.default_rng(1)
    raster, in_camera = seen(model, zero(model)[0], pose(yaw))
    visible = visible_skin(in_camera, raster, model, pose(yaw))
    known = (raster.triangle >= 0) & (rng.random((500, 500)) < 0.999)
    known[:200, 230:] = False
    y, x = np.mgrid[:500, :500]
    image = (np.sin(x / 3) * np.cos(y / 5)).astype(np.float32)
    bump, shown = chart.unroll(image, known, in_camera, visible, CAMERA)

    rows, columns = bounding_box(known)
    counts = known[rows, columns].astype(np.float32)
    share = cv2.GaussianBlur(counts, (0, 0), 0.8)
    mean = cv2.GaussianBlur(counts * image[rows, columns], (0, 0), 0.8) / np.maximum(share, 1e-6)
    place = CAMERA.project(in_camera) - [columns.start, rows.start]
    place[~visible] = -9
    px, py = (
        interpolate(chart.raster, place[:, axis], model.faces) - np.float32(0.5) for axis in (0, 1)
    )
    expected = interpolate(chart.raster, visible.astype(float), model.faces) > 0.99
    expected &= sampled(counts, px, py) > 0.99
    assert (shown != expected).sum() <= 2  # a position within rounding of where seeing ends
    both = shown & expected
    assert both.sum() > 3000
    # positions are off by 1e-4 px of float32, slopes 0.3 a px
    np.testing.assert_allclose(bump[both], sampled(mean, px, py)[both], atol=1e-4)
    assert not bump[~shown].any()
    again = chart.unroll(image, known, in_camera, visible, CAMERA, threads=3)
    np.testing.assert_array_equal(again[0], bump)
    np.testing.assert_array_equal(again[1], shown)


def cubic_kernel(distance):
    """Keys' kernel with a = -0.75, which OpenCV takes."""
    d, a = np.abs(distance), -0.75
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def test_warped_relief_is_the_cubic_one_at_the_places_of_the_pixels(model, chart):
    rng = np.random.default_rng(2)
    raster, _ = seen(model, zero(model)[0], pose(20))
    relief = rng.normal(size=CHART_SHAPE).astype(np.float32)
    shown = rng.random(CHART_SHAPE) < 0.95
    where = np.zeros((500, 500), bool)
    where[150:350, 200:300] = rng.random((200, 100)) < 0.3
    bump, valid = warp_by_surface(relief, shown, chart, raster, where=where)
    x, y = (
        interpolate(raster, chart.place[:, axis], model.faces) - np.float32(0.5) for axis in (0, 1)
    )
    expected = np.zeros((500, 500))
    for dy in range(-1, 3):
        for dx in range(-1, 3):
            column, row = np.floor(x).astype(int) + dx, np.floor(y).astype(int) + dy
            values = relief[
                np.clip(row, 0, CHART_SHAPE[0] - 1), np.clip(column, 0, CHART_SHAPE[1] - 1)
            ]
            expected += cubic_kernel(x - column) * cubic_kernel(y - row) * values
    seen_there = (sampled(shown, x, y) > 0.99) & (raster.triangle >= 0)
    assert (valid != seen_there)[where].sum() <= 2
    both = valid & seen_there & where
    assert both.sum() > 3000
    np.testing.assert_allclose(bump[both], expected[both], atol=2e-4)
    beside = cv2.dilate(where.view(np.uint8), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8))
    assert not valid[beside == 0].any()
    again = warp_by_surface(relief, shown, chart, raster, where=where, threads=3)
    np.testing.assert_array_equal(again.bump, bump)
    np.testing.assert_array_equal(again.valid, valid)


def test_chart_is_symmetric_and_holds_the_face(model, chart):
    mirror = model.mirror[: model.skin_vertex_count]
    face = model.face_weight > 0
    height, width = CHART_SHAPE
    np.testing.assert_allclose(
        chart.place[mirror][face] * [-1, 1] + [width, 0], chart.place[face], atol=0.02
    )
    assert (chart.place[face] > 0).all()
    assert (chart.place[face] < [width, height]).all()


def test_nothing_known_gives_nothing(model, chart):
    nothing = np.zeros((500, 500), bool)
    in_camera = np.full((model.skin_vertex_count, 3), 700.0)
    everywhere = np.ones(model.skin_vertex_count, bool)
    bump, shown = chart.unroll(np.ones((500, 500)), nothing, in_camera, everywhere, CAMERA)
    assert not bump.any()
    assert not shown.any()
    assert not continued(bump, shown).any()
