"""The head model: what its asset guarantees, what is computed, how bad files are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from extreme3d_fast.head_model import HeadModel, SubdivisionLevel

ASSET = Path(__file__).resolve().parents[1] / "python" / "extreme3d_fast" / "assets" / "head.npz"
FLIP = np.array([-1, 1, 1], np.float32)
# the 68-point scheme, left and right exchanged
MIRROR_68 = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load()


@pytest.fixture
def arrays() -> dict[str, NDArray[np.generic]]:
    with np.load(ASSET) as data:
        return dict(data)


def tetrahedron(**changes: object) -> HeadModel:
    """Smallest model: four vertices, two components, one expression, no subdivision."""
    values: dict[str, object] = {
        "mean": np.array([[-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        "identity": np.arange(24, dtype=np.float32).reshape(2, 4, 3),
        "expression": np.ones((1, 4, 3), np.float32),
        "expression_names": ("jawOpen",),
        "faces": np.array([[0, 1, 3], [1, 2, 3], [2, 0, 3], [0, 2, 1]], np.int32),
        "mirror": np.array([1, 0, 2, 3], np.int32),
    }
    return HeadModel(**(values | changes))  # type: ignore[arg-type]


def subdivide(model: HeadModel, coarse: NDArray[np.floating]) -> NDArray[np.floating]:
    for level in model.subdivision:
        rows = len(level.indptr) - 1
        shape = (rows, len(coarse))
        coarse = sparse.csr_matrix((level.weights, level.indices, level.indptr), shape) @ coarse
    return coarse


def boundary_edges(faces: NDArray[np.int32]) -> NDArray[np.int32]:
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() <= 2, "an edge has more than two faces"
    return unique[count == 1]


# === Evaluation ===


def test_zero_coefficients_give_the_mean_and_one_coefficient_adds_its_component() -> None:
    small = tetrahedron()
    np.testing.assert_array_equal(small.vertices(), small.mean)
    moved = small.vertices([0, 2], [0.5])
    np.testing.assert_array_equal(moved, small.mean + 2 * small.identity[1] + 0.5)


def test_subdivision_is_applied_after_the_basis() -> None:
    indptr, indices = np.array([0, 1, 2, 4]), np.array([0, 2, 0, 1])
    half = SubdivisionLevel(indptr, indices, np.array([1, 1, 0.5, 0.5]))
    small = tetrahedron(
        subdivision=(half,), faces=np.array([[0, 1, 2]]), mirror=np.array([0, 1, 2])
    )
    full = tetrahedron().vertices([1, 1], [1])
    expected = np.stack([full[0], full[2], (full[0] + full[1]) / 2])
    np.testing.assert_allclose(small.vertices([1, 1], [1]), expected, rtol=1e-6)


def test_evaluation_equals_the_naive_sum(model: HeadModel, rng: np.random.Generator) -> None:
    alpha, eta = rng.normal(size=model.n_identity), rng.uniform(size=model.n_expression)
    coarse = model.mean.astype(float)
    coarse = (
        coarse + np.tensordot(alpha, model.identity, 1) + np.tensordot(eta, model.expression, 1)
    )
    np.testing.assert_allclose(model.vertices(alpha, eta), subdivide(model, coarse), atol=2e-4)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), threads=st.integers(2, 9))
def test_threads_do_not_change_a_bit(seed: int, threads: int) -> None:
    model = _shared_model()
    rng = np.random.default_rng(seed)
    alpha, eta = rng.normal(size=model.n_identity), rng.uniform(size=model.n_expression)
    one = model.vertices(alpha, eta, threads=1)
    np.testing.assert_array_equal(one, model.vertices(alpha, eta, threads=threads))


def test_landmark_basis_equals_interpolated_vertices(
    model: HeadModel, rng: np.random.Generator
) -> None:
    alpha, eta = rng.normal(size=model.n_identity), rng.uniform(size=model.n_expression)
    vertices = model.vertices(alpha, eta)
    for which, count in (("68", 68), ("478", 478)):
        basis = model.landmark_basis(which)
        faces = getattr(model, f"landmarks{which}_faces")
        weights = getattr(model, f"landmarks{which}_bary")
        expected = np.einsum("lk,lkd->ld", weights, vertices[model.all_faces[faces]])
        points = basis.mean + np.tensordot(alpha, basis.identity, 1)
        points = points + np.tensordot(eta, basis.expression, 1)
        assert points.shape == (count, 3)
        np.testing.assert_allclose(points, expected, atol=3e-4)
        assert model.landmark_basis(which) is basis


def test_a_model_without_landmarks_says_so() -> None:
    with pytest.raises(ValueError, match="no '68' landmarks"):
        tetrahedron().landmark_basis("68")
    with pytest.raises(ValueError, match="'5'"):
        tetrahedron().landmark_basis("5")


@pytest.mark.parametrize(
    ("identity", "expression", "named"),
    [
        ([1.0], None, "identity"),
        (None, [1.0, 2.0], "expression"),
        ([[0.0, 0.0]], None, "identity"),
        ([0.0, np.nan], None, "identity"),
        (None, [np.inf], "expression"),
        (["a", "b"], None, "identity"),
        ([1 + 2j, 0], None, "identity"),
    ],
)
def test_wrong_coefficients_are_named(identity: object, expression: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tetrahedron().vertices(identity, expression)  # type: ignore[arg-type]


# === The asset ===


def test_the_built_in_head_has_the_promised_sizes(model: HeadModel) -> None:
    assert model.n_identity == 99
    assert model.n_expression == 52
    assert {"jawOpen", "eyeBlinkLeft", "mouthSmileRight", "tongueOut"} <= set(
        model.expression_names
    )
    assert model.skin_vertex_count >= 50_000
    assert model.part_names[0] == "skin"
    assert {"left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue"} < set(model.part_names)
    assert len(model.landmarks68_faces) == 68
    assert len(model.landmarks478_faces) == 478
    assert ASSET.stat().st_size < 12e6


def test_lengths_are_those_of_a_head_in_millimetres(model: HeadModel) -> None:
    points = model.landmark_basis("68").mean
    assert 85 < np.linalg.norm(points[36] - points[45]) < 105  # outer eye corners
    assert 100 < np.linalg.norm(points[27] - points[8]) < 130  # nasion to chin
    assert points[36, 0] < 0 < points[45, 0]  # the subject's left eye is at positive x
    assert points[8, 1] < points[27, 1]
    assert points[30, 2] == points[:, 2].max()


def test_mirror_tables_are_involutions_that_keep_the_mean_exactly(model: HeadModel) -> None:
    for mirror, vertices in ((model.coarse_mirror, model.mean), (model.mirror, model.vertices())):
        np.testing.assert_array_equal(mirror[mirror], np.arange(len(vertices)))
        np.testing.assert_array_equal(vertices[mirror] * FLIP, vertices)


def test_mirrored_triangles_are_triangles_of_the_mesh(model: HeadModel) -> None:
    faces = model.all_faces
    image = model.mirror[faces][:, ::-1]  # a reflection turns faces inside out
    start = image.argmin(1)[:, None]
    image = np.take_along_axis(image, (np.arange(3) + start) % 3, 1)
    start = faces.argmin(1)[:, None]
    faces = np.take_along_axis(faces, (np.arange(3) + start) % 3, 1)
    assert {tuple(f) for f in image.tolist()} == {tuple(f) for f in faces.tolist()}


def test_left_and_right_expressions_are_mirror_images(model: HeadModel) -> None:
    index = {name: i for i, name in enumerate(model.expression_names)}
    for name, i in index.items():
        twin = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        image = model.expression[index[twin]][model.coarse_mirror] * FLIP
        np.testing.assert_array_equal(model.expression[i], image)


def test_subdivision_rows_average(model: HeadModel) -> None:
    for level in model.subdivision:
        sums = np.add.reduceat(level.weights, level.indptr[:-1])
        np.testing.assert_allclose(sums, 1, atol=1e-6)
    flat = model.mean.astype(float)
    flat[:, 2] = 0.3 * flat[:, 0] - 0.7 * flat[:, 1] + 5
    fine = subdivide(model, flat)
    np.testing.assert_allclose(fine[:, 2], 0.3 * fine[:, 0] - 0.7 * fine[:, 1] + 5, atol=1e-4)


def test_skin_is_one_manifold_piece_open_only_at_the_neck(model: HeadModel) -> None:
    faces, count = model.faces, model.skin_vertex_count
    np.testing.assert_array_equal(np.unique(faces), np.arange(count))
    directed = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert len(np.unique(directed, axis=0)) == len(directed), "neighbours disagree on orientation"
    graph = sparse.coo_matrix((np.ones(len(directed)), directed.T), (count, count))
    assert csgraph.connected_components(graph, directed=False)[0] == 1
    rim = boundary_edges(faces)
    np.testing.assert_array_equal(np.unique(np.bincount(rim.ravel())), [0, 2])
    ring = sparse.coo_matrix((np.ones(len(rim)), rim.T), (count, count))
    _, label = csgraph.connected_components(ring, directed=False)
    assert len(np.unique(label[rim])) == 1
    assert model.vertices()[rim, 1].max() < -80
    # every vertex's faces form one fan: as many faces as edges, or one less on the border
    valence = np.bincount(np.unique(np.sort(directed, 1), axis=0).ravel(), minlength=count)
    around = np.bincount(faces.ravel(), minlength=count)
    np.testing.assert_array_equal(valence - around, np.isin(np.arange(count), rim))


def test_faces_look_outwards(model: HeadModel) -> None:
    vertices = model.vertices().astype(float)
    for name in model.part_names:
        corners = vertices[model.part_faces[name]]
        corners = corners - corners.mean((0, 1))
        assert np.linalg.det(corners).sum() > 0, name


def test_landmarks_are_symmetric(model: HeadModel) -> None:
    points = model.landmark_basis("68").mean
    centre = np.flatnonzero(np.arange(68) == MIRROR_68)
    sides = np.setdiff1d(np.arange(68), centre)
    np.testing.assert_allclose(points[MIRROR_68][sides] * FLIP, points[sides], atol=1e-4)
    np.testing.assert_allclose(points[centre, 0], 0, atol=0.1)
    mesh = model.landmark_basis("478").mean
    for right, left in ((33, 263), (133, 362), (61, 291), (234, 454), (105, 334), (159, 386)):
        np.testing.assert_allclose(mesh[right] * FLIP, mesh[left], atol=1e-4)
    np.testing.assert_allclose(mesh[[1, 4, 10, 152, 168, 13, 14, 0, 17], 0], 0, atol=0.1)


def test_the_two_landmark_sets_agree_where_they_name_the_same_point(model: HeadModel) -> None:
    points, mesh = model.landmark_basis("68").mean, model.landmark_basis("478").mean
    same = {36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291, 51: 0, 57: 17, 30: 4, 27: 168}
    gap = np.linalg.norm(points[list(same)] - mesh[list(same.values())], axis=1)
    assert gap.max() < 5, dict(zip(same, gap.round(1).tolist(), strict=True))


def test_bump_weight_is_smooth_symmetric_and_zero_where_skin_turns_inside(
    model: HeadModel,
) -> None:
    weight, count = model.face_weight, model.skin_vertex_count
    assert weight.shape == (count,)
    assert weight.min() == 0
    assert weight.max() == 1
    np.testing.assert_allclose(weight[model.mirror[:count]], weight, atol=1e-6)
    np.testing.assert_array_equal(model.face_region[model.mirror[:count]], model.face_region)
    assert not (weight[~model.face_region] > 0).any()
    at = (weight[model.faces[model.landmarks478_faces[:468]]]).mean(1)
    assert (at[[1, 4, 50, 280, 9, 151, 200, 101, 330]] == 1).all()  # nose, cheeks, forehead, chin
    assert (at[[33, 133, 159, 145, 13, 14]] < 0.5).all()  # eye corners, lids, between the lips
    assert (weight[model.vertices()[:count, 2] < -25] == 0).all()  # back of the head


def test_model_arrays_cannot_be_written(model: HeadModel) -> None:
    with pytest.raises(ValueError, match="read-only"):
        model.mean[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.mean = model.mean  # type: ignore[misc]


# === Bad input ===


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": np.zeros((4, 2), np.float32)},
        {"mean": np.full((4, 3), np.nan, np.float32)},
        {"mean": np.array([["a"] * 3] * 4)},
        {"identity": np.zeros((2, 5, 3), np.float32)},
        {"expression_names": ("a", "b")},
        {"faces": np.array([[0, 1, 4]])},
        {"faces": np.array([[0, 1, -1]])},
        {"faces": np.array([[0.0, 1.0, 2.0]])},
        {"mirror": np.array([0, 1, 2])},
        {"face_weight": np.zeros(3, np.float32)},
        {"landmarks68_faces": np.array([4]), "landmarks68_bary": np.ones((1, 3), np.float32)},
        {"landmarks68_faces": np.array([0])},
        {"faces_uv": np.zeros((4, 3), np.int32)},
        {"part_names": ("skin", "hat"), "part_vertex_range": np.array([[0, 3], [3, 4]])},
        {"part_names": ("hat",)},
        {"subdivision": (SubdivisionLevel(np.array([0, 1]), np.array([4]), np.array([1.0])),)},
        {"subdivision": (SubdivisionLevel(np.array([0, 2]), np.array([0]), np.array([1.0])),)},
    ],
)
def test_inconsistent_arrays_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"should|has index"):
        tetrahedron(**changes)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no head model at .*none\.npz"):
        HeadModel.load(tmp_path / "none.npz")


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, 1_000_000, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.npz"
    path.write_bytes(ASSET.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut\.npz is not a"):
        HeadModel.load(path)


@pytest.mark.parametrize(
    "content", [b"hello", b"PK\x03\x04" + bytes(100), b"\x93NUMPY" + b"x" * 40]
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"foreign\.npz is not a"):
        HeadModel.load(path)


def test_damaged_bytes_never_give_a_model_that_differs_silently(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    good = np.frombuffer(ASSET.read_bytes(), np.uint8)
    path = tmp_path / "damaged.npz"
    for _ in range(8):
        bad = good.copy()
        bad[rng.integers(200, len(good) // 2, 20)] ^= 0x5A
        path.write_bytes(bad.tobytes())
        with pytest.raises(ValueError, match=r"damaged\.npz is not a"):
            HeadModel.load(path)


def test_pickled_arrays_are_never_loaded(
    tmp_path: Path, arrays: dict[str, NDArray[np.generic]]
) -> None:
    arrays["expression_names"] = np.array([{"a": 1}] * 52, dtype=object)
    np.savez(tmp_path / "pickled.npz", **arrays)
    with pytest.raises(ValueError, match=r"pickled\.npz is not a readable head model"):
        HeadModel.load(tmp_path / "pickled.npz")


@pytest.mark.parametrize("name", ["mean", "sub0_weights", "part_faces_tongue", "landmarks68_bary"])
def test_a_missing_array_is_named(
    tmp_path: Path, arrays: dict[str, NDArray[np.generic]], name: str
) -> None:
    del arrays[name]
    np.savez(tmp_path / "partial.npz", **arrays)
    with pytest.raises(ValueError, match=name):
        HeadModel.load(tmp_path / "partial.npz")


def test_a_saved_model_loads_again_unchanged(
    tmp_path: Path, arrays: dict[str, NDArray[np.generic]], model: HeadModel
) -> None:
    np.savez(tmp_path / "copy.npz", **arrays)
    copy = HeadModel.load(str(tmp_path / "copy.npz"))
    np.testing.assert_array_equal(copy.vertices(), model.vertices())


_MODELS: list[HeadModel] = []


def _shared_model() -> HeadModel:
    if not _MODELS:
        _MODELS.append(HeadModel.load())
    return _MODELS[0]
