"""train's networks: losses are zero at the truth, shortcuts do not change the numbers."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from perfect_networks import camera_at, facing, moved

from extreme3d_fast.camera import rotation_from_angles
from extreme3d_fast.foundation import FoundationNetwork
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.pose import HeadSquare, PoseNetwork, _decoded

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

sys.path.append(str(Path(__file__).parents[1] / "train"))
networks = importlib.import_module("networks")
pose_network = importlib.import_module("pose_network")
foundation_network = importlib.import_module("foundation_network")
train_network = importlib.import_module("train_network")
export_network = importlib.import_module("export_network")

MODEL = HeadModel.load()
TINY = networks.Settings((8, 8, 16, 16), (1, 1, 1, 1), stem=8)
POSES = [(0, 0, 0), (40, -10, 15), (-85, 30, -40), (170, 0, 5)]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def pose_batch(rng) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A perfect output of the pose network, and the batch that it answers."""
    n = len(POSES)
    rotation = np.stack([rotation_from_angles(*p) for p in POSES])
    place = rng.normal(0, 0.2, (n, 3))
    batch = {
        "rotation": rotation,
        "place": place,
        "identity": rng.normal(size=(n, 99)),
        "expression": rng.uniform(0, 1, (n, 52)),
        "weights": np.ones((n, 3)),
        "face": np.full(n, 1.0),
    }
    out = np.concatenate([rotation[..., 0], rotation[..., 1], place, np.full((n, 1), 30.0)], 1)
    return torch.tensor(out).float(), {k: torch.tensor(v).float() for k, v in batch.items()}


# === Pose ===


def test_six_numbers_give_a_rotation():
    rotation = pose_network.rotation_of(torch.randn(50, 6, dtype=torch.float64))
    product = rotation @ rotation.transpose(1, 2)
    np.testing.assert_allclose(product, np.tile(np.eye(3), (50, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(torch.linalg.det(rotation), np.ones(50), atol=1e-9)


def test_columns_of_a_rotation_give_it_back():
    rotation = torch.tensor(np.stack([rotation_from_angles(*p) for p in POSES]))
    six = torch.cat([2 * rotation[:, :, 0], rotation[:, :, 1] + rotation[:, :, 0]], 1)
    np.testing.assert_allclose(pose_network.rotation_of(six), rotation, atol=1e-9)


def test_training_and_package_read_the_same_pose_from_an_output(rng):
    """The rotation before it is made upright, and where landmarks land in the crop."""
    out, _ = pose_batch(rng)
    out[:, :9] += 0.2 * torch.randn(len(out), 9)
    rotation = pose_network.rotation_of(out[:, :6])
    points = torch.tensor(rng.uniform(-90, 90, (20, 3))).float()
    ours = pose_network.project(rotation, out[:, 6:9], points.expand(len(out), -1, -1))
    unit = HeadSquare(np.array([0.0, 0.0]), 1.0, 0.0)
    for row, projected in zip(out.double().numpy(), ours.numpy(), strict=True):
        camera, camera_from_head = _decoded(row, unit).camera_in(np.eye(3), 1)
        head = points.double().numpy() + pose_network.FACE_CENTER
        # the file's distance is a zoom: exact at the depth of the face centre
        theirs = camera.project(moved(camera_from_head, head))
        assert np.abs(theirs - projected).max() < 0.15 * np.abs(projected - row[6:8]).max()
        center = camera.project(moved(camera_from_head, pose_network.FACE_CENTER[None]))[0]
        np.testing.assert_allclose(center, row[6:8], atol=1e-6)


def test_projection_of_training_is_the_nominal_camera(rng):
    rotation = rotation_from_angles(30, 10, 20)
    points = rng.uniform(-90, 90, (1, 20, 3))
    got = pose_network.project(
        torch.tensor(rotation[None]),
        torch.tensor([[0.1, -0.2, 0.0]]).double(),
        torch.tensor(points),
    )
    camera = camera_at(0.1, -0.2, 1.0)
    want = camera.project(moved(facing(rotation), points[0] + pose_network.FACE_CENTER))
    np.testing.assert_allclose(got[0], want, atol=1e-7)  # float32


def test_pose_loss_is_zero_at_the_truth_and_only_there(rng):
    out, batch = pose_batch(rng)
    loss = pose_network.PoseLoss(MODEL)
    for name, value in loss(out, batch).items():
        assert float(value) < 0.02, name  # square roots are rounded off at 1e-6
    out[:, :9] += 0.1
    wrong = loss(out, batch)
    assert all(float(wrong[name]) > 0.1 for name in ("rotation", "landmarks", "place"))


def test_samples_of_no_weight_teach_no_pose(rng):
    out, batch = pose_batch(rng)
    batch["weights"][:, 2] = 0
    out[:, 9] = 0.0
    out = (out + 0.3).requires_grad_()
    loss = pose_network.PoseLoss(MODEL)(out, batch)
    sum(loss.values()).backward()
    assert not out.grad[:, :9].any()
    assert out.grad[:, 9].any()  # whether there is a face is learned all the same


@pytest.mark.parametrize("degrees", [0.5, 30.0, 179.0])
def test_angle_between_rotations_is_in_degrees(degrees):
    a, b = (torch.tensor(rotation_from_angles(0, 0, x))[None] for x in (10.0, 10.0 + degrees))
    assert float(pose_network.angle_between(a, b)) == pytest.approx(degrees, abs=1e-3)


# === Foundation ===


def test_foundation_loss_is_zero_at_the_truth(rng):
    batch = {
        "identity": torch.tensor(rng.normal(size=(6, 99))).float(),
        "expression": torch.tensor(rng.uniform(0, 1, (6, 52))).float(),
        "descriptor": torch.tensor(rng.normal(size=(6, 128))).float(),
        "weights": torch.ones(6, 3),
    }
    loss = foundation_network.FoundationLoss(MODEL, np.zeros(128, np.float32))
    got = loss((batch["identity"], batch["expression"], batch["descriptor"]), batch)
    for name in ("identity_mm", "expression_mm", "expression", "descriptor"):
        assert float(got[name]) < 0.02, name
    off = loss((batch["identity"] + 1, batch["expression"] + 0.1, batch["descriptor"] + 1), batch)
    assert all(float(off[n]) > 0.1 for n in ("identity_mm", "expression_mm", "descriptor"))


def test_distance_is_the_mean_length_of_displacements():
    basis = torch.zeros(2, 3, 3)
    basis[0, :, 0], basis[1, :, 1] = 3.0, 4.0  # mm per coefficient
    got = foundation_network.distance(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), basis)
    np.testing.assert_allclose(got, [5.0, 6.0], atol=1e-4)


# === Shortcuts ===


def pose_net() -> torch.nn.Module:
    network = pose_network.PoseNetwork(networks.ResidualNetwork(TINY), hidden=16).eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 128))  # makes the lazy layers
    return network


def foundation_net() -> torch.nn.Module:
    network = foundation_network.FoundationNetwork(
        networks.ResidualNetwork(TINY), n_identity=99, n_expression=52
    ).eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 128))
    return network


def test_measured_statistics_leave_the_output_and_are_those_of_the_images():
    network = networks.ResidualNetwork(TINY).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias)
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        train_network.measure_statistics(network, images)
        after, trained = network(images), copy.deepcopy(network).train()(images)
    scale = float(before.abs().max())
    np.testing.assert_allclose(after, before, atol=1e-4 * scale)
    # in training mode the batch's own statistics are taken: now they are the same
    np.testing.assert_allclose(trained, before, atol=1e-3 * scale)


def test_average_follows_by_the_decay():
    average, network = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    want = 0.75 * average.weight + 0.25 * network.weight
    train_network.follow(average, network, 0.75)
    np.testing.assert_allclose(average.weight.detach(), want.detach(), rtol=1e-6)


def test_same_person_ranked_above_others_is_auc_1():
    rows = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    persons = np.array(["a", "a", "b", "b"])
    assert train_network.auc(rows, persons) == 1.0
    assert train_network.auc(rows, persons[[0, 2, 1, 3]]) == pytest.approx(0.25)


# === Export ===

METADATA = dict.fromkeys(("name", "version", "input_size", "crop_rule", "source", "licence"), "x")
METADATA |= {"colour_order": "RGB", "mean": "0", "std": "1", "head_model": "a head"}


@pytest.mark.parametrize("task", ["pose", "foundation"])
def test_exported_file_is_what_the_package_loads_and_gives_the_same_numbers(task, tmp_path, rng):
    network = {"pose": pose_net, "foundation": foundation_net}[task]()
    names = export_network.OUTPUTS[task]
    shipped = export_network.Shipped(network, len(names)).eval()
    path = tmp_path / f"{task}.onnx"
    export_network.export(shipped, path, 128, names, METADATA)
    exact = export_network.compare(shipped, path, names)
    assert max(exact.values()) < 1e-3, exact
    size = path.stat().st_size
    export_network.shrink_weights(path, smallest=256)
    rounded = export_network.compare(shipped, path, names)
    assert max(rounded.values()) < 0.1, rounded  # 1 part in 254 of each weight
    assert path.stat().st_size < 0.6 * size
    loaded = {"pose": PoseNetwork, "foundation": FoundationNetwork}[task](path)
    square = HeadSquare(np.array([64.0, 64.0]), 128.0, 0.0)
    photo = rng.integers(0, 256, (128, 128, 3)).astype(np.uint8)
    with torch.no_grad():
        want = network(train_network.normalised(torch.from_numpy(photo)[None]))
    if task == "pose":
        (got,) = loaded.estimate(photo, [square])
        expected = _decoded(want[0].double().numpy(), square)
        np.testing.assert_allclose(got.rotation, expected.rotation, atol=0.1)
    else:
        assert loaded.head_model == "a head"
        coefficients = loaded.estimate(photo, square)
        np.testing.assert_allclose(coefficients.identity, want[0][0], atol=0.1)
        np.testing.assert_allclose(coefficients.expression, want[1][0], atol=0.1)


def linear_file(path: Path, weights: np.ndarray) -> None:
    """y = x · weights"""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", floats, [None, len(weights)])],
        [helper.make_tensor_value_info("y", floats, [None, weights.shape[1]])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.mark.parametrize(("stored", "steps"), [("int8", 127), ("int16", 32767)])
def test_rounded_weights_are_off_by_half_a_step_of_their_output_at_most(
    stored, steps, tmp_path, rng
):
    weights = (rng.normal(size=(64, 50)) * np.geomspace(1e-3, 1e3, 50)).astype(np.float32)
    path = tmp_path / "linear.onnx"
    linear_file(path, weights)
    export_network.shrink_weights(path, stored)
    session = export_network.onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.eye(64, dtype=np.float32)})
    step = np.abs(weights).max(0) / steps
    assert (np.abs(got - weights) <= 0.501 * step).all()
    assert (np.abs(got - weights).max(0) > 0.1 * step).all()  # it did round


def test_small_tensors_stay_as_they_are(tmp_path, rng):
    weights = rng.normal(size=(10, 10)).astype(np.float32)
    path = tmp_path / "linear.onnx"
    linear_file(path, weights)
    before = path.read_bytes()
    export_network.shrink_weights(path)
    assert onnx.load(path) == onnx.load_from_string(before)
