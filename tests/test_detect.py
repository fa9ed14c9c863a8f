"""Claims about finding faces, their landmarks, and the crop, on scikit-image's astronaut photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from research_data import DATA

from extreme3d_fast.crop import check_image, transform_points, warp_similarity
from extreme3d_fast.detect import ASSETS, MESH68, FaceDetection, FaceDetector, crop_face
from extreme3d_fast.errors import InvalidImage, InvalidModelFile
from extreme3d_fast.session import Session

FACE_SIDE = 94  # px, the side of the astronaut's face box
ASTRONAUT_EYES = np.array([[203.0, 100.8], [246.2, 103.7]])  # px, pupils read off by eye


@pytest.fixture(scope="module")
def astronaut():
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(threads=2)


def landmarks_of(detector, image):
    return detector.landmarks(image, detector.detect(image)[0])


def test_one_face_is_found_where_it_is(detector, astronaut):
    (face,) = detector.detect(astronaut)
    assert face.score > 0.8
    # Half an eye's width: the detector's key points are coarse.
    np.testing.assert_allclose(face.keypoints[:2], ASTRONAUT_EYES, atol=8)


def test_box_lies_round_the_keypoints(detector, astronaut):
    (face,) = detector.detect(astronaut)
    middle = face.keypoints[:4]
    assert (middle > face.box[:2]).all()
    assert (middle < face.box[2:]).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_find_the_same_landmarks(detector, astronaut, turns):
    want = landmarks_of(detector, astronaut).points
    got = landmarks_of(detector, np.ascontiguousarray(np.rot90(astronaut, turns))).points[:, :2]
    for _ in range(turns):  # undo one counter-clockwise quarter turn of the 512 px square
        got = np.stack([512 - got[:, 1], got[:, 0]], 1)
    # 2 % of the face: the noise of Face Mesh between two views of one photo.
    assert np.linalg.norm(got - want[:, :2], axis=1).mean() < 0.02 * FACE_SIDE


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_landmarks_turn_with_the_photo(detector, astronaut, degrees):
    want = landmarks_of(detector, astronaut).points[:, :2].astype(float)
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((256, 256), degrees, 0.7)
    got = landmarks_of(detector, warp_similarity(astronaut, turn, 512)).points[:, :2]
    error = np.linalg.norm(got - transform_points(turn, want), axis=1).mean()
    assert error < 0.02 * FACE_SIDE * 0.7


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_landmarks_scale_with_the_photo(detector, astronaut, scale):
    want = landmarks_of(detector, astronaut).points * np.float32(scale)
    scaled = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    got = landmarks_of(detector, scaled).points
    assert np.linalg.norm(got - want, axis=1).mean() < 0.03 * FACE_SIDE * scale


def test_landmarks_sit_on_the_eyes(detector, astronaut):
    points = landmarks_of(detector, astronaut).points
    eyes = np.stack([points[[33, 133], :2].mean(0), points[[263, 362], :2].mean(0)])
    np.testing.assert_allclose(eyes, ASTRONAUT_EYES, atol=4)  # a third of an eye's width


def test_nose_is_nearer_than_the_ears(detector, astronaut):
    points = landmarks_of(detector, astronaut).points
    assert points[4, 2] < points[[234, 454], 2].min()


def test_landmarks_on_a_face_are_confident(detector, astronaut):
    assert landmarks_of(detector, astronaut).confidence > 0.9


def test_landmarks_on_a_flat_wall_are_not_confident(detector):
    wall = np.full((300, 300, 3), 90, np.uint8)
    box = np.array([100, 100, 200, 200], np.float32)
    keypoints = np.array([[130, 130], [170, 130], [150, 150], [150, 170], [100, 130], [200, 130]])
    face = FaceDetection(box, keypoints.astype(np.float32), 1.0)
    assert detector.landmarks(wall, face).confidence < 0.5


def test_small_face_in_a_large_photo_is_found(detector, astronaut):
    canvas = np.full((3000, 4000, 3), 120, np.uint8)
    small = cv2.resize(astronaut, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    canvas[900 : 900 + len(small), 2200 : 2200 + len(small)] = small
    (face,) = detector.detect(canvas)
    eyes = ASTRONAUT_EYES * 0.6 + [2200, 900]
    np.testing.assert_allclose(face.keypoints[:2], eyes, atol=6)


def test_face_filling_the_photo_is_found(detector, astronaut):
    tight = np.ascontiguousarray(astronaut[70:170, 175:275])
    assert len(detector.detect(tight)) == 1


def test_two_faces_are_found_side_by_side(detector, astronaut):
    faces = detector.detect(np.concatenate([astronaut, astronaut], 1))
    lefts = sorted(float(face.box[0]) for face in faces)
    assert len(lefts) == 2
    assert lefts[1] - lefts[0] == pytest.approx(512, abs=0.1 * FACE_SIDE)


def test_the_larger_face_comes_first(detector, astronaut):
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    canvas = np.zeros((512, 768, 3), np.uint8)
    canvas[:256, :256] = small
    canvas[:, 256:] = astronaut
    faces = detector.detect_all(canvas)
    assert len(faces) == 2
    assert faces[0].box[0] > 256 > faces[1].box[2]


def test_detect_all_finds_a_face_too_small_for_the_first_look(detector, astronaut):
    canvas = np.zeros((1400, 2000, 3), np.uint8)
    canvas[:1024, :1024] = cv2.resize(astronaut, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    canvas[1100:1356, 1700:1956] = small
    boxes = [face.box for face in detector.detect_all(canvas)]
    assert len(boxes) == 2
    assert boxes[1][0] > 1700


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (640, 480, 3)])
def test_picture_without_a_face_gives_no_detection(detector, shape):
    assert detector.detect(np.full(shape, 128, np.uint8)) == []


def test_noise_gives_no_detection(detector):
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    assert detector.detect(noise) == []


def test_result_does_not_depend_on_threads(astronaut):
    one, two = (landmarks_of(FaceDetector(threads=n), astronaut).points for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_non_contiguous_view_gives_the_same_result(detector, astronaut):
    flipped = astronaut[:, ::-1]
    want = detector.detect(np.ascontiguousarray(flipped))[0]
    np.testing.assert_array_equal(detector.detect(flipped)[0].box, want.box)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        [[0]],
    ],
)
def test_wrong_image_is_refused_by_name(image):
    with pytest.raises(InvalidImage, match="image: expected"):
        check_image(image)


def square_of_68(low, high, roll=0.0):
    """68 points whose tight box (along the eye line) is low..high, eyes level before the roll."""
    points = np.full((68, 2), (np.array(low) + high) / 2.0)
    points[0], points[16] = low, high
    points[36:42] = [low[0] + 1, low[1] + 1]
    points[42:48] = [high[0] - 1, low[1] + 1]
    cos, sin = np.cos(roll), np.sin(roll)
    return points @ np.array([[cos, -sin], [sin, cos]]).T


def test_crop_is_the_authors_rule_on_level_points():
    crop = crop_face(
        np.zeros((400, 400, 3), np.uint8), square_of_68((100, 120), (180, 200)), size=500
    )
    s, x, y = 40.0, 140.0, 160.0  # half-side and centre of the 80 px square
    corners = [[x - 1.9255 * s, y - 2.2591 * s], [x + 1.9423 * s, y + 1.6087 * s]]
    got = transform_points(crop.crop_from_image, np.array(corners))
    np.testing.assert_allclose(got, [[0, 0], [500, 500]], atol=0.01)


@given(
    roll=st.floats(-3, 3),
    scale=st.floats(0.2, 20),
    x=st.floats(-300, 300),
    y=st.floats(-300, 300),
)
@settings(max_examples=30)
def test_crop_follows_any_similarity_of_the_points(roll, scale, x, y):
    image = np.zeros((8, 8, 3), np.uint8)
    points = np.random.default_rng(0).uniform(0, 100, (468, 2))
    move = np.array([[scale * np.cos(roll), -scale * np.sin(roll), x], [0, 0, y], [0, 0, 1.0]])
    move[1, :2] = -move[0, 1], move[0, 0]
    plain = crop_face(image, points, size=64).crop_from_image
    moved = crop_face(image, transform_points(move, points), size=64).crop_from_image
    np.testing.assert_allclose(moved @ move, plain, atol=1e-6 * 64 * max(1, scale))


def test_crop_has_level_eyes(detector, astronaut):
    turned = warp_similarity(
        astronaut, np.vstack([cv2.getRotationMatrix2D((256, 256), 30, 0.7), [0, 0, 1]]), 512
    )
    points = landmarks_of(detector, turned).points[:, :2].astype(float)
    crop = crop_face(turned, points)
    eyes = transform_points(crop.crop_from_image, points[[33, 133, 263, 362]])
    assert eyes[:2, 1].mean() == pytest.approx(eyes[2:, 1].mean(), abs=1e-6)
    assert eyes[0, 0] < eyes[2, 0]


@pytest.mark.parametrize("scale", [0.13, 0.4, 0.7, 1.0, 2.5])
def test_pixels_land_where_the_transform_says(scale):
    side = 600
    ys, xs = np.mgrid[:side, :side] + 0.5
    center = np.array([310.3, 286.8])
    blob = np.exp(-((xs - center[0]) ** 2 + (ys - center[1]) ** 2) / (2 * 12.0**2)) * 255
    image = np.repeat(np.round(blob).astype(np.uint8)[..., None], 3, 2)
    size = round(side * scale)
    angle = 0.3
    out_from_image = np.eye(3)
    out_from_image[:2, :2] = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    out_from_image[:2, 2] = size / 2 - out_from_image[:2, :2] @ center + 0.27
    out = warp_similarity(image, out_from_image, size)[..., 0].astype(float)
    oy, ox = np.mgrid[:size, :size] + 0.5
    got = [(ox * out).sum() / out.sum(), (oy * out).sum() / out.sum()]
    want = transform_points(out_from_image, center[None])[0]
    np.testing.assert_allclose(got, want, atol=0.05)  # OpenCV resamples at 1/32 px


def test_identity_warp_returns_the_photo(astronaut):
    np.testing.assert_array_equal(warp_similarity(astronaut, np.eye(3), 512), astronaut)


@pytest.mark.parametrize("factor", [3, 7, 11.5])
def test_fine_stripes_vanish_when_shrunk(factor):
    image = np.zeros((1200, 1200, 3), np.uint8)
    image[:, ::2] = 255  # finer than any shrunk picture can show
    size = int(1200 / factor)
    out = warp_similarity(image, np.diag([1 / factor, 1 / factor, 1.0]), size)
    # Over n columns the mean of the stripes wavers by 1/n; aliasing would give the full 255.
    assert np.ptp(out[2:-2, 2:-2].astype(int)) <= 255 / int(factor) + 1


def test_crop_outside_the_photo_is_black():
    crop = crop_face(np.full((100, 100, 3), 200, np.uint8), square_of_68((0, 0), (80, 80)))
    inside = transform_points(crop.crop_from_image, np.array([[50.0, 50.0]]))[0].astype(int)
    assert crop.image[0, 0].max() == 0
    assert crop.image[inside[1], inside[0]].min() == 200


def test_crop_beside_the_photo_is_black():
    crop = crop_face(
        np.full((9, 9, 3), 200, np.uint8), square_of_68((5000, 0), (5080, 80)), size=32
    )
    assert crop.image.max() == 0


@pytest.mark.parametrize(
    "points",
    [np.zeros((10, 2)), np.zeros((68, 1)), np.full((68, 2), np.nan), np.ones((468, 3))],
)
def test_wrong_points_are_refused_by_name(points):
    with pytest.raises(ValueError, match="points: expected"):
        crop_face(np.zeros((9, 9, 3), np.uint8), points)


def test_mesh68_names_distinct_points():
    assert len(set(MESH68.tolist())) == 68


def test_damaged_network_file_is_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes((ASSETS / "face_detection.onnx").read_bytes()[:5000])
    with pytest.raises(InvalidModelFile, match=r"broken\.onnx"):
        Session(path)


def test_missing_network_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        Session(tmp_path / "nothing.onnx")


def test_session_refuses_another_networks_shapes():
    session = Session(ASSETS / "face_detection.onnx", threads=1)
    with pytest.raises(InvalidModelFile, match="expected inputs"):
        session.expect(inputs={"image": (None, 192, 192, 3)}, outputs=session.outputs)


def test_session_refuses_wrong_feeds_by_name():
    session = Session(ASSETS / "face_detection.onnx", threads=1)
    with pytest.raises(ValueError, match=r"feeds\['image'\]: expected float32"):
        session.run({"image": np.zeros((1, 64, 64, 3), np.float32)})


def test_batch_gives_the_same_as_single_runs(astronaut):
    session = Session(ASSETS / "face_landmarks.onnx", threads=1)
    tile = astronaut[:192, 150:342].astype(np.float32)[None] / 255
    both = session.run({"image": np.concatenate([tile, tile[:, :, ::-1]])})["points"]
    np.testing.assert_array_equal(both[:1], session.run({"image": tile})["points"])


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="research data not present (EXTREME3D_DATA)")
def test_every_paper_photo_has_its_one_face(detector):
    files = sorted((DATA / "paper_photos").glob("??.jpg"))
    for file in files:
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        faces = detector.detect(image)
        assert len(faces) == 1, file.name
        points = detector.landmarks(image, faces[0]).points[MESH68[17:], :2]
        labels = np.loadtxt(file.with_name(f"{file.stem}_landmarks68.txt"))[17:] + 0.5
        # Two sets of landmarks of different definition: they agree to 3 % of the face, at most 8 %.
        assert np.linalg.norm(points - labels, axis=1).mean() < 0.08 * np.ptp(points, 0).max() * 1.6
    assert len(files) == 29
