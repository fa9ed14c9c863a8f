"""Claims about reading users' head models, on small files of the right format written here."""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path

import numpy as np
import pytest

from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.head_model import HeadModel

sio = pytest.importorskip("scipy.io")
h5py = pytest.importorskip("h5py")

SIDE = 9  # grid vertices per side of the synthetic face
V = SIDE * SIDE
K, E = 5, 3  # identity and expression components in the files
RNG_SEED = 7
# float32 keeps seven digits of at most 200 mm.
TOLERANCE_MM = 1e-4


def bowl():
    """A face-like shell bulging to +z, symmetric in x: (V, 3) mm, and (F, 3) outward triangles."""
    axis = np.linspace(-80, 80, SIDE)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    mean = np.stack([x, y, 90 - (x**2 + y**2) / 160], 1)
    corner = np.arange(V).reshape(SIDE, SIDE)
    a, b, c, d = (
        part.ravel()
        for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1])
    )
    return mean, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def modes(count):
    """(3V, count) directions and (count,) standard deviations."""
    rng = np.random.default_rng(RNG_SEED + count)
    return rng.normal(size=(3 * V, count)).astype(np.float32), rng.uniform(0.5, 2, count)


def coefficients():
    rng = np.random.default_rng(RNG_SEED)
    return rng.normal(size=K).astype(np.float32), rng.normal(size=E).astype(np.float32)


def write_basel_2009(folder, **changes):
    mean, faces = bowl()
    basis, deviations = modes(K)
    path = folder / "01_MorphableModel.mat"
    content = {
        "shapeMU": mean.reshape(-1, 1) * 1000,
        "shapePC": basis,
        "shapeEV": deviations[:, None] * 1000,
        "tl": faces.astype(float) + 1,
        "texMU": np.full((3 * V, 1), 130.0),
    }
    sio.savemat(path, {k: v for k, v in (content | changes).items() if v is not None})
    return path


def write_3ddfa(folder, rows=V, **changes):
    basis, deviations = modes(E)
    path = folder / "Model_Expression.mat"
    content = {
        "mu_exp": np.full((3 * rows, 1), 500.0),
        "w_exp": basis[: 3 * rows] * 1000,
        "sigma_exp": deviations[:, None],
    }
    sio.savemat(path, content | changes)
    return path


def write_basel_h5(folder, **changes):
    mean, faces = bowl()
    path = folder / "model2019_face12.h5"
    content = {"shape/representer/cells": faces.T, "shape/model/mean": mean.ravel()}
    content["shape/model/pcaBasis"], deviations = modes(K)
    content["shape/model/pcaVariance"] = deviations**2
    content["expression/model/mean"] = np.full(3 * V, 0.25)
    content["expression/model/pcaBasis"], deviations = modes(E)
    content["expression/model/pcaVariance"] = deviations**2
    with h5py.File(path, "w") as file:
        for name, value in (content | changes).items():
            if value is not None:
                file[name] = value
    return path


def obj_text(vertices, quads):
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices]
    lines += ["vt 0 0", "usemtl M_Face"]
    lines += ["f " + " ".join(f"{i + 1}/1" for i in quad) for quad in quads]
    return "# ICT FaceKit\n" + "\n".join(lines) + "\n"


def write_ict(folder, names=("browDown_L", "browInnerUp_L", "browInnerUp_R", "jawOpen")):
    mean, _ = bowl()
    corner = np.arange(V).reshape(SIDE, SIDE)
    quads = np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], -1)
    quads = quads.reshape(-1, 4)
    rng = np.random.default_rng(RNG_SEED)
    moves = rng.normal(size=(2 + len(names), V, 3))  # mm
    files = ["identity000", "identity001", *names]
    (folder / "generic_neutral_mesh.obj").write_text(obj_text(mean / 10, quads))
    for name, move in zip(files, moves, strict=True):
        (folder / f"{name}.obj").write_text(obj_text((mean + move) / 10, quads))
    return folder, dict(zip(files, moves, strict=True))


def write_flame(folder, **changes):
    mean, faces = bowl()
    path = folder / "flame.npz"
    directions = modes(400)[0].reshape(V, 3, 400) / 1000
    content = {"v_template": mean / 1000, "shapedirs": directions, "f": faces.astype(np.uint32)}
    np.savez(path, **(content | changes))
    return path


def test_basel_2009_evaluates_equation_1_in_millimetres(tmp_path):
    basis, deviations = modes(K)
    alpha, _ = coefficients()
    want = bowl()[0] + (basis @ (alpha * deviations)).reshape(V, 3)
    got = HeadModel.load(write_basel_2009(tmp_path)).vertices(alpha)
    np.testing.assert_allclose(got, want, atol=TOLERANCE_MM)


def test_basel_2009_adds_3ddfa_expressions_of_equation_2(tmp_path):
    basis, deviations = modes(E)
    _, eta = coefficients()
    model = HeadModel.load(write_basel_2009(tmp_path), expression=write_3ddfa(tmp_path))
    want = bowl()[0] + 0.5 + (basis @ (eta * deviations)).reshape(V, 3)
    np.testing.assert_allclose(model.vertices(None, eta), want, atol=TOLERANCE_MM)


@pytest.mark.parametrize("where", ["Model_Expression.mat", "model_info.mat"])
def test_trimmed_expressions_move_the_vertices_they_name(tmp_path, where):
    kept = np.random.default_rng(1).permutation(V)[:60]
    model_file, changes = write_basel_2009(tmp_path), {}
    if where == "model_info.mat":
        sio.savemat(tmp_path / where, {"trimIndex": kept[None] + 1})
    else:
        changes = {"trimIndex": kept[:, None] + 1}
    model = HeadModel.load(model_file, expression=write_3ddfa(tmp_path, rows=60, **changes))
    basis, deviations = modes(E)
    want = np.zeros((V, 3))
    want[kept] = (basis[:180, 1] * deviations[1]).reshape(60, 3)
    np.testing.assert_allclose(model.expression[1], want, atol=TOLERANCE_MM)


def test_trimmed_expressions_without_an_index_are_refused(tmp_path):
    with pytest.raises(InvalidModelFile, match="trimIndex"):
        HeadModel.load(write_basel_2009(tmp_path), expression=write_3ddfa(tmp_path, rows=60))


@pytest.mark.parametrize("bad", [[0, *range(2, 61)], [1, *range(1, 60)], [V + 1, *range(1, 60)]])
def test_wrong_trim_index_is_refused(tmp_path, bad):
    expression = write_3ddfa(tmp_path, rows=60, trimIndex=np.array(bad)[None])
    with pytest.raises(InvalidModelFile, match="trimIndex"):
        HeadModel.load(write_basel_2009(tmp_path), expression=expression)


def test_only_99_identity_components_are_kept(tmp_path):
    basis, deviations = modes(120)
    path = write_basel_2009(tmp_path, shapePC=basis, shapeEV=deviations[:, None] * 1000)
    assert HeadModel.load(path).n_identity == 99


def test_basel_2009_brings_its_mean_colours(tmp_path):
    assert (HeadModel.load(write_basel_2009(tmp_path)).colors == 130).all()


def test_basel_h5_evaluates_identity_and_expression_in_millimetres(tmp_path):
    (b, d), (be, de), (alpha, eta) = modes(K), modes(E), coefficients()
    want = bowl()[0] + 0.25 + (b @ (alpha * d) + be @ (eta * de)).reshape(V, 3)
    got = HeadModel.load(write_basel_h5(tmp_path)).vertices(alpha, eta)
    np.testing.assert_allclose(got, want, atol=TOLERANCE_MM)


def test_basel_h5_without_expressions_has_none(tmp_path):
    nothing = {f"expression/model/{k}": None for k in ("mean", "pcaBasis", "pcaVariance")}
    assert HeadModel.load(write_basel_h5(tmp_path, **nothing)).n_expression == 0


def test_ict_folder_evaluates_in_millimetres_under_arkit_names(tmp_path):
    folder, moves = write_ict(tmp_path)
    model = HeadModel.load(folder)
    assert model.expression_names == ("browDownLeft", "browInnerUp", "jawOpen")
    want = bowl()[0] + 2 * moves["identity001"] + 0.5 * moves["browDown_L"]
    want += moves["browInnerUp_L"] + moves["browInnerUp_R"]  # ARKit has one for both sides
    np.testing.assert_allclose(model.vertices([0, 2], [0.5, 1, 0]), want, atol=TOLERANCE_MM)


def test_ict_quads_become_two_triangles_each(tmp_path):
    model = HeadModel.load(write_ict(tmp_path)[0])
    assert model.faces.shape == (2 * (SIDE - 1) ** 2, 3)


def test_flame_npz_splits_identity_from_expression(tmp_path):
    model = HeadModel.load(write_flame(tmp_path))
    assert (model.n_identity, model.n_expression) == (99, 100)
    want = bowl()[0] + modes(400)[0][:, 301].reshape(V, 3)
    got = model.vertices(None, np.eye(100)[1])
    np.testing.assert_allclose(got, want, atol=TOLERANCE_MM)


def test_own_npz_comes_back_as_it_is():
    path = Path(__file__).parents[1] / "python" / "extreme3d_fast" / "assets" / "head.npz"
    np.testing.assert_array_equal(HeadModel.load(path).mean, HeadModel.load().mean)


@pytest.mark.parametrize("flip", [False, True])
def test_triangles_come_out_counter_clockwise_from_outside(tmp_path, flip):
    _, faces = bowl()
    given = faces[:, ::-1] if flip else faces
    model = HeadModel.load(write_basel_2009(tmp_path, tl=given.astype(float) + 1))
    a, b, c = (model.mean[model.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()  # the shell bulges to +z


def test_mirror_table_of_a_symmetric_mesh_is_exact(tmp_path):
    model = HeadModel.load(write_basel_2009(tmp_path))
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(V))
    np.testing.assert_allclose(model.mean[model.mirror], model.mean * [-1, 1, 1], atol=1e-4)


def test_mirror_table_of_a_crooked_mesh_is_still_an_involution(tmp_path):
    mean = bowl()[0] + np.random.default_rng(3).normal(0, 3, (V, 3))
    model = HeadModel.load(write_basel_2009(tmp_path, shapeMU=mean.reshape(-1, 1) * 1000))
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(V))
    paired = np.flatnonzero(model.mirror != np.arange(V))
    gap = model.mean[model.mirror[paired]] - model.mean[paired] * [-1, 1, 1]
    assert np.linalg.norm(gap, axis=1).max() <= 2.0  # mm, the reader's tolerance


def test_bump_weight_is_one_in_the_middle_and_zero_on_the_rim(tmp_path):
    weight = HeadModel.load(write_basel_2009(tmp_path)).face_weight.reshape(SIDE, SIDE)
    assert weight[SIDE // 2, SIDE // 2] == 1
    assert max(weight[0].max(), weight[-1].max(), weight[:, 0].max(), weight[:, -1].max()) == 0


def test_models_without_landmarks_say_so(tmp_path):
    with pytest.raises(ValueError, match="no '68' landmarks"):
        HeadModel.load(write_basel_2009(tmp_path)).landmark_basis("68")


WRITERS = [write_basel_2009, write_basel_h5, write_flame]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.98])
def test_truncated_file_is_refused(tmp_path, write, part):
    path = write(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InvalidModelFile, match=path.name):
        HeadModel.load(path)


@pytest.mark.parametrize("write", WRITERS)
def test_damaged_bytes_never_do_more_than_fail_typed(tmp_path, write):
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    for _ in range(15):
        broken = data.copy()
        for place in rng.integers(8, len(data), 200):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            model = HeadModel.load(path)
        except InvalidModelFile:
            continue
        assert np.isfinite(model.vertices()).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"shapeMU": None},
        {"shapePC": np.zeros((7, 3))},
        {"shapeEV": np.zeros((K + 1, 1))},
        {"tl": np.array([[1.0, 2.0, V + 1.0]])},
        {"tl": np.array([[0.0, 1.0, 2.0]])},
        {"tl": np.array([[1.5, 2.0, 3.0]])},
        {"tl": np.array([[np.nan, 2.0, 3.0]])},
        {"shapeMU": np.full((3 * V, 1), np.nan)},
        {"shapeMU": bowl()[0].reshape(-1, 1)},  # millimetres where micrometres belong
        {"shapeMU": "not numbers"},
        {"shapeMU": np.array([{"a": 1}], object)},
    ],
)
def test_inconsistent_basel_2009_is_refused(tmp_path, changes):
    with pytest.raises(InvalidModelFile, match="01_MorphableModel"):
        HeadModel.load(write_basel_2009(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape/model/mean": None},
        {"shape/model/mean": np.zeros(4)},
        {"shape/model/pcaVariance": np.full(K, -1.0)},
        {"expression/model/mean": np.zeros(9)},
        {"shape/representer/cells": np.array([[0], [1], [V]])},
        {"shape/model/pcaBasis": np.array([b"text"])},
    ],
)
def test_inconsistent_basel_h5_is_refused(tmp_path, changes):
    with pytest.raises(InvalidModelFile, match="model2019"):
        HeadModel.load(write_basel_h5(tmp_path, **changes))


def test_h5_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path):
    path = write_basel_h5(tmp_path, **{"shape/model/mean": None})
    with h5py.File(path, "a") as file:
        file.create_dataset("shape/model/mean", shape=(10**12,), dtype="f4", chunks=(1024,))
    with pytest.raises(InvalidModelFile, match="larger than any known model"):
        HeadModel.load(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("generic_neutral_mesh.obj", "v 1 2 3\nv 1 2\nf 1 2 1\n"),
        ("generic_neutral_mesh.obj", "v a b c\n"),
        ("generic_neutral_mesh.obj", ""),
        ("generic_neutral_mesh.obj", "v 1 2 3\nf 1 2 9\n"),
        ("generic_neutral_mesh.obj", "v 1 2 3\nf one two three\n"),
        ("identity001.obj", "v 1 2 3\n"),
        ("jawOpen.obj", "v 1 2 nan\n"),
    ],
)
def test_damaged_ict_file_is_named(tmp_path, name, text):
    folder, _ = write_ict(tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(InvalidModelFile, match=name):
        HeadModel.load(folder)


def test_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InvalidModelFile, match=r"generic_neutral_mesh\.obj"):
        HeadModel.load(tmp_path)


class Bomb:
    """Tells whether it was unpickled."""

    went_off = False

    def __reduce__(self):
        return (setattr, (Bomb, "went_off", True))


@pytest.mark.parametrize("name", ["generic_model.pkl", "renamed.mat"])
def test_pickle_is_refused_unread(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidModelFile, match="pickle"):
        HeadModel.load(tmp_path / name)
    assert not Bomb.went_off


def test_npz_with_pickled_objects_is_refused_unread(tmp_path):
    path = write_flame(tmp_path, f=np.array([Bomb()], object))
    with pytest.raises(InvalidModelFile, match="not a readable"):
        HeadModel.load(path)
    assert not Bomb.went_off


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"MATLAB 5.0", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"]
)
def test_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(InvalidModelFile, match=r"model\.bin"):
        HeadModel.load(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.mat"):
        HeadModel.load(tmp_path / "none.mat")


def test_expressions_for_a_model_that_has_its_own_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expression: expected None"):
        HeadModel.load(write_basel_h5(tmp_path), expression=tmp_path / "Model_Expression.mat")


@pytest.mark.parametrize(
    ("write", "package"), [(write_basel_2009, "scipy"), (write_basel_h5, "h5py")]
)
def test_missing_package_is_named(tmp_path, monkeypatch, write, package):
    path = write(tmp_path)
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr("importlib.import_module", lambda name: without(name, None, None, ["x"]))
    with pytest.raises(ImportError, match=f"pip install {package}"):
        HeadModel.load(path)
