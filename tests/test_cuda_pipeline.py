"""The whole pipeline on a device, against the one of the CPU."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tiny_networks import says, write_network

import extreme3d_fast as e3d
from extreme3d_fast.aside import Aside
from extreme3d_fast.camera import rotation_from_angles
from extreme3d_fast.crop import Crop
from extreme3d_fast.device import Device, DeviceKind
from extreme3d_fast.device_network import PhotosOnDevice
from extreme3d_fast.device_pipeline import DevicePipeline, device_lanes
from extreme3d_fast.errors import DeviceUnavailable
from extreme3d_fast.estimator import Found, Foundation
from extreme3d_fast.lane import PipelineOptions
from extreme3d_fast.mesh import mesh_report

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

# What a device may differ by where it is told the same by its networks.
VERTEX_MM, VERTEX_SHARE = 0.05, 0.999
COLOR_LEVELS, COLOR_SHARE = 4, 0.99
FOUNDATION_MM = 1e-3  # float32 sums of 150 terms
# Pixels of the crop whose mask, hole or depth a rounding decides.
STRAY_PIXELS = 10
# Where its networks see other roundings of the photo, and round to half precision themselves.
FREE_FOUNDATION_MM, FREE_SHARE = 0.5, 0.02


@pytest.fixture(scope="module", params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def kind(request: pytest.FixtureRequest) -> DeviceKind:
    try:
        Device(request.param)
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    kind: DeviceKind = request.param
    return kind


class Pair:
    """Reconstructors of the same options, on the CPU and on a device."""

    def __init__(
        self, kind: DeviceKind, *, head_model: e3d.HeadModel | None = None, **options: Any
    ) -> None:
        self.cpu = e3d.Reconstructor(head_model=head_model, **options)
        self.device = e3d.Reconstructor(head_model=head_model, **options)
        [self.lane] = device_lanes(self.cpu.head_model, PipelineOptions(**options), 1, kind)
        self.device._lanes.get()
        self.device._lanes.put(self.lane)

    @property
    def model(self) -> e3d.HeadModel:
        return self.cpu.head_model


class SameNetworks(Pair):
    """Such reconstructors, whose device hears of its networks what they told the CPU."""

    def __init__(self, kind: DeviceKind, **options: Any) -> None:
        super().__init__(kind, **options)
        self._said: dict[str, Any] = {}
        self._keep(self.cpu._estimator, "estimate", "foundation")
        self._keep(self.cpu._bump_network._session, "run", "bump")
        if self.lane._similar is not None:
            assert self.cpu._similar is not None
            self._keep(self.cpu._similar._identity, "describe", "identity")
            own = self.lane._similar._identity.describe  # where the CPU's has an exception to say

            def describe(*asked: Any) -> Float32:
                return self._said["identity"] if "identity" in self._said else own(*asked)

            self.lane._similar._identity.describe = describe
        session = SimpleNamespace(run=lambda _: self._said["bump"])
        self.lane._bump_runner.session = session
        self.lane._bump_network._session.run = session.run

    def _keep(self, owner: Any, method: str, name: str) -> None:
        ask = getattr(owner, method)

        def kept(*arguments: Any) -> Any:
            self._said[name] = ask(*arguments)
            return self._said[name]

        setattr(owner, method, kept)

    def reconstruct(self, photo: UInt8) -> tuple[e3d.Face, e3d.Face]:
        self._said.pop("identity", None)
        on_cpu = self.cpu.reconstruct(photo)
        foundation, crop = self._said["foundation"]
        self.lane.estimator = FixedFoundation(self.lane, foundation, crop)
        return on_cpu, self.device.reconstruct(photo)


class FixedFoundation:
    """Stands in for a lane's front end with a foundation of the test's making."""

    def __init__(self, lane: DevicePipeline, foundation: Foundation, crop: Crop) -> None:
        self._lane, self._foundation, self._crop = lane, foundation, crop

    def find(self, *_: Any, **__: Any) -> list[Found]:
        return [Found(None, None)]

    def estimate(self, *_: Any) -> tuple[Foundation, Crop]:
        image = self._crop.image
        on_device = self._lane._cut(np.array(image), np.eye(3), len(image))
        return self._foundation, Crop(on_device, self._crop.crop_from_image)


@pytest.fixture(scope="module")
def free(kind: DeviceKind) -> Pair:
    return Pair(kind)


@pytest.fixture(scope="module")
def same(kind: DeviceKind) -> SameNetworks:
    return SameNetworks(kind)


def assert_valid(face: e3d.Face) -> None:
    report = mesh_report(face.vertices, face.faces)
    assert report.is_valid, report
    assert (report.components, report.boundary_loops) == (1, 1)
    assert np.isfinite(face.vertices).all()
    assert len(face.colors) == len(face.provenance) == len(face.vertices)


def assert_same_mesh(ours: e3d.Face, theirs: e3d.Face) -> None:
    """Vertex by vertex, each with the nearest: a rounding can leave one out."""
    assert abs(len(ours.vertices) - len(theirs.vertices)) <= STRAY_PIXELS
    assert abs(len(ours.faces) - len(theirs.faces)) <= 2 * STRAY_PIXELS
    for one, other in ((ours, theirs), (theirs, ours)):
        distance, nearest = cKDTree(other.vertices).query(one.vertices)
        assert np.quantile(distance, VERTEX_SHARE) <= VERTEX_MM
        assert (one.provenance == other.provenance[nearest]).mean() >= VERTEX_SHARE
        levels = np.abs(one.colors.astype(int) - other.colors[nearest]).max(1)
        assert np.quantile(levels, COLOR_SHARE) <= COLOR_LEVELS


def assert_same(ours: e3d.Face, theirs: e3d.Face) -> None:
    assert_same_mesh(ours, theirs)
    assert ours.warnings == theirs.warnings
    assert ours.references == theirs.references
    np.testing.assert_array_equal(ours.photo, theirs.photo)
    np.testing.assert_allclose(ours.foundation, theirs.foundation, atol=FOUNDATION_MM)
    for name in ("identity", "expression", "camera_from_head", "crop_from_image"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.camera == theirs.camera
    for one, other in (
        (ours.face_mask, theirs.face_mask),
        (ours.occlusion.hole, theirs.occlusion.hole),
        (np.isfinite(ours.depth), np.isfinite(theirs.depth)),
    ):
        assert one.dtype == other.dtype == np.bool_
        assert (one != other).sum() <= STRAY_PIXELS
    assert ours.occlusion.fraction == pytest.approx(theirs.occlusion.fraction, abs=1e-4)
    both = np.isfinite(ours.depth) & np.isfinite(theirs.depth)
    for name in ("bump", "depth"):
        apart = np.abs(getattr(ours, name)[both] - getattr(theirs, name)[both])
        assert (apart > VERTEX_MM).sum() <= (1 - VERTEX_SHARE) * both.size, name
    assert_same_parts(ours, theirs)


def assert_same_parts(ours: e3d.Face, theirs: e3d.Face) -> None:
    assert list(ours.parts) == list(theirs.parts)
    for name, part in ours.parts.items():
        other = theirs.parts[name]
        np.testing.assert_array_equal(part.faces, other.faces)
        np.testing.assert_allclose(part.vertices, other.vertices, atol=FOUNDATION_MM)
        levels = np.abs(part.colors.astype(int) - other.colors).max(1)
        assert np.quantile(levels, COLOR_SHARE) <= COLOR_LEVELS


def assert_same_bits(one: e3d.Face, other: e3d.Face) -> None:
    for name in ("vertices", "faces", "colors", "provenance", "depth", "bump", "photo", "identity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.references == other.references
    assert one.warnings == other.warnings
    for name, part in one.parts.items():
        np.testing.assert_array_equal(part.colors, other.parts[name].colors)


def assert_alike(ours: e3d.Face, theirs: e3d.Face) -> None:
    """Faces of networks that each saw the photo for themselves."""
    shift = np.linalg.norm(ours.foundation - theirs.foundation, axis=1)
    assert np.median(shift) < FREE_FOUNDATION_MM
    assert ours.foundation_source == theirs.foundation_source
    assert len(ours.vertices) == pytest.approx(len(theirs.vertices), rel=FREE_SHARE)
    counts = [np.bincount(f.provenance, minlength=4) / len(f.provenance) for f in (ours, theirs)]
    np.testing.assert_allclose(*counts, atol=FREE_SHARE)
    assert ours.occlusion.fraction == pytest.approx(theirs.occlusion.fraction, abs=FREE_SHARE)


# === Photos ===


def with_sunglasses(portrait: UInt8) -> UInt8:
    covered = portrait.copy()
    covered[95:135, 165:285] = (12, 12, 14)
    return covered


def behind_noise(portrait: UInt8) -> UInt8:
    """Half of the face behind something loud."""
    covered = portrait.copy()
    size = covered[60:220, 225:300].shape
    covered[60:220, 225:300] = np.random.default_rng(0).integers(0, 255, size)
    return covered


def upright(portrait: UInt8) -> UInt8:
    return portrait


def mirrored(portrait: UInt8) -> UInt8:
    return np.ascontiguousarray(portrait[:, ::-1])


def cut_below(portrait: UInt8) -> UInt8:
    return np.ascontiguousarray(portrait[:150])


def cut_aside(portrait: UInt8) -> UInt8:
    return np.ascontiguousarray(portrait[:, 225:])


def small(portrait: UInt8) -> UInt8:
    return np.ascontiguousarray(portrait[::6, ::6])


def turned(portrait: UInt8) -> UInt8:
    return np.ascontiguousarray(np.rot90(portrait))


def grey(portrait: UInt8) -> UInt8:
    return portrait.mean(2).astype(np.uint8)


PHOTOS = [
    upright,
    mirrored,
    with_sunglasses,
    behind_noise,
    cut_below,
    cut_aside,
    small,
    turned,
    grey,
]


@pytest.mark.parametrize("change", PHOTOS)
def test_head_is_the_cpus(
    same: SameNetworks, portrait: UInt8, change: Callable[..., UInt8]
) -> None:
    theirs, ours = same.reconstruct(change(portrait))
    assert_valid(ours)
    assert_same(ours, theirs)


@pytest.mark.data
@pytest.mark.parametrize("number", [0, 7, 8, 17, 28])  # 7 and 8 have borders a rounding moves
def test_heads_of_the_papers_photos_are_the_cpus(same, data_dir, number):
    photo = e3d.image_io.load_image(data_dir / "paper_photos" / f"{number:02d}.jpg")
    theirs, ours = same.reconstruct(photo)
    assert_valid(ours)
    assert_same(ours, theirs)


def test_order_of_threads_does_not_matter(same: SameNetworks, portrait: UInt8) -> None:
    if same.lane._device.kind != "host":
        pytest.skip("the twin's threads alone have an order")
    photo = with_sunglasses(portrait)
    _, forward = same.reconstruct(photo)
    same.lane._device.ops.run_reversed(True)
    try:
        _, backward = same.reconstruct(photo)
    finally:
        same.lane._device.ops.run_reversed(False)
    assert_same_bits(forward, backward)


@pytest.mark.parametrize(
    "options",
    [
        {"detail": "none"},
        {"detail": "shading"},
        {"detail": "shading", "occlusion": "none"},
        {"occlusion": "none"},
        {"occlusion": "smooth"},
        {"symmetry": False},
        {"foundation": "landmarks"},
        {"foundation": "networks"},
        {"crop_size": 64},
        {"crop_size": 250},
        {"crop_size": 501},
        {"crop_size": 700},
        {"crop_size": 250, "detail": "shading", "occlusion": "smooth"},
        {"crop_size": 333, "detail": "none", "symmetry": False},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_head_with_options_is_the_cpus(
    kind: DeviceKind, portrait: UInt8, options: Mapping[str, Any]
) -> None:
    same = SameNetworks(kind, **options)
    for change in (upright, with_sunglasses, cut_below):
        theirs, ours = same.reconstruct(change(portrait))
        assert_valid(ours)
        assert_same(ours, theirs)


@pytest.mark.parametrize("crop_size", [65, 500])
def test_any_pose_and_any_head_give_the_cpus_mesh(
    kind: DeviceKind, portrait: UInt8, crop_size: int
) -> None:
    """Poses that hide, fold and cut the head off in every way, caricatures included."""
    same = SameNetworks(kind, crop_size=crop_size)
    frontal = same.cpu.reconstruct(portrait)
    foundation, crop = same._said["foundation"]
    rng = np.random.default_rng(crop_size)
    for yaw in (0, 20, -45, 45, 70, -90, 90, 120, 180):
        pose = np.array(frontal.camera_from_head)
        pose[:3, :3] = rotation_from_angles(yaw, rng.uniform(-40, 40), rng.uniform(-30, 30))
        pose[:2, 3] += rng.uniform(-60, 60, 2)
        pose[2, 3] *= rng.uniform(0.5, 1.5)
        identity = rng.normal(0, rng.choice([0.0, 1.0, 3.0]), 99).astype(np.float32)
        posed = dataclasses.replace(foundation, camera_from_head=pose, identity=identity)
        same.cpu._estimator = SimpleNamespace(
            find=lambda *_: [Found(None, None)], estimate=lambda *_, p=posed: (p, crop)
        )
        same._said["foundation"] = posed, crop
        theirs, ours = same.reconstruct(portrait)
        assert_valid(ours)
        assert_same(ours, theirs)


def test_face_that_the_crop_does_not_show_gives_the_cpus_mesh(
    same: SameNetworks, portrait: UInt8
) -> None:
    foundation, crop = same.cpu._estimator.estimate(
        portrait, *same.cpu._estimator.find(portrait, timed), 500, timed
    )
    pose = np.array(foundation.camera_from_head)
    pose[0, 3] += 5000  # mm
    beside = dataclasses.replace(foundation, camera_from_head=pose)
    lane = same.lane
    lane.begin()
    lane.estimator = FixedFoundation(lane, beside, crop)
    ours = lane.reconstruct(portrait, *lane.estimator.estimate(), {})
    with Aside(1) as aside:
        theirs = same.cpu._reconstruct(portrait, beside, crop, {}, aside)
    assert_same(ours, theirs)
    assert not ours.face_mask.any()


def timed(_: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return function


# === Each with its own networks ===


@pytest.mark.parametrize("change", PHOTOS)
def test_head_is_like_the_cpus(free: Pair, portrait: UInt8, change: Callable[..., UInt8]) -> None:
    ours, theirs = (r.reconstruct(change(portrait)) for r in (free.device, free.cpu))
    assert_valid(ours)
    assert_alike(ours, theirs)


@pytest.mark.data
def test_photos_of_the_paper_give_valid_heads(free: Pair, data_dir: Any) -> None:
    photos = sorted((data_dir / "paper_photos").glob("??.jpg"))
    assert len(photos) == 29
    for photo in photos:
        assert_valid(free.device.reconstruct(photo))


def test_every_face_of_a_photo(free: Pair, portrait: UInt8) -> None:
    two = np.concatenate([portrait, with_sunglasses(mirrored(portrait))], axis=1)
    ours, theirs = (r.reconstruct_all(two) for r in (free.device, free.cpu))
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert_alike(one, other)
        levels = np.abs(one.photo.astype(int) - other.photo)
        assert np.quantile(levels, COLOR_SHARE) <= COLOR_LEVELS


def test_photo_without_a_face(free: Pair) -> None:
    blank = np.full((300, 400, 3), 127, np.uint8)
    with pytest.raises(e3d.NoFaceFound, match="400x300"):
        free.device.reconstruct(blank)
    assert free.device.reconstruct_all(blank) == []
    for shape in ((1, 1, 3), (1, 500, 3), (5, 3, 3), (16, 16, 3)):
        with pytest.raises((e3d.NoFaceFound, e3d.InvalidImage)):
            free.device.reconstruct(np.zeros(shape, np.uint8))


def test_foundation_alone_is_that_of_the_face(free: Pair, portrait: UInt8) -> None:
    face = free.device.reconstruct(portrait)
    foundation = free.device.estimate_foundation(portrait)
    np.testing.assert_array_equal(foundation.identity, face.identity)
    np.testing.assert_array_equal(foundation.camera_from_head, face.camera_from_head)


# === A lane after another photo ===


def test_what_a_lane_did_before_does_not_matter(free: Pair, portrait: UInt8) -> None:
    first, second = portrait, with_sunglasses(mirrored(portrait))
    device = free.device
    faces = [device.reconstruct(photo) for photo in (first, second, first, second)]
    assert_same_bits(faces[0], faces[2])
    assert_same_bits(faces[1], faces[3])
    with pytest.raises(e3d.NoFaceFound):
        device.reconstruct(np.zeros((200, 200, 3), np.uint8))
    assert [len(device.reconstruct_all(np.hstack([first, second]))) for _ in range(2)] == [2, 2]
    device.reconstruct(small(portrait))
    assert_same_bits(device.reconstruct(first), faces[0])


def test_array_may_be_written_anew_between_photos(free: Pair, portrait: UInt8) -> None:
    frame = np.array(portrait)
    before = free.device.reconstruct(frame)
    frame[:] = with_sunglasses(mirrored(portrait))
    after = free.device.reconstruct(frame)
    assert_same_bits(before, free.device.reconstruct(portrait))
    assert_same_bits(after, free.device.reconstruct(with_sunglasses(mirrored(portrait))))


def test_face_is_not_changed_by_the_next_one(free: Pair, portrait: UInt8) -> None:
    face = free.device.reconstruct(portrait)
    kept = dataclasses.replace(face, photo=face.photo.copy(), vertices=face.vertices.copy())
    free.device.reconstruct(with_sunglasses(mirrored(portrait)))
    np.testing.assert_array_equal(face.photo, kept.photo)
    np.testing.assert_array_equal(face.vertices, kept.vertices)


def test_photos_share_their_room_on_the_device(kind: DeviceKind) -> None:
    device = Device(kind)
    photos = PhotosOnDevice(device)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (n, 7, 3), np.uint8) for n in (5, 3, 9)]
    for picture in (*pictures, *pictures):
        np.testing.assert_array_equal(device.get(photos.get(picture), np.uint8), picture)


# === What goes wrong ===


@pytest.mark.parametrize("strips", [True, False], ids=["strips", "whole mesh"])
def test_zipper_of_the_host_gives_the_cpus_mesh(
    same: SameNetworks, portrait: UInt8, strips: bool
) -> None:
    """Strips that the device cannot fill, and borders that touch themselves."""
    zipper, lane = same.lane._zipper, same.lane

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(zipper, name)

        def counts(self) -> None:
            return None

        def stitch(self, **arguments: Any) -> Any:
            return zipper.stitch(**arguments) if strips else None

    try:
        lane._zipper = Refusing()
        theirs, ours = same.reconstruct(with_sunglasses(portrait))
    finally:
        lane._zipper = zipper
    assert_valid(ours)
    assert_same(ours, theirs)
    # and the next photo is the device's own again
    theirs, ours = same.reconstruct(portrait)
    assert_same(ours, theirs)


def answers_with(value: float, wrong: str, where: Any) -> Any:
    """A bump network that says so of some pixels."""

    def run(feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        shape = (1, 1, *feeds["image"].shape[2:])
        out = {"bump": np.zeros(shape, np.float32), "mask": np.ones(shape, np.float32)}
        out[wrong][0, 0][where] = value
        return out

    return SimpleNamespace(run=run)


MIDDLE, EVERYWHERE = (150, 150), ...


@pytest.mark.parametrize("options", [{}, {"detail": "none"}, {"crop_size": 300}], ids=str)
def test_networks_that_answer_with_nan_are_refused(
    kind: DeviceKind, portrait: UInt8, options: Mapping[str, Any]
) -> None:
    pair = Pair(kind, **options)
    before = pair.device.reconstruct(portrait)
    runner, network = pair.lane._bump_runner, pair.lane._bump_network._session
    own = runner.session, network.run
    cases = itertools.product((np.nan, np.inf, -np.inf), ("bump", "mask"), (MIDDLE, EVERYWHERE))
    for value, wrong, where in cases:
        runner.session = answers_with(value, wrong, where)
        network.run = runner.session.run
        with pytest.raises(e3d.InvalidModelFile, match="bump"):
            pair.device.reconstruct(portrait)
    runner.session, network.run = own
    assert_same_bits(pair.device.reconstruct(portrait), before)


def test_network_of_another_stride_is_refused(kind: DeviceKind, portrait: UInt8, tmp_path) -> None:
    path = write_network(tmp_path / "half.onnx", says(), stride=2)
    pair = Pair(kind, bump_network=path)
    for one in (pair.cpu, pair.device):
        with pytest.raises(e3d.InvalidModelFile, match="expected"):
            one.reconstruct(portrait)


@pytest.mark.parametrize("channels", [3, 5])
def test_other_networks_are_taken(
    kind: DeviceKind, portrait: UInt8, channels: int, tmp_path
) -> None:
    path = write_network(tmp_path / "a.onnx", says(channels), bump_bias=1.5, mask_bias=0.75)
    pair = Pair(kind, bump_network=path, occlusion="none")
    face = pair.device.reconstruct(portrait)
    assert face.bump.max() == np.float32(1.5)
    assert set(np.unique(face.face_probability)) == {0.0, 0.75}
    assert_alike(face, pair.cpu.reconstruct(portrait))


def test_missing_and_damaged_networks_are_named(kind: DeviceKind, tmp_path) -> None:
    model = e3d.HeadModel.load()
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        device_lanes(model, PipelineOptions(bump_network=tmp_path / "nothing.onnx"), 1, kind)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(e3d.InvalidModelFile, match=r"text\.onnx"):
        device_lanes(model, PipelineOptions(bump_network=tmp_path / "text.onnx"), 1, kind)


def resident_mb() -> float:
    """Memory of this process that is in use, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# A leak of one array of a face, 1 MB, would be seen after 64; what is left is the allocator's.
GROWTH_MB = 64.0
SOAK_S = 60.0


def test_memory_does_not_grow(kind: DeviceKind, portrait: UInt8) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    covered, blank = with_sunglasses(portrait), np.zeros((64, 64, 3), np.uint8)
    photos = [portrait, small(portrait), covered, mirrored(portrait), blank, cut_below(portrait)]
    pair, count = (Pair(kind), 1000) if kind == "cuda" else (Pair(kind, crop_size=64), 36)
    end = time.monotonic() + SOAK_S
    resident, in_use = [], []
    for k in range(count):
        try:
            pair.device.reconstruct(photos[k % len(photos)])
        except e3d.NoFaceFound:
            assert photos[k % len(photos)] is blank
        free_bytes, total = pair.lane._device.ops.memory()
        in_use.append((total - free_bytes) / 1e6)
        resident.append(resident_mb())
        if time.monotonic() > end:
            break
    settled = 3 * len(photos)  # of every photo what is made on first use, and its graphs
    assert len(resident) > settled, "too slow to tell"
    assert resident[-1] - resident[settled] < GROWTH_MB
    assert in_use[-1] - in_use[settled] < GROWTH_MB


# === Other head models ===


def skin_alone(model: e3d.HeadModel) -> e3d.HeadModel:
    """The built-in head as another file might hold it: no parts, no subdivision, few modes."""
    n = model.skin_vertex_count
    mean = model.vertices()[:n]
    alphas, etas = np.eye(20, model.n_identity), np.eye(10, model.n_expression)
    landmarks = {
        f"landmarks{which}_faces": np.minimum(
            getattr(model, f"landmarks{which}_faces"), len(model.faces) - 1
        )
        for which in ("68", "478")
    }
    return e3d.HeadModel(
        mean=mean,
        identity=np.stack([model.vertices(alpha)[:n] - mean for alpha in alphas]),
        expression=np.stack([model.vertices(None, eta)[:n] - mean for eta in etas]),
        expression_names=model.expression_names[:10],
        faces=model.faces,
        mirror=model.mirror[:n],
        face_weight=model.face_weight,
        face_region=model.face_region,
        landmarks68_bary=model.landmarks68_bary,
        landmarks478_bary=model.landmarks478_bary,
        **landmarks,
    )


def test_head_models_of_skin_alone_give_the_cpus_mesh(kind: DeviceKind, portrait: UInt8) -> None:
    same = SameNetworks(kind, head_model=skin_alone(e3d.HeadModel.load()))
    for photo in (portrait, with_sunglasses(portrait)):
        theirs, ours = same.reconstruct(photo)
        assert ours.foundation_source == "landmarks"
        assert ours.parts == {}
        assert_valid(ours)
        assert_same(ours, theirs)


def test_other_shapes_of_the_head_give_the_cpus_mesh(kind: DeviceKind, portrait: UInt8) -> None:
    model = e3d.HeadModel.load()
    other = dataclasses.replace(model, mean=model.mean * np.float32([1.02, 1.0, 1.0]))
    same = SameNetworks(kind, head_model=other)
    theirs, ours = same.reconstruct(portrait)
    assert_same(ours, theirs)
    theirs, ours = same.reconstruct(with_sunglasses(portrait))
    assert any("of another head model" in warning for warning in ours.warnings)
    assert ours.warnings == theirs.warnings


def test_head_models_without_landmarks_are_refused(kind: DeviceKind) -> None:
    model = dataclasses.replace(
        e3d.HeadModel.load(),
        landmarks478_faces=np.zeros(0, np.int32),
        landmarks478_bary=np.zeros((0, 3), np.float32),
    )
    with pytest.raises(ValueError, match="no '478' landmarks"):
        device_lanes(model, PipelineOptions(foundation="landmarks"), 1, kind)
