"""bench: floors are bytes and operations in closed form, over rates that count all of them."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny_networks import METADATA, write_chain

from bench import floors
from bench.floors import (
    Count,
    Floor,
    Rates,
    Run,
    factor_columns,
    floor,
    network_work,
    recorded_runs,
)
from bench.workloads import OPERATIONS, Capture, sizes
from extreme3d_fast.session import Session

MB = 1 << 20
RATES = Rates(1, {2 * MB: 2e9, 8 * MB: 1e9}, {"float32": 1e9, "float64": 5e8})


def test_floor_of_a_copy_is_its_bytes_over_the_bandwidth() -> None:
    a = np.zeros(MB, np.uint8)
    copy = Count(a.nbytes + a.copy().nbytes, "one read, one written")
    found = floor(copy, RATES)
    assert found.ms == pytest.approx(1e3 * 2 * MB / 2e9)
    assert (found.bound, found.why) == ("bytes", "one read, one written")


def test_bandwidth_is_that_of_the_working_set() -> None:
    assert RATES.bytes_a_second(1) == 2e9
    assert RATES.bytes_a_second(100 * MB) == 1e9
    assert RATES.bytes_a_second(4 * MB) == pytest.approx(1.5e9)  # halfway on a logarithmic scale


def test_floor_is_the_larger_of_both_times() -> None:
    few = Count(2 * MB, "", flops=1e5)
    many = Count(2 * MB, "", flops=1e7)
    assert floor(few, RATES).bound == "bytes"
    assert floor(many, RATES) == Floor(10.0, "ops", "")
    assert floor(Count(0, "", 1e7, "float64"), RATES).ms == 20.0


def test_what_cannot_be_counted_has_no_floor_but_a_reason() -> None:
    assert floor("iterations", RATES) == Floor(None, "-", "iterations")


def test_best_rates_of_two_measurements_are_kept() -> None:
    other = Rates(1, {2 * MB: 1e9, 8 * MB: 3e9}, {"float32": 2e9, "float64": 1e8})
    best = floors.best_of(RATES, other)
    assert best.bandwidth == {2 * MB: 2e9, 8 * MB: 3e9}
    assert best.flops == {"float32": 2e9, "float64": 5e8}


@pytest.mark.parametrize("threads", [1, 2])
def test_rates_count_every_byte_and_product(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    clock = threading.local()  # of each thread its own; each measurement takes a second

    def tick() -> float:
        clock.now = getattr(clock, "now", -1.0) + 1
        return clock.now

    monkeypatch.setattr(floors.time, "perf_counter", tick)
    assert floors.copy_bandwidth(MB, threads) == 32 * MB  # so often that it is so much
    assert floors.gemm_flops("float64", rows=16) == 2 * 16**3


def test_copies_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays: list[np.ndarray] = []
    zeros = np.zeros

    def kept(*args: object) -> np.ndarray:
        arrays.append(zeros(*args))
        return arrays[-1]

    monkeypatch.setattr(floors.np, "zeros", kept)
    floors.copy_bandwidth(MB + 2, 2)  # parts of different lengths
    assert (arrays[0] == 1).all()


# === Networks ===


def test_products_of_convolutions_are_counted_at_the_size_that_is_run(tmp_path: Path) -> None:
    kernels = [np.ones((4, 3, 3, 3)), np.ones((2, 4, 1, 1))]
    path = write_chain(tmp_path / "chain.onnx", kernels)
    flops, weights = network_work(path, ("image",), ((1, 3, 10, 8),))
    assert flops == 2 * 10 * 8 * (4 * 3 * 9 + 2 * 4)
    assert weights == 4 * (4 * 3 * 9 + 2 * 4)


def test_other_products_are_counted() -> None:
    # (2, 8) x (8, 5); a transposed convolution of 4 channels to 2 with 3 x 3, 10 x 10 in
    assert floors._PRODUCTS["MatMul"]((2, 8), (8, 5), (2, 5)) == 2 * 2 * 8 * 5
    transposed = floors._PRODUCTS["ConvTranspose"]
    assert transposed((1, 4, 10, 10), (4, 2, 3, 3), (1, 2, 12, 12)) == 2 * 400 * 2 * 9


def test_every_run_of_a_network_is_recorded(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [np.ones((1, 1, 1, 1))], metadata=METADATA)
    session = Session(path, threads=1)
    with recorded_runs() as runs:
        for side in (2, 3):
            session.run({"image": np.zeros((1, 1, side, side), np.float32)})
    shapes = [((1, 1, side, side),) for side in (2, 3)]
    assert runs == [Run(path, ("image",), shape, "float32") for shape in shapes]
    session.run({"image": np.zeros((1, 1, 2, 2), np.float32)})
    assert len(runs) == 2  # no longer


def test_products_in_bfloat16_are_counted_as_such(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = write_chain(tmp_path / "chain.onnx", [np.ones((1, 1, 1, 1))], metadata=METADATA)
    session = Session(path, threads=1, runtime="openvino")
    with recorded_runs() as runs:
        session.run({"image": np.zeros((1, 1, 2, 2), np.float32)})
    assert runs[0].precision == ("bfloat16" if "bf16" in session.runtime else "float32")


def test_operations_in_bfloat16_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    seconds = itertools.count()  # each measurement takes one
    monkeypatch.setattr(floors.time, "perf_counter", lambda: float(next(seconds)))
    assert floors.bfloat16_flops(64, 1) == 2 * 64**3


# === Cholesky ===


def test_factor_of_a_clique_is_full() -> None:
    pytest.importorskip("scipy")
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    columns = factor_columns(np.ones(4, bool), tetrahedron)
    assert sorted(columns) == [1, 2, 3, 4]


def test_factor_of_unknowns_without_neighbours_is_diagonal() -> None:
    pytest.importorskip("scipy")
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    assert factor_columns(np.array([1, 0, 0, 1, 0], bool), faces).tolist() == [1, 1]


def test_factor_of_a_chain_has_no_fill() -> None:
    pytest.importorskip("scipy")
    # a strip of triangles, of which every second vertex is unknown: a chain of 10
    faces = np.array([[i, i + 1, i + 2] for i in range(18)])
    columns = factor_columns(np.arange(20) % 2 == 0, faces)
    assert columns.sum() == 10 + 9


def test_nothing_unknown_has_an_empty_factor() -> None:
    assert len(factor_columns(np.zeros(3, bool), np.array([[0, 1, 2]]))) == 0


# === Stages ===


def test_every_stage_is_counted_or_says_why_not(captured: Capture) -> None:
    pytest.importorskip("scipy")
    counts = floors.counts(captured)
    assert set(counts) == set(OPERATIONS)
    assert {name for name, count in counts.items() if isinstance(count, str)} == {"fit"}


def test_counted_bytes_are_no_more_than_the_arrays_have(captured: Capture) -> None:
    pytest.importorskip("scipy")
    # others read what is not among their arguments: weights, model, references, a factor
    elsewhere = {*floors._NETWORKS, "head_model", "search", "references", "soft_symmetry", "fit"}
    elsewhere |= {"texture", "parts"}
    for name in set(OPERATIONS) - elsewhere:
        count, work = floors.count_of(captured, name), sizes(captured, name)
        assert isinstance(count, Count)
        assert count.bytes <= work["bytes_in"] + work["bytes_out"], name


def test_bytes_of_the_head_model_are_those_of_the_vectors_that_are_used(captured: Capture) -> None:
    model, given = captured.reconstructor.head_model, captured["head_model"].given
    used = np.count_nonzero(given["identity"]) + np.count_nonzero(given["expression"])
    subdivision = sum(4 * len(s.indptr) + 8 * len(s.indices) for s in model.subdivision)
    count = floors.count_of(captured, "head_model")
    assert isinstance(count, Count)
    assert count.bytes == 12 * (len(model.mean) * (1 + used) + model.vertex_count) + subdivision


def test_networks_are_counted_by_their_layers(captured: Capture) -> None:
    once, twice = (floors.count_of(captured, name) for name in ("foundation", "pose"))
    assert isinstance(once, Count)
    assert isinstance(twice, Count)
    assert "1 runs" in once.why
    assert "2 runs" in twice.why
    assert floor(once, Rates(1, {MB: 1e10}, {once.dtype: 1e11})).bound == "ops"


def test_missing_package_is_named(captured: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    counts = floors.counts(captured)
    assert counts["soft_symmetry"] == "not counted: needs scipy.sparse, pip install .[bench]"
    assert isinstance(counts["zipper"], Count)
