"""Reference sets: what is written comes back, the search is exact, bad files are refused."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synthetic_references import reference_face, write_reference_set

from extreme3d_fast import references
from extreme3d_fast.camera import rotation_from_angles, rotation_from_vector
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.face_chart import CHART_SHAPE
from extreme3d_fast.references import ReferenceSet, ReferenceWriter

MIRROR = np.diag([-1.0, 1.0, 1.0])
Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set.npz"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    file = tmp_path_factory.mktemp("references") / "set.npz"
    write_reference_set(file, 40)
    return ReferenceSet.load(file)


def angle(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Degrees between two rotations."""
    return math.degrees(2 * math.asin(min(np.linalg.norm(a - b) / math.sqrt(8), 1)))


def shortlist(rotations: NDArray[Any], query: NDArray[Any], k: int) -> list[tuple[float, int, int]]:
    """Naive twin: (degrees, index, mirrored) of the k nearest."""
    found = [
        (angle(query, turned), i, int(mirrored))
        for i, r in enumerate(rotations)
        for mirrored, turned in ((False, r), (True, MIRROR @ r @ MIRROR))
    ]
    return sorted(found)[:k]


def random_rotations(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    angles = rng.normal(0, (25, 10, 5), (count, 3))
    return np.stack([rotation_from_angles(*a) for a in angles])


def of_views(rotations: NDArray[Any], path: Path, descriptors: NDArray[Any]) -> ReferenceSet:
    face = reference_face(np.random.default_rng(0))
    face = replace(face, bump=np.zeros(CHART_SHAPE, np.float32))
    transforms = np.tile(face.camera_from_head, (len(rotations), 1, 1))
    transforms[:, :3, :3] = rotations
    with ReferenceWriter(path, head_model="") as writer:
        for transform, descriptor in zip(transforms, descriptors, strict=True):
            writer.add(replace(face, camera_from_head=transform), descriptor)
    return ReferenceSet.load(path)


# === File ===


def test_what_is_written_comes_back(path: Path) -> None:
    faces, descriptors = write_reference_set(path, 5)
    stored = ReferenceSet.load(path)
    assert len(stored) == 5
    assert stored.head_model == "synthetic"
    assert stored.metadata["source"] == "synthetic"
    np.testing.assert_allclose(stored.descriptors, descriptors, atol=2e-4)  # half precision
    for i, face in enumerate(faces):
        back = stored.face(i)
        assert not (back.seen & ~face.seen).any()
        assert (back.seen != face.seen).mean() < 0.05  # told by blocks
        np.testing.assert_allclose(back.identity, face.identity, atol=1e-3)  # half precision
        np.testing.assert_allclose(back.expression, face.expression, atol=5e-4)
        np.testing.assert_allclose(back.camera_from_head, face.camera_from_head, atol=1e-6)
        np.testing.assert_allclose(back.landmarks68, face.landmarks68, atol=1 / 64 + 1e-4)
        assert back.camera == face.camera


def test_maps_come_back_within_a_fiftieth_of_a_millimetre_in_few_bytes(
    shared: ReferenceSet,
) -> None:
    rng = np.random.default_rng(0)
    for i in range(len(shared)):
        error = shared.face(i).bump - reference_face(rng).bump
        assert np.sqrt(np.mean(error**2)) < 0.02
        assert np.abs(error).max() < 0.1
    assert shared.path.stat().st_size < 10_000 * len(shared)


def test_a_flat_map_comes_back(path: Path) -> None:
    face = reference_face(np.random.default_rng(0))
    with ReferenceWriter(path, head_model="") as writer:
        writer.add(replace(face, bump=np.full(CHART_SHAPE, 0.7, np.float32)), np.ones(4))
    np.testing.assert_allclose(ReferenceSet.load(path).face(0).bump, 0.7, atol=1e-5)


def test_big_arrays_stay_on_disk(shared: ReferenceSet) -> None:
    for array in (shared.descriptors, shared._faces, shared._maps):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_numpy_reads_the_file_and_writing_again_gives_the_same_bytes(path: Path) -> None:
    write_reference_set(path, 3)
    with np.load(path, allow_pickle=False) as data:
        assert data["viewpoints"].shape == (3, 4)
        assert json.loads(data["metadata"].tobytes())["head_model"] == "synthetic"
    first = path.read_bytes()
    write_reference_set(path, 3)
    assert path.read_bytes() == first


def test_copied_faces_are_as_they_were(shared: ReferenceSet, path: Path) -> None:
    chosen = [7, 3, 30]
    with ReferenceWriter(path, **shared.metadata) as writer:
        assert [shared.copy(i, writer) for i in chosen] == [0, 1, 2]
    part = ReferenceSet.load(path)
    assert part.metadata == shared.metadata
    for i, j in enumerate(chosen):
        np.testing.assert_array_equal(part.descriptors[i], shared.descriptors[j])
        np.testing.assert_array_equal(part.face(i).bump, shared.face(j).bump)
        np.testing.assert_array_equal(part.face(i).landmarks68, shared.face(j).landmarks68)


def test_a_failed_writer_leaves_nothing(path: Path) -> None:
    def fail() -> None:
        with ReferenceWriter(path, head_model="") as writer:
            writer.add(reference_face(np.random.default_rng(0)), np.ones(4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(path.parent.iterdir())


def test_an_empty_set_is_not_written(path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no face"),
        ReferenceWriter(path, head_model=""),
    ):
        pass
    assert not list(path.parent.iterdir())


def test_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="folder"):
        ReferenceWriter(tmp_path, head_model="")
    assert not list(tmp_path.iterdir())


def test_metadata_of_several_lines_are_refused_by_name(path: Path) -> None:
    with pytest.raises(ValueError, match="licence"):
        ReferenceWriter(path, head_model="", licence="mine\nand yours")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bump": np.full((4, 4), np.nan, np.float32)}, "bump"),
        ({"bump": np.zeros((0, 4), np.float32)}, "bump"),
        ({"bump": np.zeros((1, 1025), np.float32)}, "bump"),
        ({"seen": np.ones((4, 4), bool)}, "seen"),
        ({"camera_from_head": 2 * np.eye(4, dtype=np.float32)}, "camera_from_head"),
        ({"landmarks68": np.zeros((5, 2), np.float32)}, "landmarks68"),
        ({"identity": np.full(99, np.inf, np.float32)}, "identity"),
    ],
)
def test_a_wrong_face_is_named(path: Path, changes: dict[str, Any], named: str) -> None:
    face = replace(reference_face(np.random.default_rng(0)), **changes)
    with (
        pytest.raises(ValueError, match=named),
        ReferenceWriter(path, head_model="") as writer,
    ):
        writer.add(face, np.ones(4))


def test_a_missing_set_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no reference set at"):
        ReferenceSet.load(path)
    monkeypatch.setattr(references, "_ASSET", path)
    with pytest.raises(FileNotFoundError, match="references build"):
        ReferenceSet.load()


def test_an_index_outside_is_refused(shared: ReferenceSet) -> None:
    for index in (-1, 40):
        for read in (shared.face, shared.relief, shared.stored_relief):
            with pytest.raises(IndexError, match="40"):
                read(index)


def test_stored_relief_is_the_relief(shared: ReferenceSet) -> None:
    record, (bump, seen) = shared.stored_relief(7), shared.relief(7)
    np.testing.assert_array_equal(record["level"] * record["step"] + record["zero"], bump)
    np.testing.assert_array_equal(references._unpacked(record["seen"]), seen)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_several_are_stored_as_each_is(shared: ReferenceSet, threads: int) -> None:
    wanted = [7, 0, 39, 7]
    records = shared.stored_reliefs(wanted, threads=threads)
    for record, index in zip(records, wanted, strict=True):
        assert record == shared.stored_relief(index)
    assert len(shared.stored_reliefs([], threads=threads)) == 0
    with pytest.raises(IndexError, match="40"):
        shared.stored_reliefs([0, 40], threads=threads)


# === Search ===


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 700),
    k=st.integers(1, 150),
    leaf=st.sampled_from([4, 32, 256]),
)
def test_nearest_viewpoints_are_those_of_brute_force(
    seed: int, count: int, k: int, leaf: int
) -> None:
    rng = np.random.default_rng(seed)
    # half of them anywhere, half of them as in photos
    anywhere = np.stack([rotation_from_vector(v) for v in rng.normal(0, 2, (count, 3))])
    usual = random_rotations(rng, count)
    rotations = np.where(rng.random(count)[:, None, None] < 0.5, anywhere, usual)
    views = np.stack([references._quaternion(r) for r in rotations]).astype(np.float32)
    query = rotation_from_vector(rng.normal(0, 2, 3)) if seed % 2 else usual[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "_LEAF", leaf)
        index = references._Viewpoints(views)
        got = index.nearest(references._quaternion(query), k)
    n = min(k, 2 * count)
    assert len(set(zip(got[0].tolist(), got[1].tolist(), strict=True))) == len(got[0]) == n
    degrees = np.degrees(2 * np.arccos(np.minimum(got[2], 1)))
    expected = [d for d, _, _ in shortlist(rotations, query, k)]
    np.testing.assert_allclose(degrees, expected, atol=2e-4)  # viewpoints are float32


@pytest.mark.parametrize("count", [1, 2, 300, 900])
def test_few_viewpoints_give_the_same_answers_without_balls(
    rng: np.random.Generator, count: int
) -> None:
    views = np.stack([references._quaternion(r) for r in random_rotations(rng, count)])
    views = np.repeat(views, 2, axis=0).astype(np.float32)  # with ties
    for rotation in random_rotations(rng, 10):
        query = references._quaternion(rotation)
        for k in (1, 6, 300):
            few, balls = (
                index(views).nearest(query, k)
                for index in (references._FewViewpoints, references._Viewpoints)
            )
            for got, expected in zip(few, balls, strict=True):
                np.testing.assert_array_equal(got, expected)


def test_search_is_brute_force(path: Path, rng: np.random.Generator) -> None:
    rotations, descriptors = random_rotations(rng, 300), rng.normal(size=(300, 16))
    stored = of_views(rotations, path, descriptors)
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    for query, features in zip(random_rotations(rng, 10), rng.normal(size=(10, 16)), strict=True):
        cosine = unit @ features / np.linalg.norm(features)
        near = shortlist(rotations, query, 20)
        degrees, best, mirrored = max(near, key=lambda f: (cosine[f[1]], -f[0]))
        (got,) = stored.search(query, features, k=20)
        assert (got.index, got.mirrored) == (best, bool(mirrored))
        assert got.pose_distance == pytest.approx(degrees, abs=1e-3)
        assert got.similarity == pytest.approx(cosine[best], abs=1e-3)  # half precision


def test_a_reference_finds_itself(shared: ReferenceSet) -> None:
    for i in range(len(shared)):
        (got,) = shared.search(shared.face(i).camera_from_head, shared.descriptors[i])
        assert (got.index, got.mirrored) == (i, False)
        assert got.pose_distance < 1e-3
        assert got.similarity == pytest.approx(1)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_mirrored_query_finds_the_mirror_image(shared: ReferenceSet, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, features = random_rotations(rng, 1)[0], rng.normal(size=128)
    (one,) = shared.search(query, features, k=10)
    (other,) = shared.search(MIRROR @ query @ MIRROR, features, k=10)
    assert (other.index, other.mirrored) == (one.index, not one.mirrored)
    assert other.pose_distance == pytest.approx(one.pose_distance, abs=1e-5)
    assert other.similarity == one.similarity


def test_several_are_the_best_in_order(shared: ReferenceSet) -> None:
    query, features = np.diag([1.0, -1, -1]), np.ones(128)
    several = shared.search(query, features, k=30, count=12)
    assert len(several) == 12
    assert several[:1] == shared.search(query, features, k=30)
    assert [r.similarity for r in several] == sorted([r.similarity for r in several])[::-1]
    assert len({(r.index, r.mirrored) for r in several}) == 12
    assert len(shared.search(query, features, k=5, count=12)) == 5


def test_who_is_too_far_or_not_alike_is_left_out(shared: ReferenceSet) -> None:
    query, features = np.diag([1.0, -1, -1]), np.ones(128)
    everyone = shared.search(query, features, k=30, count=30)
    degrees = float(np.median([r.pose_distance for r in everyone]))
    cosine = everyone[20].similarity
    wanted = [r for r in everyone if r.pose_distance <= degrees and r.similarity >= cosine]
    assert 4 < len(wanted) < 20
    for count in (4, 30):
        some = shared.search(
            query, features, k=30, count=count, max_pose_distance=degrees, min_similarity=cosine
        )
        assert some == wanted[:count]


def test_ties_go_to_the_smaller_index_unmirrored(path: Path) -> None:
    same = np.tile(rotation_from_angles(0, 10), (600, 1, 1))  # its own mirror image
    stored = of_views(same, path, np.ones((600, 4)))
    (got,) = stored.search(rotation_from_angles(0, -5), np.ones(4), k=7)
    assert (got.index, got.mirrored) == (0, False)
    index, mirrored, _ = stored._index.nearest(references._quaternion(same[0]), 5)
    assert index.tolist() == [0, 0, 1, 1, 2]
    assert mirrored.tolist() == [False, True, False, True, False]


def test_more_neighbours_than_faces_are_all_faces(shared: ReferenceSet) -> None:
    for i in (0, 39):
        (got,) = shared.search(rotation_from_angles(180), shared.descriptors[i], k=10_000)
        assert got.index == i


def test_a_large_set_is_searched_exactly(rng: np.random.Generator) -> None:
    views = rng.normal(0, 0.1, (50_000, 4)).astype(np.float32)
    views[:, 1] += 1
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    index = references._Viewpoints(views)
    exact = views.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for q in exact[::10_000]:
        both = np.abs(np.stack([exact @ q, exact @ (q * [1, 1, -1, -1])]))
        expected = np.sort(both.ravel())[-100:][::-1]
        # viewpoints are normalised in float32
        np.testing.assert_allclose(index.nearest(q, 100)[2], expected, rtol=1e-9)


def test_wrong_queries_are_named(shared: ReferenceSet) -> None:
    frontal, features = np.diag([1.0, -1, -1]), np.ones(128)
    with pytest.raises(ValueError, match="camera_from_head"):
        shared.search(np.eye(2), features)
    with pytest.raises(ValueError, match="descriptor"):
        shared.search(frontal, np.ones(3))
    with pytest.raises(ValueError, match="descriptor"):
        shared.search(frontal, np.zeros(128))
    with pytest.raises(ValueError, match="descriptor"):
        shared.search(frontal, np.full(128, np.nan))
    with pytest.raises(ValueError, match="k"):
        shared.search(frontal, features, k=0)
    with pytest.raises(ValueError, match="count"):
        shared.search(frontal, features, count=0)


# === Hostile files ===


def arrays_of(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def rewritten(path: Path, change: Callable[[Arrays], Any], save: Any = np.savez) -> Path:
    arrays = arrays_of(path)
    change(arrays)
    save(path, **arrays)
    return path


def put(name: str, value: Any) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({name: value})


def set_to(name: str, value: Callable[[NDArray[Any]], Any]) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({name: value(arrays[name])})


def said(name: str, text: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        told = json.loads(arrays["metadata"].tobytes()) | {name: text}
        arrays["metadata"] = np.frombuffer(json.dumps(told).encode(), np.uint8)

    return change


def bad_viewpoint(views: NDArray[Any]) -> NDArray[Any]:
    views[1] = np.nan
    return views


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("maps"),
        lambda a: a.update(other=np.zeros(1)),
        set_to("viewpoints", bad_viewpoint),
        set_to("viewpoints", lambda v: v * 2),
        set_to("viewpoints", lambda v: v.astype(np.float64)),
        set_to("viewpoints", lambda v: v[:-1]),
        set_to("viewpoints", lambda v: np.asfortranarray(np.tile(v, (1, 1)))),
        set_to("descriptors", lambda d: d.astype(np.float32)),
        set_to("descriptors", lambda d: d[:, :0]),
        set_to("descriptors", lambda d: d.ravel()),
        set_to("faces", lambda f: f[["start", "bytes"]]),
        set_to("faces", lambda f: np.zeros(len(f))),
        set_to("maps", lambda m: m.astype(np.int8)),
        set_to("maps", lambda m: m[:0]),
        set_to("metadata", lambda m: m[:-4]),
        put("metadata", np.zeros(1 << 17, np.uint8)),
        put("metadata", np.frombuffer(b"[" * 60_000, np.uint8)),
        put("metadata", np.frombuffer(b'{"format": 1}', np.uint8)),
        put("metadata", np.array([{}], object)),
        said("source", "\x1b[2J"),
        said("licence", "\ud800"),
        lambda a: [a.update({n: a[n][:0]}) for n in ("viewpoints", "descriptors", "faces")],
    ],
)
def test_wrong_members_are_refused(path: Path, change: Callable[[Arrays], Any]) -> None:
    write_reference_set(path, 2)
    rewritten(path, change)
    with pytest.raises(InvalidModelFile, match=r"set\.npz"):
        ReferenceSet.load(path)


def test_compressed_sets_are_refused(path: Path) -> None:
    write_reference_set(path, 2)
    rewritten(path, dict.copy, np.savez_compressed)
    with pytest.raises(InvalidModelFile, match="compressed"):
        ReferenceSet.load(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(path: Path, share: float) -> None:
    write_reference_set(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InvalidModelFile):
        ReferenceSet.load(path)


def test_a_header_that_asks_for_terabytes_is_refused(path: Path) -> None:
    write_reference_set(path, 2)
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"maps.npy": header.getvalue()}).items():
            archive.writestr(name, data)
    with pytest.raises(InvalidModelFile, match="size"):
        ReferenceSet.load(path)


def damaged(name: str, value: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays["faces"][name][0] = value

    return change


def jpeg_of_size(arrays: Arrays) -> None:
    """The first map claims 65,535 px in its header."""
    at = arrays["maps"].tobytes().index(b"\xff\xc0") + 5
    arrays["maps"][at : at + 4] = 255


def other_size(arrays: Arrays) -> None:
    at = arrays["maps"].tobytes().index(b"\xff\xc0") + 5
    arrays["maps"][at] = 64


def png(arrays: Arrays) -> None:
    arrays["maps"][:8] = np.frombuffer(b"\x89PNG\r\n\x1a\n", np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        damaged("start", -1),
        damaged("start", 1 << 62),
        damaged("start", 5),
        damaged("bytes", 0),
        damaged("bytes", -5),
        damaged("bytes", 2**31 - 1),
        damaged("bytes", 30),
        damaged("levels", (np.nan, 1)),
        damaged("levels", (0, 1e30)),
        damaged("translation", np.inf),
        damaged("camera", -1),
        damaged("camera", np.nan),
        damaged("identity", np.nan),
        damaged("expression", np.inf),
        damaged("landmarks68", -32768),
        jpeg_of_size,
        other_size,
        png,
    ],
)
def test_a_damaged_face_is_refused_and_others_are_not(
    path: Path, change: Callable[[Arrays], Any]
) -> None:
    faces, _ = write_reference_set(path, 2)
    stored = ReferenceSet.load(rewritten(path, change))
    with pytest.raises(InvalidModelFile, match=r"set\.npz"):
        stored.face(0)
    np.testing.assert_allclose(stored.face(1).bump, faces[1].bump, atol=0.1)


@given(data=st.data())
def test_any_damaged_byte_is_refused_or_harmless(shared: ReferenceSet, data: st.DataObject) -> None:
    whole = bytearray(shared.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    file = shared.path.with_name("damaged.npz")
    file.write_bytes(whole)
    try:
        stored = ReferenceSet.load(file)
        for i in range(0, len(stored), 8):
            stored.face(i)
        stored.search(np.diag([1.0, -1, -1]), np.ones(stored.descriptors.shape[1]))
    except InvalidModelFile:
        pass


def test_features_that_are_no_numbers_are_refused(path: Path) -> None:
    write_reference_set(path, 2)
    stored = ReferenceSet.load(rewritten(path, set_to("descriptors", lambda d: d * np.nan)))
    with pytest.raises(InvalidModelFile, match="identity features"):
        stored.search(np.diag([1.0, -1, -1]), np.ones(128))
