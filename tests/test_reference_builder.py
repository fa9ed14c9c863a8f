"""reference_builder: which photos make references, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_networks import RED, picks, says, write_network

from extreme3d_fast.camera import angles_from_rotation
from extreme3d_fast.face_chart import FaceChart
from extreme3d_fast.mesh import transform_points
from extreme3d_fast.reference_builder import (
    MAX_HIDDEN,
    MAX_OUTSIDE,
    MAX_STEEPNESS,
    MIN_FACE_PX,
    MIN_SHARPNESS,
    ROUGHNESS,
    Candidate,
    ReferenceBuilder,
    image_files,
    sharpness,
)
from extreme3d_fast.references import ReferenceSet, ReferenceWriter

Image = NDArray[np.uint8]
GAIN = 0.3  # mm for half the range of red


def builder_with(path: Path, gain: float = GAIN, mask: float = 1.0) -> ReferenceBuilder:
    """Takes red for relief, and every pixel for as likely the face's."""
    network = write_network(path, picks(RED, gain=gain), mask_bias=mask)
    return ReferenceBuilder(bump_network=network)


@pytest.fixture(scope="module")
def photo(portrait: Image) -> Image:
    """The portrait, its face 150 px high."""
    return np.asarray(cv2.resize(portrait, None, fx=1.5, fy=1.5), np.uint8)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> ReferenceBuilder:
    return builder_with(tmp_path_factory.mktemp("network") / "red.onnx")


@pytest.fixture(scope="module")
def candidate(builder: ReferenceBuilder, photo: Image) -> Candidate:
    return builder.examine(photo)


def test_clear_face_is_taken(candidate: Candidate) -> None:
    assert candidate.refusal == ""
    assert candidate.measures is not None
    assert 140 < candidate.measures.face_px < 170
    assert candidate.measures.hidden == candidate.measures.outside == 0


def test_kept_bump_is_what_the_network_says_of_the_crop(
    builder: ReferenceBuilder, candidate: Candidate
) -> None:
    """Unfaded, and at its place: red of the crop where a vertex is seen."""
    assert candidate.face is not None
    assert candidate.image is not None
    face, model = candidate.face, builder.head_model
    skin = model.vertices(face.identity, face.expression)[: model.skin_vertex_count]
    at = face.camera.project(transform_points(face.camera_from_head, skin))
    cheeks = np.linalg.norm(at - (face.landmarks68[31] - [30, 0]), axis=1) < 15
    cheeks &= model.face_weight > 0.5  # what hangs on lips lies behind
    assert cheeks.sum() > 50
    x, y = at[cheeks].astype(int).T
    # a pixel of the chart is some two of the crop
    red = cv2.GaussianBlur(candidate.image[..., 0].astype(np.float32), (0, 0), 1)
    u, v = FaceChart(model).place[cheeks].astype(int).T
    assert face.seen[v, u].all()
    want = GAIN * (red[y, x] / 127.5 - 1)
    # both are looked up to the pixel
    assert np.median(np.abs(face.bump[v, u] - want)) < 0.01
    assert np.corrcoef(face.bump[v, u], want)[0, 1] > 0.95


def test_landmarks_are_those_of_the_foundation(candidate: Candidate) -> None:
    assert candidate.face is not None
    points = candidate.face.landmarks68
    nose, chin = points[30], points[8]
    assert np.all((points > 0) & (points < 500))
    assert chin[1] > nose[1] + 50
    assert abs(nose[0] - candidate.face.camera.cx) < 40


def test_set_of_one_finds_its_face_and_its_mirror_image(
    builder: ReferenceBuilder, candidate: Candidate, photo: Image, tmp_path: Path
) -> None:
    assert candidate.face is not None
    with ReferenceWriter(tmp_path / "one.npz", **builder.metadata) as writer:
        writer.add(candidate.face, candidate.descriptor)
    one = ReferenceSet.load(tmp_path / "one.npz")
    assert one.head_model == builder.head_model.fingerprint
    (found,) = one.search(candidate.face.camera_from_head, candidate.descriptor)
    assert (found.index, found.mirrored) == (0, False)
    assert found.pose_distance < 0.1
    assert found.similarity > 0.999
    turned = builder.examine(np.ascontiguousarray(photo[:, ::-1]))
    assert turned.face is not None
    (found,) = one.search(turned.face.camera_from_head, turned.descriptor)
    assert found.mirrored
    assert found.pose_distance < 3  # the networks are not symmetric themselves
    yaw, pitch, _ = angles_from_rotation(candidate.face.camera_from_head)
    np.testing.assert_allclose(one.yaw_pitch[0], [yaw, pitch], atol=0.01)


def test_photo_without_a_face_says_so(builder: ReferenceBuilder) -> None:
    blank = builder.examine(np.full((300, 400, 3), 127, np.uint8))
    assert (blank.refusal, blank.measures, blank.face) == ("no face", None, None)


def test_small_face_is_refused(builder: ReferenceBuilder, photo: Image) -> None:
    small = builder.examine(cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    assert small.refusal == "too small"
    assert small.measures is not None
    assert small.measures.face_px < MIN_FACE_PX
    assert small.face is None


def test_face_that_the_photo_cuts_is_refused(builder: ReferenceBuilder, photo: Image) -> None:
    cut = builder.examine(np.ascontiguousarray(photo[:230]))
    assert cut.refusal == "cut off"
    assert cut.measures is not None
    assert cut.measures.outside > MAX_OUTSIDE


def test_blurred_face_is_refused(builder: ReferenceBuilder, photo: Image) -> None:
    blurred = builder.examine(cv2.GaussianBlur(photo, (0, 0), 4))
    assert blurred.refusal == "blurred"
    assert blurred.measures is not None
    assert blurred.measures.sharpness < MIN_SHARPNESS


def test_covered_face_is_refused(photo: Image) -> None:
    fringe = ReferenceBuilder().examine(photo)  # the built-in network sees the hair on the forehead
    assert fringe.refusal == "covered"
    assert fringe.measures is not None
    assert fringe.measures.hidden > MAX_HIDDEN


def test_glasses_are_refused_by_the_bridge_of_the_nose(photo: Image, tmp_path: Path) -> None:
    """A mask that doubts the face a little everywhere doubts the bridge too."""
    doubtful = builder_with(tmp_path / "a.onnx", mask=0.9).examine(photo)
    assert doubtful.refusal == "glasses"
    assert doubtful.measures is not None
    assert doubtful.measures.on_bridge == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize(("gain", "reason"), [(0.0, "flat"), (3.0, "rough")])
def test_relief_without_sense_is_refused(photo: Image, tmp_path: Path, gain, reason) -> None:
    refused = builder_with(tmp_path / "a.onnx", gain).examine(photo)
    assert refused.refusal == reason
    assert refused.measures is not None
    low, high = ROUGHNESS
    rough = refused.measures.roughness
    assert rough < low or rough > high or refused.measures.steepness > MAX_STEEPNESS


def test_relief_of_one_height_has_no_slope(photo: Image, tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx", says(), bump_bias=0.2)
    level = ReferenceBuilder(bump_network=path).examine(photo)
    assert level.measures is not None
    assert level.measures.roughness == pytest.approx(0.2, rel=0.05)
    assert level.measures.steepness < 0.03  # what has faded by up to a tenth falls off


def test_sharpness_falls_with_blur(rng: np.random.Generator) -> None:
    noise = rng.integers(90, 160, (200, 200, 3)).astype(np.uint8)
    weight, skin = np.ones((200, 200), np.float32), np.ones((200, 200), bool)
    steps = [sharpness(cv2.GaussianBlur(noise, (0, 0), s), weight, skin) for s in (0.5, 1, 2, 4)]
    assert steps == sorted(steps, reverse=True)
    assert sharpness(noise, weight, ~skin) == 0


def test_images_are_looked_for_in_folders_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.PNG", "a/b/d.webp", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(image_files([tmp_path, tmp_path / "b.jpg", tmp_path / "missing.jpg"]))
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["a/b/d.webp", "a/c.PNG", "b.jpg", "missing.jpg"]


def test_research_photos_with_glasses_are_refused(data_dir: Path) -> None:
    """Of labelled ones, more than the labels' own photos without."""
    labels = data_dir / "photos" / "celebamask_parsing"
    bare, glasses = [], []
    for path in sorted(labels.glob("*.png"))[:400]:
        count = np.count_nonzero(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == 3)
        (glasses if count > 60 else bare).append(path.stem)
    if len(glasses) < 8:
        pytest.skip("too few labelled photos")
    builder = ReferenceBuilder()

    def taken(names: list[str]) -> int:
        photos = (data_dir / "photos" / "celebamask" / f"{name}.jpg" for name in names[:8])
        return sum(not builder.examine(photo).refusal for photo in photos)

    assert taken(glasses) <= 1
    assert taken(bare) >= 2
