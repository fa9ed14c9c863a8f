"""The networks' square and the reading of the pose network: a known head is found again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_networks import angles, camera_at, facing, moved, perfect_row, turned

from extreme3d_fast import pose
from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.crop import transform_points
from extreme3d_fast.detect import ASSETS
from extreme3d_fast.errors import InvalidImage, InvalidModelFile
from extreme3d_fast.foundation import FoundationNetwork
from extreme3d_fast.pose import (
    FACE_CENTER,
    SIDE_MM,
    HeadSquare,
    PoseEstimate,
    PoseNetwork,
    head_square,
    network_crop,
)

BLACK = np.zeros((40, 30, 3), np.uint8)
HEAD = np.random.default_rng(0).uniform(-100, 100, (50, 3))  # points of a head, mm
MIRROR = np.diag([-1.0, 1.0, 1.0])
px = st.floats(-2000, 2000)
sides = st.floats(10, 3000)
rolls = st.floats(-3, 3)


class Answers:
    """A session that answers with given rows, whatever it is shown."""

    def __init__(self, rows: list[npt.NDArray[np.float64]]) -> None:
        self.inputs = {"image": (None, 128, 128, 3)}
        self.metadata = {"colour_order": "RGB", "mean": "0", "std": "1"}
        self.rows, self.batches = rows, [0]

    def expect(self, **_: object) -> None: ...

    def look(self, _photo: object, squares: list[object], _size: int) -> dict[str, object]:
        start = sum(self.batches)
        self.batches.append(len(squares))
        return {"pose": np.array(self.rows[start : sum(self.batches)])}


def read(*rows: npt.NDArray[np.float64], squares: list[HeadSquare]) -> list[PoseEstimate]:
    """What `PoseNetwork` makes of rows of numbers."""
    return PoseNetwork(open_network=lambda _: Answers(list(rows))).estimate(BLACK, squares)


# === The square ===


@given(px, px, sides, rolls)
def test_square_maps_its_corners_to_those_of_the_crop(x, y, side, roll):
    square = HeadSquare(np.array([x, y]), side, roll)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    in_image = square.center + side * (corners - 0.5) @ turned(roll).T
    got = transform_points(square.square_from_image(64), in_image)
    np.testing.assert_allclose(got, 64 * corners, atol=1e-6)  # px; a corner is 1e3 px away


@given(angles, px, px, sides)
def test_head_square_is_200_mm_at_the_face_centre_and_upright(degrees, x, y, side):
    head_pose = facing(rotation_from_angles(*degrees))
    camera = camera_at(x, y, side)
    square = head_square(camera, head_pose)
    np.testing.assert_allclose(square.center, [x, y], atol=1e-6)
    assert square.side == pytest.approx(side)
    up = turned(-square.roll) @ head_pose[:2, 1]  # the head's up axis as the square shows it
    assert up[0] == pytest.approx(0, abs=1e-9)
    assert up[1] < 0


def test_head_square_of_any_camera_is_where_the_centre_projects():
    head_pose = facing(rotation_from_angles(30, 10, 5))
    head_pose[:3, 3] += [50.0, -20.0, 300.0]
    camera = Camera(900.0, 900.0, 320.0, 240.0, 640, 480)
    square = head_square(camera, head_pose)
    center = moved(head_pose, FACE_CENTER)
    np.testing.assert_allclose(square.center, camera.project(center))
    edge = camera.project(center + [SIDE_MM, 0, 0]) - camera.project(center)
    assert square.side == pytest.approx(edge[0])


@given(angles)
def test_mirrored_head_has_the_mirrored_square(degrees):
    rotation = rotation_from_angles(*degrees)
    square = head_square(camera_at(70, 30, 100), facing(rotation))
    other = head_square(camera_at(-70, 30, 100), facing(MIRROR @ rotation @ MIRROR))
    np.testing.assert_allclose(other.center, square.center * [-1, 1], atol=1e-9)
    assert turned(other.roll) == pytest.approx(turned(-square.roll), abs=1e-9)


def test_head_that_points_its_crown_at_us_has_a_square_all_the_same():
    square = head_square(camera_at(0, 0, 100), facing(rotation_from_angles(0, -90, 0)))
    assert square.roll == 0.0


def test_upright_square_cuts_the_photo_itself(portrait):
    whole = HeadSquare(np.array([256.0, 256.0]), 512.0, 0.0)
    np.testing.assert_array_equal(network_crop(portrait, whole, 512), portrait)


def test_square_rolled_clockwise_turns_the_crop_back(portrait):
    crop = network_crop(portrait, HeadSquare(np.array([256.0, 256.0]), 512.0, np.pi / 2), 512)
    np.testing.assert_allclose(crop, np.rot90(portrait).astype(np.float32), atol=1)  # rounding


@pytest.mark.parametrize("center", [(1e6, 0.0), (-1e9, 1e9)])
def test_square_beside_the_photo_is_black(portrait, center):
    assert not network_crop(portrait, HeadSquare(np.array(center), 100.0, 0.3), 16).any()


# === Reading the network ===


@given(
    degrees=angles,
    at=st.tuples(px, px, sides),
    missed=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.4, 2.5), rolls),
    crop=st.tuples(st.floats(0.01, 100), rolls, px, px),
)
def test_perfect_answer_gives_the_true_camera_in_any_crop(degrees, at, missed, crop):
    rotation, camera = rotation_from_angles(*degrees), camera_at(*at)
    x, y, scale, roll = missed
    side = scale * at[2]
    looked_at = HeadSquare(np.array(at[:2]) + side * np.array([x, y]), side, roll)
    (estimate,) = read(perfect_row(camera, rotation, looked_at), squares=[looked_at])

    crop_from_image = np.eye(3)
    crop_from_image[:2, :2] = crop[0] * turned(crop[1])
    crop_from_image[:2, 2] = crop[2:]
    seen, camera_from_head = estimate.camera_in(crop_from_image, 77)
    want = transform_points(crop_from_image, camera.project(moved(facing(rotation), HEAD)))
    got = seen.project(moved(camera_from_head, HEAD))
    np.testing.assert_allclose(got, want, atol=1e-7 * np.abs(want).max())
    assert (seen.width, seen.height) == (77, 77)
    np.testing.assert_allclose(
        [seen.cx, seen.cy], seen.project(moved(camera_from_head, FACE_CENTER)), rtol=1e-9
    )


@given(angles, rolls)
def test_square_of_the_answer_is_the_canonical_one(degrees, roll):
    rotation, camera = rotation_from_angles(*degrees), camera_at(50, 60, 80)
    looked_at = HeadSquare(np.array([60.0, 40.0]), 100.0, roll)
    (estimate,) = read(perfect_row(camera, rotation, looked_at), squares=[looked_at])
    want = head_square(camera, facing(rotation))
    np.testing.assert_allclose(estimate.square.center, want.center)
    assert estimate.square.side == pytest.approx(want.side)
    assert turned(estimate.square.roll) == pytest.approx(turned(want.roll), abs=1e-9)
    up = estimate.rotation[:, 1]
    assert up[0] == pytest.approx(0, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=10, max_size=10))
def test_any_answer_gives_a_rotation(numbers):
    row = np.array(numbers) + [4, 0, 0, 0, -4, 0, 0, 0, 0, 0]  # columns that are not parallel
    (estimate,) = read(row, squares=[HeadSquare(np.zeros(2), 100.0, 0.0)])
    np.testing.assert_allclose(estimate.rotation @ estimate.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(estimate.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize(("logit", "confidence"), [(0, 0.5), (-1e4, 0.0), (1e4, 1.0)])
def test_confidence_is_the_logistic_of_the_answer(logit, confidence):
    square = HeadSquare(np.zeros(2), 100.0, 0.0)
    row = perfect_row(camera_at(0, 0, 100), rotation_from_angles(0), square, logit)
    assert read(row, squares=[square])[0].confidence == pytest.approx(confidence, abs=1e-12)


@pytest.mark.parametrize("distance", [-1e3, 1e3])
def test_absurd_distance_keeps_the_square_finite(distance):
    square = HeadSquare(np.zeros(2), 100.0, 0.0)
    row = perfect_row(camera_at(0, 0, 100), rotation_from_angles(0), square)
    row[8] = distance
    assert 1 < read(row, squares=[square])[0].square.side < 1e4


@pytest.mark.parametrize(
    "spoil", [{0: np.nan}, {9: np.inf}, {6: np.nan}, dict.fromkeys(range(6), 0.0), {3: 1.0, 4: 0.0}]
)
def test_answer_without_a_pose_is_no_face(spoil):
    square = HeadSquare(np.zeros(2), 100.0, 0.3)
    row = perfect_row(camera_at(0, 0, 100), rotation_from_angles(0), square)
    row[:6] = [1, 0, 0, 0, -1, 0]
    for place, value in spoil.items():
        row[place] = value
    (estimate,) = read(row, squares=[square])
    assert estimate.confidence == 0.0
    assert estimate.square is square
    assert np.linalg.det(estimate.rotation) == pytest.approx(1.0)


def test_many_squares_are_answered_in_order():
    squares = [HeadSquare(np.array([float(i), 0.0]), 10.0 + i, 0.0) for i in range(40)]
    camera, rotation = camera_at(5, 5, 20), rotation_from_angles(10)
    answers = Answers([perfect_row(camera, rotation, s, i / 10) for i, s in enumerate(squares)])
    estimates = PoseNetwork(open_network=lambda _: answers).estimate(BLACK, squares)
    logits = [np.log(e.confidence / (1 - e.confidence)) for e in estimates]
    np.testing.assert_allclose(logits, np.arange(40) / 10, atol=1e-9)
    assert max(answers.batches) <= pose.BATCH


def test_no_squares_give_no_answers():
    assert read(squares=[]) == []


# === Refusals ===


@pytest.mark.parametrize(
    "photo",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8), None],
    ids=["grey", "float", "empty", "none"],
)
def test_photos_that_are_none_are_refused(photo):
    networks = SimpleNamespace(size=128)
    with pytest.raises(InvalidImage):
        PoseNetwork.estimate(networks, photo, [])
    with pytest.raises(InvalidImage):
        FoundationNetwork.estimate(networks, photo, HeadSquare(np.zeros(2), 1.0, 0.0))


@pytest.mark.parametrize("network", [PoseNetwork, FoundationNetwork])
@pytest.mark.parametrize("name", ["face_detection.onnx", "face_landmarks.onnx"])
def test_another_network_is_refused_by_name(network, name):
    with pytest.raises(InvalidModelFile, match=name):
        network(ASSETS / name)


@pytest.mark.parametrize("network", [PoseNetwork, FoundationNetwork])
def test_damaged_and_missing_files_are_named(network, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes((ASSETS / "face_landmarks.onnx").read_bytes()[:4000])
    with pytest.raises(InvalidModelFile, match=r"broken\.onnx"):
        network(path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        network(tmp_path / "nothing.onnx")


# === The built-in networks ===


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    if not (ASSETS / "pose.onnx").is_file():
        pytest.skip("pose.onnx is not there")
    return PoseNetwork()


def test_batch_gives_the_same_as_single_looks(network, portrait):
    squares = [HeadSquare(np.array([224.0, 115.0 + i]), 160.0, 0.1 * i) for i in range(3)]
    for one, square in zip(network.estimate(portrait, squares), squares, strict=True):
        (alone,) = network.estimate(portrait, [square])
        np.testing.assert_allclose(one.rotation, alone.rotation, atol=1e-5)  # float32 sums
