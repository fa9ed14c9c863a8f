"""A descriptor stays with its person: chips follow the landmarks, and bad input is refused."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from tiny_networks import picks, write_network

from extreme3d_fast.crop import transform_points, warp_similarity
from extreme3d_fast.detect import ASSETS, MESH68, FaceDetector
from extreme3d_fast.errors import InvalidImage, InvalidModelFile
from extreme3d_fast.identity import (
    CHIP_POINTS,
    CHIP_X,
    CHIP_Y,
    IdentityNetwork,
    chip_from_image,
    face_chip,
)

# Each of the 68 points, seen in a mirror.
MIRROR_68 = np.concatenate(
    [
        [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)],
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1)],
        [64, 63, 62, 61, 60, 67, 66, 65],
    ]
)
TEMPLATE = (np.stack([CHIP_X, CHIP_Y], 1) + 0.25) / 1.5  # of a chip's side
PAIRS = 12  # persons


def turned(angle: float, scale: float, x: float = 0.0, y: float = 0.0) -> npt.NDArray[np.float64]:
    """(3, 3) similarity; the angle is in degrees."""
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


def face(image_from_unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points of dlib's average face in the image of its unit square; those not used anywhere."""
    points = np.random.default_rng(0).uniform(0, 100, (68, 2))
    points[CHIP_POINTS] = transform_points(image_from_unit, TEMPLATE)
    return points


@pytest.fixture(scope="module")
def network() -> IdentityNetwork:
    return IdentityNetwork()


@pytest.fixture(scope="module")
def landmarks(portrait: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    detector = FaceDetector()
    (detection,) = detector.detect(portrait)
    return detector.landmarks(portrait, detection).points[MESH68, :2].astype(np.float64)


# === Chips ===


@pytest.mark.parametrize("angle", [0.0, 37.0, 180.0, -90.0])
@pytest.mark.parametrize("size", [150, 64])
def test_chip_undoes_a_similarity_of_the_template(angle: float, size: int) -> None:
    image_from_unit = turned(angle, 210.0, 40.0, 7.0)
    chip_from_unit = chip_from_image(face(image_from_unit), size) @ image_from_unit
    np.testing.assert_allclose(chip_from_unit, np.diag([size, size, 1]), atol=1e-3)  # float32 px


def test_least_squares_are_taken_in_the_photo(rng: np.random.Generator) -> None:
    points = face(turned(10.0, 200.0, 250.0, 250.0)) + rng.normal(0, 5, (68, 2))
    image_from_chip = np.linalg.inv(chip_from_image(points, 1))

    def off(matrix: npt.NDArray[np.float64]) -> float:
        return float(((transform_points(matrix, TEMPLATE) - points[CHIP_POINTS]) ** 2).sum())

    least = off(image_from_chip)
    for change in (turned(0.1, 1), turned(-0.1, 1), turned(0, 1.001), turned(0, 1, 0.1, -0.1)):
        assert off(change @ image_from_chip) > least


def test_jaw_brows_and_lower_lip_do_not_count() -> None:
    points = face(turned(0.0, 200.0))
    others = [i for i in range(68) if i not in CHIP_POINTS]
    moved = points.copy()
    moved[others] = 1e4
    np.testing.assert_array_equal(chip_from_image(moved, 150), chip_from_image(points, 150))


def test_chip_of_an_upright_face_is_the_square_itself() -> None:
    image = np.random.default_rng(1).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    chip = face_chip(image, face(turned(0.0, 150.0)), 150)
    assert np.abs(chip.astype(int) - image).max() <= 1  # resampled at the same pixels


# === Descriptors ===


def test_descriptor_has_length_one_and_repeats(network, portrait, landmarks) -> None:
    descriptor = network.describe(portrait, landmarks)
    assert descriptor.dtype == np.float32
    assert descriptor.shape == (128,)
    assert np.linalg.norm(descriptor) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(network.describe(portrait, landmarks.tolist()), descriptor)


def test_threads_do_not_change_a_descriptor(network, portrait, landmarks) -> None:
    two = IdentityNetwork(threads=2).describe(portrait, landmarks)
    np.testing.assert_allclose(two, network.describe(portrait, landmarks), atol=1e-6)


# Other persons' cosines are about 0.84, the same person's in another video 0.94.
@pytest.mark.parametrize(
    ("matrix", "size", "cosine"),
    [
        (turned(90.0, 1.0, 512.0, 0.0), 512, 0.9999),  # pixels stay pixels
        (turned(180.0, 1.0, 512.0, 512.0), 512, 0.9999),
        (turned(30.0, 1.0, 190.0, -40.0), 512, 0.995),
        (turned(0.0, 2.0), 1024, 0.995),
        (turned(0.0, 0.6), 308, 0.98),  # the face is then 60 px wide
    ],
    ids=["quarter turn", "upside down", "30 degrees", "enlarged", "reduced"],
)
def test_descriptor_moves_along_with_the_landmarks(
    network, portrait, landmarks, matrix, size, cosine
) -> None:
    image = warp_similarity(portrait, matrix, size)
    descriptor = network.describe(image, transform_points(matrix, landmarks))
    assert descriptor @ network.describe(portrait, landmarks) > cosine


def test_mirror_image_is_the_same_person(network, portrait, landmarks) -> None:
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    points = landmarks[MIRROR_68] * [-1, 1] + [portrait.shape[1], 0]
    assert network.describe(mirrored, points) @ network.describe(portrait, landmarks) > 0.96


@pytest.mark.data
def test_same_person_in_another_video_is_nearer_than_others(network, data_dir: Path) -> None:
    with np.load(data_dir / "photos" / "landmarks478.npz") as labels:
        rows = {name: i for i, name in enumerate(labels["names"].tolist())}
        points = labels["xy_u16"][:, MESH68].astype(np.float64) / 8 - 256
    # The last two digits of a name are those of video and frame.
    firsts = [n for n in rows if n.startswith("youtube_faces") and n.endswith("_00.jpg")]
    pairs = [(n, n.replace("_00.jpg", "_10.jpg")) for n in firsts]
    pairs = [pair for pair in pairs if pair[1] in rows][:PAIRS]
    assert len(pairs) == PAIRS

    def describe(name: str) -> npt.NDArray[np.float32]:
        image = cv2.imread(str(data_dir / "photos" / name))[:, :, ::-1]
        return network.describe(np.ascontiguousarray(image), points[rows[name]])

    one, other = (np.stack([describe(pair[i]) for pair in pairs]) for i in (0, 1))
    cosines = one @ other.T
    same, others = np.diag(cosines), cosines[~np.eye(PAIRS, dtype=bool)]
    assert (same[:, None] > others).mean() > 0.93  # ROC-AUC; 0.98 over many persons


@pytest.mark.data
def test_whole_path_is_dlibs(network, data_dir: Path) -> None:
    """Weights alone differ by 3e-5, but dlib resamples otherwise: most where it enlarges."""
    dlib = pytest.importorskip("dlib", reason="the package dlib is not installed")
    weights = os.environ.get("DLIB_FACE_RECOGNITION")
    if not weights:
        pytest.skip("DLIB_FACE_RECOGNITION does not name dlib's weights")
    original = dlib.face_recognition_model_v1(weights)
    with np.load(data_dir / "photos" / "landmarks478.npz") as labels:
        names = labels["names"][::400].tolist()[:20]
        points = labels["xy_u16"][::400, MESH68].astype(np.float64)[:20] / 8 - 256
    cosines = []
    for name, face68 in zip(names, np.rint(points), strict=True):  # dlib wants whole pixels
        image = np.ascontiguousarray(cv2.imread(str(data_dir / "photos" / name))[:, :, ::-1])
        parts = [dlib.point(int(x), int(y)) for x, y in face68]
        box = dlib.rectangle(0, 0, image.shape[1] - 1, image.shape[0] - 1)
        theirs = np.array(
            original.compute_face_descriptor(image, dlib.full_object_detection(box, parts))
        )
        ours = network.describe(image, face68 + 0.5)  # dlib's pixel centres are whole numbers
        cosines.append(ours @ theirs / np.linalg.norm(theirs))
    assert len(cosines) == 20
    assert np.median(cosines) > 0.999
    assert min(cosines) > 0.99


# === Refusals ===

GREY = np.full((200, 200, 3), 128, np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3)),
        np.zeros((0, 9, 3), np.uint8),
        None,
    ],
    ids=["grey", "alpha", "float", "empty", "none"],
)
def test_images_that_are_none_are_refused(network, image) -> None:
    with pytest.raises(InvalidImage):
        network.describe(image, face(turned(0.0, 150.0)))


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (np.zeros((67, 2)), ValueError, r"should have shape \(68, 2\)"),
        (np.zeros((68, 3)), ValueError, r"should have shape \(68, 2\)"),
        (np.full((68, 2), "x"), TypeError, "real numbers"),
        (np.where(np.eye(68, 2) > 0, np.nan, face(turned(0.0, 150.0))), ValueError, "finite"),
        (np.full((68, 2), np.inf), ValueError, "finite"),
        (np.full((68, 2), 50.0), ValueError, "like those of a face"),
        (face(turned(0.0, 1e-3, 50.0, 50.0)), ValueError, "like those of a face"),
        (face(turned(0.0, 1e30)), ValueError, "fit the image"),
        (face(turned(0.0, 150.0, 1000.0, 0.0)), ValueError, "beside it"),
        (face(turned(0.0, 150.0, 0.0, -1000.0)), ValueError, "beside it"),
    ],
    ids=["67", "3-D", "text", "nan", "inf", "one place", "tiny", "huge", "right of it", "above it"],
)
def test_landmarks_that_are_no_faces_are_refused(network, points, error, message) -> None:
    with pytest.raises(error, match=f"`landmarks68` should .*{message}|`landmarks68` {message}"):
        network.describe(GREY, points)


@pytest.mark.parametrize("name", ["face_detection.onnx", "pose.onnx", "bump.onnx"])
def test_another_network_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidModelFile, match=name):
        IdentityNetwork(ASSETS / name)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes((ASSETS / "identity.onnx").read_bytes()[:100_000])
    with pytest.raises(InvalidModelFile, match=r"broken\.onnx"):
        IdentityNetwork(path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        IdentityNetwork(tmp_path / "nothing.onnx")
    other = write_network(tmp_path / "other.onnx", picks(0), metadata={"mean": "0", "std": "1"})
    with pytest.raises(InvalidModelFile, match=r"other\.onnx: expected inputs"):
        IdentityNetwork(other)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_answer_without_a_direction_is_refused(network, monkeypatch, value: float) -> None:
    answer = {"descriptor": np.full((1, 128), value, np.float32)}
    monkeypatch.setattr(network._session, "run", lambda _: answer)
    with pytest.raises(InvalidModelFile, match="length"):
        network.describe(GREY, face(turned(0.0, 150.0)))
