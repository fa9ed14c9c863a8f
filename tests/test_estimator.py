"""From a photo to foundations: which of detector, networks and landmarks has the say, and when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_networks import PerfectPose, camera_at, facing, moved

import extreme3d_fast as e3d
from extreme3d_fast import estimator
from extreme3d_fast.camera import rotation_from_angles
from extreme3d_fast.crop import transform_points
from extreme3d_fast.detect import ASSETS, FaceDetection, FaceLandmarks
from extreme3d_fast.estimator import Found, FoundationEstimator
from extreme3d_fast.foundation import Coefficients
from extreme3d_fast.landmark_fit import BIAS_FILE, N_LANDMARKS
from extreme3d_fast.pose import FACE_CENTER, HeadSquare, PoseEstimate, head_square

SIZE = 600  # px of the test photo
PHOTO = np.zeros((SIZE, SIZE, 3), np.uint8)
MODEL = e3d.HeadModel.load()
RNG = np.random.default_rng(0)
TRUE = Coefficients(
    RNG.normal(0, 0.5, 99).astype(np.float32), RNG.uniform(0, 0.2, 52).astype(np.float32)
)
CAMERA = camera_at(320.0, 280.0, 250.0)


def untimed(_, function):
    return function


class Scene:
    """A head in a photo, and what each part of the front end makes of it."""

    def __init__(self, yaw: float = 15.0) -> None:
        self.pose = facing(rotation_from_angles(yaw, 5.0, 10.0))
        square = head_square(CAMERA, self.pose)
        upright = rotation_from_angles(yaw, 5.0, 10.0)
        turn = np.eye(3)
        cos, sin = np.cos(square.roll), np.sin(square.roll)
        turn[:2, :2] = [[cos, sin], [-sin, cos]]
        self.network = PerfectPose(square, SIZE, rotation=turn @ upright)
        bias = np.pad(np.load(BIAS_FILE), ((0, 0), (0, 1)))
        points = moved(self.pose, self.head("478")[:N_LANDMARKS] + bias)
        depth = CAMERA.fx * (points[:, 2:] / points[:, 2].mean() - 1)
        self.points = np.hstack([CAMERA.project(points), depth]).astype(np.float32)
        self.landmark_confidence = 1.0
        eyes = square.center + [[-30, -20], [30, -20]]
        self.detections = [
            FaceDetection(
                np.float32([*(square.center - 85), *(square.center + 85)]),
                np.float32([*eyes, square.center, square.center + [0, 30], *eyes]),
                0.9,
            )
        ]
        self.asked: list[str] = []

    def head(self, which: str) -> np.ndarray:
        """(L, 3) mm, landmarks of the true head."""
        basis = MODEL.landmark_basis(which)
        head = basis.mean + np.tensordot(TRUE.identity, basis.identity, 1)
        return head + np.tensordot(TRUE.expression, basis.expression, 1)

    def estimator(
        self,
        mode: str = "auto",
        head_model: str = MODEL.fingerprint,
        counts: tuple[int, int] = (MODEL.n_identity, MODEL.n_expression),
    ):
        scene = self

        class Detector:
            def __init__(self, **_):
                self.detect = self.detect_all = lambda _: scene.detections

            def landmarks(self, *_):
                scene.asked.append("landmarks")
                return FaceLandmarks(scene.points, scene.landmark_confidence)

            landmarks_at = landmarks

        class Network:
            def __init__(self, **_):
                self.head_model = head_model
                self.n_identity, self.n_expression = counts

            def estimate(self, *_):
                scene.asked.append("network")
                return TRUE

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(estimator, "FaceDetector", Detector)
            patch.setattr(estimator, "FoundationNetwork", Network)
            patch.setattr(estimator, "PoseNetwork", lambda **_: self.network)
            return FoundationEstimator(MODEL, mode=mode)

    def foundation(self, mode: str = "auto", crop_size: int = 400) -> e3d.Foundation:
        front = self.estimator(mode)
        (found,) = front.find(PHOTO, untimed)
        return front.estimate(PHOTO, found, crop_size, untimed)[0]


def projected(foundation: e3d.Foundation, head: np.ndarray) -> np.ndarray:
    return foundation.camera.project(moved(foundation.camera_from_head, head))


# === What a foundation is made from ===


@pytest.mark.parametrize(
    ("mode", "source", "asked"),
    [
        ("auto", "networks+landmarks", ["network", "landmarks"]),
        ("networks", "networks", ["network"]),
        ("landmarks", "landmarks", ["landmarks"]),
    ],
)
def test_mode_decides_who_is_asked(mode, source, asked):
    scene = Scene()
    assert scene.foundation(mode).source == source
    assert scene.asked == asked


@pytest.mark.parametrize("mode", ["auto", "networks"])
@pytest.mark.parametrize("crop_size", [65, 400])
def test_perfect_networks_put_the_head_where_the_photo_shows_it(mode, crop_size):
    scene = Scene()
    foundation = scene.foundation(mode, crop_size)
    head = scene.head("68")
    want = transform_points(foundation.crop_from_image, CAMERA.project(moved(scene.pose, head)))
    error = np.linalg.norm(projected(foundation, head) - want, axis=1).max() / crop_size
    # the refinement's outline prior slides a little; the networks alone are exact to float32
    assert error < (1e-5 if mode == "networks" else 5e-3)
    np.testing.assert_allclose(foundation.identity, TRUE.identity, atol=0.1)
    assert abs(foundation.yaw_pitch_roll[2]) < 6  # degrees: the crop is upright
    assert (foundation.camera.width, foundation.camera.height) == (crop_size, crop_size)


def test_networks_alone_are_taken_at_their_word():
    foundation = Scene().foundation("networks")
    np.testing.assert_array_equal(foundation.identity, TRUE.identity)
    np.testing.assert_array_equal(foundation.expression, TRUE.expression)
    assert foundation.camera_from_head.dtype == np.float32
    center = projected(foundation, FACE_CENTER)
    np.testing.assert_allclose(center, [foundation.camera.cx, foundation.camera.cy], atol=1e-3)


def test_refinement_keeps_the_principal_point():
    refined, alone = (Scene().foundation(mode).camera for mode in ("auto", "networks"))
    assert (refined.cx, refined.cy) == (alone.cx, alone.cy)


def test_agreeing_landmarks_correct_a_wrong_place():
    scene = Scene(yaw=10.0)
    want = CAMERA.project(moved(scene.pose, scene.head("68")))
    square = scene.network.truth
    scene.network.truth = square._replace(center=square.center + [2.0, -1.5])  # px, 2 mm
    refined, alone = scene.foundation("auto"), scene.foundation("networks")
    assert refined.source == "networks+landmarks"
    error = []
    for foundation in (refined, alone):
        at = projected(foundation, scene.head("68"))
        crop = foundation.crop_from_image
        gap = at - (want @ crop[:2, :2].T + crop[:2, 2])
        error.append(np.linalg.norm(gap.mean(0)))
    assert error[0] < 0.5 * error[1]


def test_networks_have_the_last_word_on_the_rotation():
    scene = Scene(yaw=10.0)
    scene.network.rotation = (
        scene.network.rotation @ rotation_from_angles(-3.0) @ np.diag([1.0, -1.0, -1.0])
    )  # degrees, about the head's own axis
    refined, alone = scene.foundation("auto"), scene.foundation("networks")
    assert refined.source == "networks+landmarks"
    np.testing.assert_allclose(refined.yaw_pitch_roll, alone.yaw_pitch_roll, atol=1.0)


def test_wild_landmarks_do_not_count():
    scene = Scene()
    scene.points[:, :2] += np.random.default_rng(1).normal(0, 50, (468, 2)).astype(np.float32)
    foundation = scene.foundation("auto")
    assert foundation.source == "networks"
    np.testing.assert_array_equal(foundation.identity, TRUE.identity)


@pytest.mark.parametrize(("yaw", "source"), [(40.0, "networks+landmarks"), (58.0, "networks")])
def test_landmarks_of_turned_heads_do_not_count(yaw, source):
    assert Scene(yaw=yaw).foundation("auto").source == source


def test_landmarks_that_deny_the_face_do_not_count():
    scene = Scene()
    scene.landmark_confidence = 0.1
    assert scene.foundation("auto").source == "networks"


@given(st.floats(0, 50), st.floats(0.01, 20))
def test_trust_is_a_gaussian_of_the_gap_in_mm(gap, px_per_mm):
    expected = np.zeros((N_LANDMARKS, 2))
    points = np.zeros((N_LANDMARKS, 3), np.float32)
    points[:, 1] = gap * px_per_mm
    trust = estimator._trust(FaceLandmarks(points, 0.9), expected, px_per_mm, 0.0)
    np.testing.assert_allclose(trust, np.exp(-0.5 * (gap / 3.0) ** 2), atol=1e-6)


@pytest.mark.parametrize(
    ("yaw", "confidence", "trust"),
    [(0, 1.0, 1.0), (-35, 1.0, 1.0), (47.5, 1.0, 0.5), (-60, 1.0, 0), (0, 0.25, 0.5), (0, 0, 0)],
)
def test_trust_falls_with_yaw_and_doubt(yaw, confidence, trust):
    points = FaceLandmarks(np.zeros((N_LANDMARKS, 3), np.float32), confidence)
    got = estimator._trust(points, np.zeros((N_LANDMARKS, 2)), 1.0, yaw)
    np.testing.assert_allclose(got, trust)


@pytest.mark.parametrize("mode", ["auto", "landmarks"])
def test_another_head_model_has_landmarks_alone(mode):
    scene = Scene()
    front = scene.estimator(mode, head_model="of another head")
    (found,) = front.find(PHOTO, untimed)
    assert front.estimate(PHOTO, found, 100, untimed)[0].source == "landmarks"
    assert scene.network.looks == 0


def test_networks_of_another_head_model_are_refused():
    with pytest.raises(ValueError, match="foundation='landmarks'"):
        Scene().estimator("networks", head_model="of another head")


# === Which faces are found ===


def test_detection_that_the_network_confirms_is_not_searched_for():
    scene = Scene()
    (found,) = scene.estimator().find(PHOTO, untimed)
    assert found.detection is scene.detections[0]
    assert scene.network.looks == 2
    np.testing.assert_allclose(found.pose.square.center, scene.network.truth.center)


@pytest.mark.parametrize("every", [False, True])
def test_missed_face_is_searched_for(every):
    scene = Scene()
    scene.detections = []
    (found,) = scene.estimator().find(PHOTO, untimed, every=every)
    assert found.detection is None
    np.testing.assert_allclose(found.pose.square.center, scene.network.truth.center)


def test_denied_detection_gives_way_to_the_face_that_is_searched_for():
    scene = Scene()
    elsewhere = HeadSquare(np.array([120.0, 480.0]), 150.0, 0.2)
    scene.network.truth = elsewhere
    found = scene.estimator().find(PHOTO, untimed)
    np.testing.assert_allclose(found[0].pose.square.center, elsewhere.center)


def test_face_that_detector_and_search_both_find_is_one_face():
    scene = Scene()
    scene.network.reach = 0.15  # denies the detector's square, which is too far off
    box = scene.detections[0].box
    scene.detections = [
        FaceDetection(box + np.float32(45), scene.detections[0].keypoints + np.float32(45), 0.9)
    ]
    (found,) = scene.estimator().find(PHOTO, untimed, every=True)
    np.testing.assert_allclose(found.pose.square.center, scene.network.truth.center)


@pytest.mark.parametrize(
    ("detected", "searched", "gives_way"),
    [(0.97, 0.93, False), (0.97, 0.98, True), (0.5, 0.4, True), (0.5, 0.2, False)],
)
def test_sure_detection_gives_way_to_a_surer_face_only(detected, searched, gives_way):
    """A face upside down is searched for, and some larger thing can look a little like one."""

    def pose(side: float, confidence: float) -> PoseEstimate:
        return PoseEstimate(HeadSquare(np.zeros(2), side, 0.0), np.eye(3), confidence)

    found = Found(None, pose(100.0, detected))
    assert estimator._outranks(pose(400.0, searched), found) == gives_way


def test_nothing_found_is_an_empty_list():
    scene = Scene()
    scene.detections, scene.network.truth = [], None
    assert scene.estimator().find(PHOTO, untimed) == []
    assert scene.estimator("landmarks").find(PHOTO, untimed) == []


def test_detection_that_nobody_confirms_is_kept_with_a_warning():
    scene = Scene()
    scene.network.truth = None
    front = scene.estimator()
    (found,) = front.find(PHOTO, untimed)
    foundation, _ = front.estimate(PHOTO, found, 100, untimed)
    assert foundation.confidence == 0.1
    assert foundation.warnings == ("this may not be a face (confidence 0.10)",)


def test_clear_face_has_no_warnings():
    for mode in ("auto", "networks", "landmarks"):
        assert Scene().foundation(mode).warnings == ()


def test_doubtful_landmarks_are_warned_of():
    scene = Scene()
    scene.landmark_confidence = 0.2
    scene.points[:, :2] += np.random.default_rng(1).normal(0, 60, (468, 2)).astype(np.float32)
    warnings = scene.foundation("landmarks").warnings
    assert any("not confident (0.20)" in w for w in warnings)
    assert any("fit badly" in w for w in warnings)


# === Squares and points ===


def detection(turn: np.ndarray) -> FaceDetection:
    """An upright face's detection round (0, 0), turned by quarter turns."""
    points = np.array([[-20, -15], [20, -15], [0, 5], [0, 25], [-45, -10], [45, -10]]) @ turn.T
    return FaceDetection(np.float32([-50, -50, 50, 50]), points.astype(np.float32), 1.0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_first_square_turns_with_the_detection(turns):
    turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns)
    upright = estimator._square_of(detection(np.eye(2)))
    assert upright.roll == pytest.approx(0)
    square = estimator._square_of(detection(turn))
    assert np.exp(1j * square.roll) == pytest.approx(1j**turns)
    np.testing.assert_allclose(square.center, turn @ upright.center, atol=1e-6)
    assert square.side == upright.side


def test_first_square_of_a_face_in_one_point_is_a_square():
    point = FaceDetection(np.zeros(4, np.float32), np.zeros((6, 2), np.float32), 1.0)
    assert estimator._square_of(point).side > 0


def test_depth_of_landmarks_scales_with_the_crop():
    crop_from_image = np.array([[0.0, -2.0, 7.0], [2.0, 0.0, -3.0], [0.0, 0.0, 1.0]])
    got = estimator.points_in_crop(np.float32([[1, 10, 5]]), crop_from_image)
    np.testing.assert_array_equal(got, [[7 - 20, 2 - 3, 10]])


# === The built-in networks on a photo ===


@pytest.fixture(scope="module")
def fronts():
    if not all((ASSETS / f"{name}.onnx").is_file() for name in ("pose", "foundation")):
        pytest.skip("pose.onnx or foundation.onnx is not there")
    return {m: FoundationEstimator(MODEL, mode=m) for m in ("auto", "networks", "landmarks")}


def estimate(front: FoundationEstimator, photo: np.ndarray) -> tuple[Found, e3d.Foundation]:
    found = front.find(photo, untimed)[0]
    return found, front.estimate(photo, found, 300, untimed)[0]


def test_clear_portrait_is_estimated_from_all(fronts, portrait):
    foundations = {mode: estimate(front, portrait)[1] for mode, front in fronts.items()}
    assert [f.source for f in foundations.values()] == [
        "networks+landmarks",
        "networks",
        "landmarks",
    ]
    yaws = [f.yaw_pitch_roll[0] for f in foundations.values()]
    assert np.ptp(yaws) < 12  # degrees; she looks nearly into the camera
    heads = [
        MODEL.vertices(f.identity, f.expression)[MODEL.face_region.nonzero()]
        for f in foundations.values()
    ]
    for head in heads[1:]:
        # mm, between what different sources say of one person
        assert np.median(np.linalg.norm(head - heads[0], axis=1)) < 8


@pytest.mark.parametrize(
    "spoil",
    [
        lambda photo: np.where(np.arange(512)[:, None, None] < 118, np.uint8(20), photo),
        lambda photo: photo[:, 228:],
        lambda photo: np.concatenate([photo[:, :205], np.zeros((512, 90, 3), np.uint8)], 1),
    ],
    ids=["upper half covered", "half a face", "other half"],
)
def test_spoiled_photo_has_a_foundation(fronts, portrait, spoil):
    photo = np.ascontiguousarray(spoil(portrait))
    for mode in ("auto", "networks"):
        found = fronts[mode].find(photo, untimed)
        assert found
        foundation, crop = fronts[mode].estimate(photo, found[0], 300, untimed)
        assert crop.image.shape == (300, 300, 3)
        assert np.isfinite(foundation.identity).all()
        rotation = foundation.camera_from_head[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_photo_gives_a_turned_head(fronts, portrait, turns):
    photo = np.ascontiguousarray(np.rot90(portrait, turns))
    (face, *_) = fronts["auto"].find(photo, untimed)
    assert face.pose is not None
    away = np.remainder(face.pose.square.roll + turns * np.pi / 2 + np.pi, 2 * np.pi) - np.pi
    assert abs(np.degrees(away)) < 12


def test_network_with_other_coefficients_than_its_head_model_is_refused():
    with pytest.raises(e3d.InvalidModelFile, match="coefficients"):
        Scene().estimator(counts=(80, 52))
