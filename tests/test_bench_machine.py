"""bench: others are seen on large machines too, reports are JSON, dead processes are noticed."""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from bench import gpu, machine, options, processes, sheet, throughput, timing

# === Others ===


def watched(
    monkeypatch: pytest.MonkeyPatch, busy: dict[int, float], own: float, measured: list[int]
) -> machine.Watch:
    """A watch over 10 s in which cores were busy for so long, and we for `own`."""
    clocks = {
        "_busy_seconds": iter(
            [dict.fromkeys(busy, 100.0), {c: 100.0 + s for c, s in busy.items()}]
        ),
        "_own_seconds": iter([1.0, 1.0 + own]),
    }
    for name, told in clocks.items():
        monkeypatch.setattr(machine, name, lambda told=told: next(told))
    seconds = iter([0.0, 10.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(seconds))
    with machine.Watch(measured) as watch:
        pass
    return watch


def test_one_that_takes_a_measured_core_is_seen_on_a_large_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = {core: 10.0 if core in (0, 1) else 0.0 for core in range(64)}
    report = watched(monkeypatch, busy, 10.0, [0, 1]).report
    assert report["others_of_all_cores"] == round(10 / 640, 3)
    assert report["others_of_measured_cores"] == report["others"] == 0.5
    assert machine.is_loaded(report)


def test_those_beside_the_measured_cores_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    report = watched(monkeypatch, {0: 10.0, 1: 10.0, 2: 10.0, 3: 0.0}, 10.0, [0]).report
    assert report["others_of_measured_cores"] == 0.0
    assert report["others_of_all_cores"] == report["others"] == 0.5


def test_a_system_that_tells_nothing_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    report = watched(monkeypatch, {}, 1.0, [0]).report
    assert report["others"] is None
    assert machine.is_loaded(report)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat")
def test_every_core_of_this_process_has_its_time() -> None:
    assert set(machine.cores()) <= set(machine._busy_seconds())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_cores_are_free_again_after_the_block() -> None:
    before = machine.cores()
    with machine.pinned(1) as chosen:
        assert machine.cores() == chosen == before[:1]
    assert machine.cores() == before


# === Reports ===


def test_report_has_none_where_there_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    machine.write({"a": float("nan"), "b": [1.5, (float("inf"), {"c": -float("inf")})]}, path)
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, [None, {"c": None}]]}
    machine.write({}, None)  # not asked for


def test_data_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTREME3D_DATA", str(tmp_path))
    assert machine.data_folder() == tmp_path
    parser = argparse.ArgumentParser()
    sheet.add_arguments(parser)
    assert parser.parse_args([]).data == tmp_path
    monkeypatch.delenv("EXTREME3D_DATA")
    assert machine.data_folder().parts[-2:] == ("shared", "data")


def test_spread_is_of_values_or_of_their_quartiles() -> None:
    assert timing.spread([1.0, 2.0, 3.0]) == "2.00 (1.50-2.50)"
    assert timing.spread({"median": 2.0, "q1": 1.5, "q3": 2.5}, ".3g") == "2 (1.5-2.5)"
    assert timing.spread([]) == "-"


def test_a_call_takes_the_mean_of_its_loops_in_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 3.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(seconds))
    assert timing.milliseconds(lambda: None, 4) == 500.0


def test_device_is_waited_for_before_and_inside_the_timed_region() -> None:
    done: list[str] = []
    timing.milliseconds(lambda: done.append("call"), 2, lambda: done.append("wait"))
    assert done == ["wait", "call", "call", "wait"]


def test_gpu_report_of_a_loaded_machine_says_so() -> None:
    stages = {"total": {"p50": 5.0, "p95": 6.0, "n": 3}}
    report = {
        "gpu": {"name": "GPU"},
        "machine": {"cpu": "CPU", "cores": 2, "load": 0.0},
        "latency": {"stages": stages, "open_s": 1.0, "first_ms": 2.0, "runtime": "r"},
        "operations_us": {},
        "throughput": {"4": {"faces_per_s": 200.0, "gpu_memory_mb": 1}},
        "parity": {"median": {}},
        "watch": {"others": 0.0},
    }
    last = "5.0 ms a photo (p95 6.0); lanes: 200.0 faces/s with 4"
    assert gpu.table(report).splitlines()[-1] == last
    busy = {**report, "watch": {"others": 0.5}}
    assert gpu.table(busy).splitlines()[-1].startswith("LOADED MACHINE")


# === Options and processes ===


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", ""])
def test_numbers_below_one_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1"):
        options.positive(text)
    assert options.positive("12") == 12


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (gpu, ["--repeat", "0"]),
        (gpu, ["--lanes", "1,0"]),
        (sheet, ["--count", "0"]),
        (throughput, ["--batch", "0"]),
    ],
)
def test_commands_refuse_them(module: object, words: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)  # type: ignore[attr-defined]
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser.parse_args(words)


def die() -> None:
    os._exit(3)  # as a fault in C++ would


def test_process_that_dies_is_an_error_not_a_hang() -> None:
    with pytest.raises(BrokenProcessPool):
        processes.fresh(die)
    assert processes.fresh(os.getpid) != os.getpid()
