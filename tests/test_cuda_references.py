"""Relief of references on device arrays against the host's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from synthetic_references import write_reference_set

from extreme3d_fast._arrays import bounding_box
from extreme3d_fast.camera import Camera, rotation_from_angles
from extreme3d_fast.device import Device, DeviceArray
from extreme3d_fast.device_references import DeviceReferences, chart_on_device
from extreme3d_fast.face_chart import CHART_SHAPE, FaceChart
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import rotate_vectors, transform_points, vertex_normals
from extreme3d_fast.rasterize import Raster, rasterize, vertex_visibility
from extreme3d_fast.references import Reference, ReferenceSet
from extreme3d_fast.transfer import expected_relief, warp_by_surface

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CAMERA = Camera(1300.0, 1320.0, 250.0, 240.0, 500, 480)
# mm; reliefs are a few mm high, float32. OpenCV before 5.0 samples at 1/32 px instead.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def chart(model: HeadModel) -> FaceChart:
    return FaceChart(model)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    file = tmp_path_factory.mktemp("references") / "set.npz"
    write_reference_set(file, 50)
    return ReferenceSet.load(file)


class View:
    """A head turned by some degrees: skin in the camera, which vertices it sees, and its pixels."""

    def __init__(self, model: HeadModel, yaw: float) -> None:
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3] = rotation_from_angles(yaw, 5, 3)
        pose[:3, 3] = pose[:3, :3] @ [0, -10, -60] + [0, 0, 720]
        zero = np.zeros(model.n_identity, np.float32), np.zeros(model.n_expression, np.float32)
        skin = model.vertices(*zero)[: model.skin_vertex_count]
        self.in_camera = transform_points(pose, skin)
        self.raster: Raster = rasterize(self.in_camera, model.faces, CAMERA)
        normals = rotate_vectors(pose, vertex_normals(skin, model.faces))
        self.visible = vertex_visibility(
            self.in_camera, normals, self.raster.depth, CAMERA, depth_tolerance=2
        )


def box_of(device: Device, mask: Mask) -> DeviceArray:
    box = device.empty(4, "int32")
    device.ops.bounding_box(device.put(mask), box, device.stream)
    return box


def waves() -> Float32:
    """A map of the crop: waves of 15 px and more, 1 mm high."""
    y, x = np.mgrid[: CAMERA.height, : CAMERA.width]
    return (np.sin(x / 2.5) * np.cos(y / 4 + 1)).astype(np.float32)


# === Into the chart and out of it ===


def unrolled(
    device: Device, chart: FaceChart, view: View, image: Float32, known: Mask
) -> tuple[Float32, Mask]:
    out, seen = device.empty(CHART_SHAPE), device.empty(CHART_SHAPE, "uint8")
    chart_on_device(device, chart).unroll(
        device.put(image),
        device.put(known),
        box_of(device, known),
        device.put(np.array(CAMERA.pinhole, np.float32)),
        device.put(view.in_camera),
        device.put(view.visible),
        out,
        seen,
        device.stream,
    )
    return device.get(out), device.get(seen, np.bool_)


@pytest.mark.parametrize("yaw", [0, 40, 80])
def test_unrolled_map_is_the_hosts(
    device: Device, model: HeadModel, chart: FaceChart, rng: np.random.Generator, yaw: float
) -> None:
    view = View(model, yaw)
    known = view.raster.triangle >= 0
    known[150:220, 200:] = False
    known &= rng.random(known.shape) < 0.999
    expected, expected_seen = chart.unroll(waves(), known, view.in_camera, view.visible, CAMERA)
    out, seen = unrolled(device, chart, view, waves(), known)
    # a position within rounding of where seeing ends
    assert (seen != expected_seen).sum() <= 2
    both = seen & expected_seen
    assert both.sum() > 3000
    # positions are off by 1e-4 px of float32, slopes 0.4 mm a px
    np.testing.assert_allclose(out[both], expected[both], atol=1e-4)
    assert not out[~seen].any()


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_little_that_is_known_unrolls_as_on_the_host(
    device: Device, model: HeadModel, chart: FaceChart, size: int
) -> None:
    """Smaller than the prefilter, which the borders of the box mirror several times."""
    view = View(model, 0)
    known = np.zeros(waves().shape, bool)
    known[250 : 250 + size, 240 : 240 + size] = True
    expected, expected_seen = chart.unroll(waves(), known, view.in_camera, view.visible, CAMERA)
    out, seen = unrolled(device, chart, view, waves(), known)
    np.testing.assert_array_equal(seen, expected_seen)
    np.testing.assert_allclose(out[seen], expected[seen], atol=1e-4)


@pytest.mark.parametrize("yaw", [0, 60])
def test_warped_relief_is_the_hosts(
    device: Device, model: HeadModel, chart: FaceChart, rng: np.random.Generator, yaw: float
) -> None:
    view = View(model, yaw)
    relief = rng.normal(size=CHART_SHAPE).astype(np.float32)
    shown = rng.random(CHART_SHAPE) < 0.95
    hole = np.zeros(view.raster.triangle.shape, bool)
    hole[100:400, 130:330] = rng.random((300, 200)) < 0.3
    bump, valid = (device.empty(hole.shape, dtype) for dtype in ("float32", "uint8"))
    chart_on_device(device, chart).warp_by_surface(
        *map(device.put, (relief, shown, view.raster.triangle, view.raster.barycentric)),
        box_of(device, hole),
        bump,
        valid,
        device.stream,
    )
    expected = warp_by_surface(relief, shown, chart, view.raster, where=hole)
    got = device.get(valid, np.bool_)
    # a position within rounding of where seeing ends
    assert (got != expected.valid)[hole].sum() <= 2
    both = got & expected.valid & hole
    assert both.sum() > 3000
    # positions are off by 1e-5 px of float32, slopes several mm a px
    np.testing.assert_allclose(device.get(bump)[both], expected.bump[both], atol=2e-4)
    rows, columns = bounding_box(hole)
    outside = np.ones_like(hole)
    outside[rows, columns] = False
    assert not got[outside].any()


def test_no_hole_takes_nothing(device: Device, model: HeadModel, chart: FaceChart) -> None:
    view = View(model, 0)
    nothing = np.zeros(view.raster.triangle.shape, bool)
    bump, valid = (device.empty(nothing.shape, dtype) for dtype in ("float32", "uint8"))
    chart_on_device(device, chart).warp_by_surface(
        device.put(np.ones(CHART_SHAPE, np.float32)),
        device.put(np.ones(CHART_SHAPE, bool)),
        device.put(view.raster.triangle),
        device.put(view.raster.barycentric),
        box_of(device, nothing),
        bump,
        valid,
        device.stream,
    )
    assert not device.get(valid, np.bool_).any()


def test_chart_with_corners_outside_is_refused(device: Device, chart: FaceChart) -> None:
    triangle, uv, faces = chart.raster.triangle, chart.raster.barycentric, chart.faces
    for tables in (
        (np.full_like(triangle, len(faces)), uv, chart.place, faces),
        (triangle, uv, chart.place[:-1], faces),
        (triangle[1:], uv, chart.place, faces),
    ):
        with pytest.raises(ValueError, match=r"faces|triangle"):
            device.ops.FaceChart(*tables)


# === Expected relief ===


def expected_on(
    device: Device, kept: DeviceReferences, own: Float32, seen: Mask
) -> tuple[Float32, Mask]:
    out, valid = device.empty(CHART_SHAPE), device.empty(CHART_SHAPE, "uint8")
    kept.relief.expected_relief(
        kept.chosen, device.put(own), device.put(seen), out, valid, device.stream
    )
    return device.get(out), device.get(valid, np.bool_)


def chosen(rng: np.random.Generator, count: int, among: int) -> list[Reference]:
    which = rng.permutation(2 * among)[:count]
    return [Reference(int(i // 2), bool(i % 2), 0.0, 1.0) for i in which]


def own_relief(rng: np.random.Generator) -> Float32:
    y, x = np.mgrid[: CHART_SHAPE[0], : CHART_SHAPE[1]]
    waves = sum(0.3 * np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.02, 0.4, (4, 3)))
    return np.asarray(waves, np.float32)


SEEN = np.zeros(CHART_SHAPE, bool)
SEEN[20:150, 40:200] = True
SEEN[60:90, 100:130] = False
EVERYWHERE = np.ones(CHART_SHAPE, bool)
DOT = np.zeros(CHART_SHAPE, bool)
DOT[80, 150] = True


@pytest.mark.parametrize("count", [1, 8, 39, 40])
@pytest.mark.parametrize(
    "seen", [SEEN, EVERYWHERE, ~EVERYWHERE, DOT], ids=["part", "all", "nothing", "dot"]
)
def test_expected_relief_is_the_hosts(
    device: Device,
    references: ReferenceSet,
    rng: np.random.Generator,
    count: int,
    seen: Mask,
) -> None:
    found, own = chosen(rng, count, len(references)), own_relief(rng)
    kept = DeviceReferences(device, references)
    kept.choose(found)
    expected, expected_valid = expected_relief(references, found, own, seen)
    relief, valid = expected_on(device, kept, own, seen)
    np.testing.assert_allclose(relief, expected, atol=ROUNDING)
    np.testing.assert_array_equal(valid, expected_valid)


def test_own_relief_counts_only_where_it_is_seen(
    device: Device, references: ReferenceSet, rng: np.random.Generator
) -> None:
    kept, own = DeviceReferences(device, references), own_relief(rng)
    kept.choose(chosen(rng, 20, len(references)))
    relief, _ = expected_on(device, kept, own, SEEN)
    other, _ = expected_on(device, kept, np.where(SEEN, own, np.float32(9)), SEEN)
    np.testing.assert_array_equal(other, relief)


def test_nobody_is_expected_to_be_flat(device: Device, references: ReferenceSet) -> None:
    kept = DeviceReferences(device, references)
    kept.choose([])
    relief, valid = expected_on(device, kept, np.ones(CHART_SHAPE, np.float32), ~EVERYWHERE)
    assert not relief.any()
    assert not valid.any()


def test_references_of_another_search_take_the_place_of_the_longest_unused(
    device: Device, references: ReferenceSet, rng: np.random.Generator
) -> None:
    few, all_of_them = (
        DeviceReferences(device, references, slots=slots) for slots in (40, len(references))
    )
    all_of_them.keep_all()
    own = own_relief(rng)
    for first in (0, 30, 5, 30):
        found = [Reference(i % 50, i % 3 == 0, 0.0, 1.0) for i in range(first, first + 40)]
        for kept in (few, all_of_them):
            kept.choose(found)
        np.testing.assert_array_equal(
            expected_on(device, few, own, SEEN)[0], expected_on(device, all_of_them, own, SEEN)[0]
        )


def test_what_is_kept_is_not_read_again(
    device: Device, references: ReferenceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DeviceReferences(device, references, slots=40)
    read: list[int] = []
    stored = ReferenceSet.stored_relief

    def noting(self: ReferenceSet, index: int) -> npt.NDArray[np.void]:
        read.append(index)
        return stored(self, index)

    monkeypatch.setattr(ReferenceSet, "stored_relief", noting)

    def asked(indices: Sequence[int]) -> list[int]:
        read.clear()
        kept.choose([Reference(i, False, 0.0, 1.0) for i in indices])
        return sorted(read)

    assert asked(range(30)) == [*range(30)]
    assert asked(range(20, 40)) == [*range(30, 40)]
    assert asked([0, 1]) == []
    assert asked([40, 41]) == [40, 41]  # 2 and 3 make room
    assert asked([0, 1, 4, 39]) == []
    assert asked([2, 3]) == [2, 3]


def test_too_few_slots_or_too_many_references_are_refused(
    device: Device, references: ReferenceSet
) -> None:
    with pytest.raises(ValueError, match="slots"):
        DeviceReferences(device, references, slots=39)
    with pytest.raises(ValueError, match="found"):
        DeviceReferences(device, references).choose([Reference(0, False, 0.0, 1.0)] * 41)
    relief = device.ops.ReferenceRelief(1)
    for slot, count in ((1, device.ops.STORED_RELIEF_BYTES), (0, 7)):
        with pytest.raises(ValueError, match=r"relief|slot"):
            relief.store(slot, np.zeros(count, np.uint8), device.stream)


def test_built_in_set_gives_the_hosts_relief(device: Device, rng: np.random.Generator) -> None:
    references = ReferenceSet.load()
    found = references.search(
        rotation_from_angles(25, 0, 0), rng.normal(size=references.descriptors.shape[1]), count=40
    )
    kept = DeviceReferences(device, references)
    kept.choose(found)
    own = own_relief(rng)
    relief, valid = expected_on(device, kept, own, SEEN)
    expected, expected_valid = expected_relief(references, found, own, SEEN)
    np.testing.assert_allclose(relief, expected, atol=ROUNDING)
    np.testing.assert_array_equal(valid, expected_valid)
