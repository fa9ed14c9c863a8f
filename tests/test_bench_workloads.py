"""bench: workloads are the pipeline's own calls, and heads of all levels are the built-in one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import workloads
from bench.heads import BUILT_IN_LEVEL, head_at
from bench.workloads import OPERATIONS, Capture, capture, make_workloads
from extreme3d_fast import HeadModel, reconstructor


@pytest.fixture(scope="module")
def built_in() -> HeadModel:
    return HeadModel.load()


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, dict):
        assert_same(list(a.items()), list(b.items()))
    elif dataclasses.is_dataclass(a):
        for x in dataclasses.fields(a):
            assert_same(getattr(a, x.name), getattr(b, x.name))
    else:
        assert a == b


def test_every_operation_runs_on_a_covered_portrait(captured: Capture) -> None:
    made, left_out = make_workloads(captured)
    assert not left_out
    assert [w.name for w in made] == list(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_workload_gives_the_answer_of_the_pipeline(captured: Capture, name: str) -> None:
    stage = captured[name]
    assert_same(stage(), stage.answer)


def test_workloads_are_of_the_face_that_came_out(captured: Capture) -> None:
    mesh = captured["zipper"].answer
    np.testing.assert_array_equal(mesh.vertices, captured.face.vertices)
    np.testing.assert_array_equal(captured["dense"].given["depth"], captured.face.depth)


def test_every_stage_that_the_reconstructor_times_is_an_operation(captured: Capture) -> None:
    assert set(captured.face.timings) <= set(OPERATIONS)


def test_sizes_are_those_of_the_arrays(captured: Capture) -> None:
    made, _ = make_workloads(captured)
    work = {w.name: w.work for w in made}
    raster = work["rasterize"]
    assert raster["pixels"] == 250 * 250
    assert raster["bytes_out"] == 250 * 250 * (4 + 4 + 8)
    assert raster["bytes_in"] == 12 * (raster["vertices"] + raster["faces"])  # `out` is no input
    assert work["load"]["bytes_in"] == Path(captured["load"].given["source"]).stat().st_size
    recovery = captured["soft_symmetry"].answer.recovery
    assert work["soft_symmetry"]["hidden_vertices"] == np.count_nonzero(recovery)


def test_array_that_is_given_twice_is_counted_once() -> None:
    a = np.zeros(3, np.float32)
    assert workloads.array_bytes(((a, a), {"b": np.zeros(2, np.uint8)}, "text", 5)) == 14


def test_stopwatch_is_put_back(captured: Capture) -> None:
    del captured  # has been recorded
    assert reconstructor.timed_into.__module__ == "extreme3d_fast.lane"


def test_operation_that_fails_is_left_out_with_the_reason(captured: Capture) -> None:
    def changed() -> None:
        raise TypeError("got an unexpected keyword argument 'speed'")

    broken = dataclasses.replace(captured["dense"], function=changed, arguments=((), {}))
    other = dataclasses.replace(captured, stages={**captured.stages, "dense": broken})
    made, left_out = make_workloads(other)
    assert left_out == {"dense": "TypeError: got an unexpected keyword argument 'speed'"}
    assert len(made) == len(OPERATIONS) - 1


def test_operation_that_did_not_run_is_left_out_with_the_reason(captured: Capture) -> None:
    stages = {name: stage for name, stage in captured.stages.items() if name != "fill"}
    _, left_out = make_workloads(dataclasses.replace(captured, stages=stages))
    assert left_out == {"fill": "the pipeline does not run it on this photo"}


def test_revision_without_stages_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(reconstructor, "timed_into")
    with pytest.raises(NotImplementedError, match="does not name its stages"), workloads.recorder():
        pass


def test_head_of_the_built_in_level_is_the_built_in_head(built_in: HeadModel) -> None:
    pytest.importorskip("scipy")
    head, skin = head_at(BUILT_IN_LEVEL), slice(0, built_in.skin_vertex_count)
    np.testing.assert_array_equal(head.faces, built_in.faces)
    np.testing.assert_array_equal(head.mirror, built_in.mirror[skin])
    np.testing.assert_array_equal(head.vertices(), built_in.vertices()[skin])
    np.testing.assert_array_equal(head.face_weight, built_in.face_weight)
    np.testing.assert_array_equal(head.face_region, built_in.face_region)


@pytest.mark.parametrize("level", [0, 1, 3])
def test_head_of_another_level_is_the_same_head(built_in: HeadModel, level: int) -> None:
    pytest.importorskip("scipy")
    head = head_at(level)
    assert len(head.faces) * 4 ** (BUILT_IN_LEVEL - level) == len(built_in.faces)
    assert head.fingerprint == built_in.fingerprint
    common = min(head.vertex_count, built_in.skin_vertex_count)  # a level begins with the coarser
    vertices = head.vertices()
    moved = np.linalg.norm(vertices[:common] - built_in.vertices()[:common], axis=1)
    corners = vertices[head.faces]
    edge = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    # a subdivided vertex is a mean of the quads round it, and most of the surface is flatter
    assert moved.max() < 2 * edge.max()
    assert np.median(moved) < 0.1 * np.median(edge)
    np.testing.assert_allclose(vertices[head.mirror], vertices * [-1, 1, 1], atol=1e-4)


def test_whole_pipeline_runs_on_a_coarser_head(portrait: np.ndarray) -> None:
    pytest.importorskip("scipy")
    captured = capture(portrait, crop_size=250, head=head_at(1), threads=1)
    assert len(captured["soft_symmetry"].answer.vertices) == 17427
    assert captured.face.foundation_source == "networks+landmarks"
