"""Streams and batches: several photos on their way at once, results in their order."""

from __future__ import annotations

import copy
import gc
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import extreme3d_fast as e3d
from extreme3d_fast.device import Device
from extreme3d_fast.device_pipeline import device_lanes
from extreme3d_fast.errors import DeviceUnavailable
from extreme3d_fast.lane import PipelineOptions

UInt8 = NDArray[np.uint8]
NOBODY = 0
BROKEN = np.zeros((4, 4, 7), np.uint8)


class StandIn:
    """A lane whose faces are the grey levels of their photos; those of `NOBODY` show none."""

    runtime = "none"

    def __init__(self, work: Callable[[int], None]) -> None:
        self.estimator, self._work, self._busy = self, work, threading.Lock()

    def begin(self) -> None:
        pass

    def find(self, photo: UInt8, _: Any) -> list[int]:
        level = int(photo[0, 0, 0])
        return [] if level == NOBODY else [level]

    def estimate(self, _: UInt8, found: int, *__: Any) -> tuple[int, None]:
        return found, None

    def reconstruct(self, _: UInt8, foundation: int, *__: Any) -> Any:
        assert self._busy.acquire(blocking=False), "two photos in one lane"
        try:
            self._work(foundation)
        finally:
            self._busy.release()
        return foundation


@pytest.fixture(scope="module")
def reconstructor() -> e3d.Reconstructor:
    return e3d.Reconstructor(threads=1)


@pytest.fixture
def streams(reconstructor: e3d.Reconstructor) -> Iterator[Callable[..., e3d.Reconstructor]]:
    """Makes reconstructors of stand-in lanes."""
    made: list[e3d.Reconstructor] = []

    def with_lanes(count: int, work: Callable[[int], None] = lambda _: None) -> e3d.Reconstructor:
        made.append(with_other_lanes(reconstructor, [StandIn(work) for _ in range(count)]))
        return made[-1]

    yield with_lanes
    for one in made:  # whatever happened, no lane is lost
        assert one._lanes.qsize() == one.lanes


def with_other_lanes(reconstructor: e3d.Reconstructor, lanes: Sequence[Any]) -> e3d.Reconstructor:
    """One like it that works on a device."""
    out = copy.copy(reconstructor)
    out.device, out.lanes, out._lanes = "cuda", len(lanes), queue.SimpleQueue()
    for lane in lanes:
        out._lanes.put(lane)
    return out


def frame(level: int) -> UInt8:
    return np.full((4, 4, 3), level, np.uint8)


class Source:
    """Frames of levels from 1 on, counted as they are taken."""

    def __init__(self, count: int = 200, fault: Exception | None = None) -> None:
        self.taken, self._count, self._fault = 0, count, fault

    def __iter__(self) -> Iterator[UInt8]:
        while self.taken < self._count:
            self.taken += 1
            yield frame(self.taken)
        if self._fault:
            raise self._fault


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_results_come_in_the_order_of_the_frames(streams, lanes) -> None:
    def work(level: int) -> None:  # later ones are done sooner
        time.sleep(0.002 * (level % 3 == 1))

    assert list(streams(lanes, work).stream(Source(40))) == list(range(1, 41))


def test_all_lanes_work_at_once(streams) -> None:
    together = threading.Barrier(3, timeout=20)
    assert list(streams(3, lambda _: together.wait()).stream(Source(9))) == list(range(1, 10))


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_source_is_never_far_ahead_of_the_reader(streams, lanes) -> None:
    source = Source()
    stream = streams(lanes).stream(source)
    time.sleep(0.01)
    assert source.taken == 0  # nothing before it is asked for
    for read, _ in enumerate(stream, 1):
        time.sleep(0.001)  # a slow reader
        assert source.taken - read <= lanes
        if read == 30:
            break
    stream.close()
    assert source.taken <= 30 + lanes


def test_frames_are_not_held_after_their_results(streams) -> None:
    frames: list[weakref.ref[UInt8]] = []

    def source() -> Iterator[UInt8]:
        for level in range(1, 51):
            picture = frame(level)
            frames.append(weakref.ref(picture))
            yield picture

    for _ in streams(2).stream(source()):
        # three ahead, the source's own, and what two workers still have in hand
        assert sum(ref() is not None for ref in frames) <= 6


@pytest.mark.parametrize("how", ["close", "forget", "throw"])
def test_reader_may_leave_early(streams, how) -> None:
    source = Source()
    reconstructor = streams(2, lambda _: time.sleep(0.002))
    stream = reconstructor.stream(source)
    assert next(stream) == 1
    if how == "close":
        stream.close()
    elif how == "throw":
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
    else:
        del stream
        gc.collect()
    taken = source.taken
    assert taken <= 3
    assert reconstructor.reconstruct(frame(9)) == 9
    assert source.taken == taken


def test_stream_of_nothing_is_empty(streams) -> None:
    assert list(streams(3).stream([])) == []
    assert streams(3).reconstruct_batch([]) == []


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(
    ("bad", "error"),
    [(frame(NOBODY), e3d.NoFaceFound), (BROKEN, e3d.InvalidImage), ("no.png", FileNotFoundError)],
    ids=["nobody", "broken", "missing"],
)
def test_fault_of_a_frame_takes_its_results_place(streams, lanes, bad, error) -> None:
    frames = [frame(1), frame(2), bad, frame(4), frame(5)]
    reconstructor = streams(lanes)
    stream = reconstructor.stream(frames)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(error):
        next(stream)
    assert list(stream) == []  # it has ended
    with pytest.raises(error):
        reconstructor.reconstruct_batch(frames)


@pytest.mark.parametrize("lanes", [1, 3])
def test_fault_of_the_source_comes_after_the_results_before_it(streams, lanes) -> None:
    stream = streams(lanes).stream(Source(2, fault=OSError("camera is gone")))
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="camera is gone"):
        next(stream)
    assert list(stream) == []


def test_fault_inside_a_lane_leaves_the_lane_usable(streams) -> None:
    def work(level: int) -> None:
        if level == 3:
            raise RuntimeError("the device is busy")

    reconstructor = streams(2, work)
    with pytest.raises(RuntimeError, match="busy"):
        list(reconstructor.stream(Source(9)))
    assert reconstructor.reconstruct_batch([frame(5), frame(6), frame(7)]) == [5, 6, 7]


def test_threads_of_the_caller_share_the_lanes(streams) -> None:
    reconstructor = streams(2, lambda _: time.sleep(0.001))
    with ThreadPoolExecutor(8) as callers:
        levels = list(callers.map(lambda k: reconstructor.reconstruct(frame(k)), range(1, 60)))
    assert levels == list(range(1, 60))


def test_cpu_takes_a_frame_when_its_result_is_asked_for(reconstructor, monkeypatch) -> None:
    monkeypatch.setattr(reconstructor, "reconstruct", lambda picture: picture)
    source = Source()
    stream = reconstructor.stream(source)
    assert source.taken == 0
    for read in range(1, 4):
        next(stream)
        assert source.taken == read


def test_word_for_missing_faces_is_checked_at_once(reconstructor) -> None:
    with pytest.raises(ValueError, match="missing"):
        reconstructor.stream([], missing="skip")


@pytest.mark.parametrize("lanes", [0, 65, -1])
def test_impossible_numbers_of_lanes_are_refused(lanes) -> None:
    with pytest.raises(ValueError, match="lanes"):
        e3d.Reconstructor(device="cuda", lanes=lanes)


def test_cpu_has_one_lane() -> None:
    with pytest.raises(ValueError, match="lanes"):
        e3d.Reconstructor(lanes=2)
    for lanes in (1.0, "2", True):
        with pytest.raises(TypeError, match="lanes"):
            e3d.Reconstructor(lanes=lanes)


@pytest.mark.parametrize("lanes", [1, 3])
def test_frames_without_a_face_are_none_if_asked_for(streams, lanes) -> None:
    frames = [frame(NOBODY), frame(1), frame(NOBODY), frame(2), frame(NOBODY)]
    assert list(streams(lanes).stream(frames, missing="none")) == [None, 1, None, 2, None]
    with pytest.raises(e3d.InvalidImage):  # other faults are raised all the same
        list(streams(lanes).stream([frame(1), BROKEN], missing="none"))


@pytest.mark.parametrize("kind", ["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_lanes_of_a_device_give_what_one_alone_gives(reconstructor, portrait, kind) -> None:
    try:
        Device(kind)
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    covered = portrait.copy()
    covered[95:135, 165:285] = 12
    photos = [portrait, portrait[:, ::-1], np.zeros_like(portrait), covered, portrait]
    model, options = reconstructor.head_model, PipelineOptions()
    several, alone = (
        with_other_lanes(reconstructor, device_lanes(model, options, count, kind))
        for count in (2, 1)
    )
    expected = [face for photo in photos for face in alone.stream([photo], missing="none")]
    for ours, theirs in zip(several.stream(photos, missing="none"), expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            for name in ("vertices", "faces", "colors", "provenance", "bump", "photo"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


@pytest.mark.parametrize("frames", ["clip.mp4", b"clip.mp4"])
def test_a_path_is_no_sequence_of_frames(reconstructor: e3d.Reconstructor, frames: object) -> None:
    with pytest.raises(TypeError, match="is one"):
        reconstructor.stream(frames)  # type: ignore[call-overload]


def test_a_reconstructor_goes_when_nobody_holds_it() -> None:
    reconstructor = e3d.Reconstructor(foundation="landmarks", detail="none")
    gone = weakref.ref(reconstructor)
    gc.disable()
    try:
        del reconstructor
        assert gone() is None
    finally:
        gc.enable()
