"""bench stages: exponents of exact powers, sizes that break, floors by run, well-formed reports."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from research_data import REPOSITORY

from bench import scaling, stages
from bench.floors import Floor
from bench.scaling import exponent

QUIET = {"others": 0.0}


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    stages.add_arguments(parser)
    return parser.parse_args(words)


# === Exponents ===


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_of_an_exact_power_is_that_power(power: float) -> None:
    pytest.importorskip("scipy")
    sizes = [10.0, 30.0, 100.0, 500.0]
    fit = exponent(sizes, [3 * size**power for size in sizes])
    assert fit == {"exponent": power, "low": power, "high": power, "last": power, "n": 4}


def test_interval_is_that_of_the_regression() -> None:
    stats = pytest.importorskip("scipy.stats")
    sizes, ms = np.array([1.0, 2, 4, 8, 16]), np.array([1.0, 3, 3, 9, 14])
    expected = stats.linregress(np.log(sizes), np.log(ms))
    half = stats.t.ppf(0.975, 3) * expected.stderr
    fit = exponent(list(sizes), list(ms))
    assert fit["exponent"] == round(expected.slope, 3)
    assert (fit["low"], fit["high"]) == (
        round(expected.slope - half, 3),
        round(expected.slope + half, 3),
    )


def test_last_step_shows_what_a_constant_part_hides() -> None:
    pytest.importorskip("scipy")
    sizes = [1.0, 10.0, 100.0, 1000.0]
    fit = exponent(sizes, [50 + size for size in sizes])
    assert fit["exponent"] < 0.6 < 0.8 < fit["last"]


def test_two_sizes_have_no_interval_and_one_no_exponent() -> None:
    pytest.importorskip("scipy")
    two = exponent([1.0, 10.0], [1.0, 10.0])
    assert (two["exponent"], two["low"], two["high"]) == (1.0, None, None)
    assert exponent([1.0], [1.0])["exponent"] is None


# === Series ===

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the work says have passed."""
    passed = [0.0]
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: passed[0])
    return passed


def opener(ms: float, faces: np.ndarray = TETRAHEDRON, clock: list[float] | None = None) -> Any:
    """A reconstructor whose two stages run beside each other."""
    timings = {"dense": ms, "texture": ms}
    face = SimpleNamespace(vertices=CORNERS, faces=faces, warnings=(), timings=timings)

    def reconstruct(_: Any) -> Any:
        if clock:
            clock[0] += 1e-3 * ms
        return face

    return lambda: SimpleNamespace(reconstruct=reconstruct)


def test_series_has_the_median_of_every_size_and_their_exponent(clock: list[float]) -> None:
    pytest.importorskip("scipy")
    sizes = {10: opener(1.0, clock=clock), 100: opener(10.0, clock=clock)}
    out = scaling.series(sizes, ["a", "b"], rounds=3)
    dense = out["stages"]["dense"]
    assert dense["ms"]["100"] == {"median": 10.0, "q1": 10.0, "q3": 10.0, "n": 6}
    assert dense["exponent"] == 1.0
    assert list(out["stages"]) == ["dense", "texture", "total"]
    assert out["stages"]["total"]["ms"]["100"]["median"] == 10.0  # by the clock, no sum
    assert not scaling.broken(out["results"])


def test_size_that_breaks_is_told_and_the_others_go_on() -> None:
    pytest.importorskip("scipy")

    def breaks() -> Any:
        raise MemoryError("no room for 4 GB")

    out = scaling.series({10: opener(1.0), 100: breaks, 1000: opener(2.0)}, ["a"], rounds=1)
    assert out["failed"] == {"100": "MemoryError: no room for 4 GB"}
    assert list(out["stages"]["dense"]["ms"]) == ["10", "1000"]
    report = {"pixels": out, "vertices": out, "watch": QUIET}
    assert "failed at 100: MemoryError" in scaling.table(report)


def test_mesh_that_is_broken_at_a_size_is_told() -> None:
    pytest.importorskip("scipy")
    fin = np.concatenate([TETRAHEDRON, [[0, 1, 2]]])
    out = scaling.series({10: opener(1.0), 100: opener(1.0, fin)}, ["a"], rounds=1)
    (line,) = scaling.broken(out["results"])
    assert line.startswith("100 on photo 0")
    assert "broken mesh at 100" in scaling.table({"pixels": out, "vertices": out, "watch": QUIET})


def test_photos_are_spread() -> None:
    assert scaling.some([str(i) for i in range(9)]) == ["0", "3", "6"]
    assert scaling.some(["0", "1"]) == ["0", "1"]


def test_exponents_of_a_loaded_machine_say_so(clock: list[float]) -> None:
    pytest.importorskip("scipy")
    sizes = {10: opener(1.0, clock=clock), 100: opener(10.0, clock=clock)}
    out = scaling.series(sizes, ["a"], rounds=1)
    text = scaling.table({"pixels": out, "vertices": out, "watch": {"others": 0.5}})
    assert "LOADED MACHINE" in text
    assert "pixels^1.00" in text


# === Options ===


def test_impossible_sizes_are_refused() -> None:
    pytest.importorskip("scipy")
    assert "--levels" in (scaling.refusal(options("--levels", "7")) or "")
    assert "--sizes" in (scaling.refusal(options("--sizes", "10,500")) or "")
    assert scaling.refusal(options()) is None


def test_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert scaling.refusal(options()) == "--scaling needs scipy: pip install .[bench]"


@pytest.mark.parametrize("words", [("--repeat", "0"), ("--threads", "-1"), ("--sizes", "a")])
def test_bad_number_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(*words)
    assert words[0] in capsys.readouterr().err


# === Floors of runs ===


def test_ratio_is_of_each_run_to_the_floor_of_its_photo() -> None:
    floors = {
        "a": {"dense": Floor(1.0, "bytes", "once"), "fit": Floor(None, "-", "iterations")},
        "b": {"dense": Floor(4.0, "bytes", "once")},
    }
    rows = [{"dense": 10.0, "fit": 1.0, "total": 12.0}, {"dense": 20.0, "total": 22.0}]
    out = stages.summarize_floors(rows, ["a", "b"], floors)
    assert out["dense"]["ratio"] == {"median": 7.5, "q1": 6.25, "q3": 8.75, "n": 2}
    assert (out["dense"]["floor_ms"], out["dense"]["bound"]) == (2.5, "bytes")
    assert out["fit"]["floor_ms"] is None
    assert out["fit"]["counted"] == "iterations"


def test_floor_of_a_sum_is_the_sum_of_floors() -> None:
    one = Floor(1.0, "bytes", "")
    floors = {"a": {"detect": one, "dense": one, "zipper": Floor(2.0, "bytes", "")}}
    rows = [{"detect": 2.0, "dense": 3.0, "zipper": 3.0, "total": 9.0}]
    out = stages.summarize_floors(rows, ["a"], floors)
    assert (out["section 4.3"]["floor_ms"], out["section 4.3"]["ratio"]["median"]) == (3.0, 2.0)
    assert (out["total"]["floor_ms"], out["total"]["ratio"]["median"]) == (4.0, 2.25)


def test_floor_of_the_total_leaves_out_what_runs_beside_other_stages() -> None:
    one = Floor(1.0, "bytes", "")
    floors = {"a": {"crop": one, "dense": one, "texture": one}}
    rows = [{"crop": 1.0, "dense": 2.0, "texture": 1.0, "total": 3.0}]
    out = stages.summarize_floors(rows, ["a"], floors, beside=stages.BESIDE)
    assert out["total"]["floor_ms"] == 1.0
    assert "but crop and texture" in out["total"]["counted"]
    assert out["crop"]["floor_ms"] == 1.0


def test_stages_that_run_beside_others_are_those_of_the_product() -> None:
    package = REPOSITORY / "python" / "extreme3d_fast"
    sources = "".join(path.read_text() for path in sorted(package.glob("*.py")))
    found = re.findall(r'aside\.start\(\s*timed\("(\w+)"', sources)
    assert tuple(sorted(found)) == stages.BESIDE


# === Real runs ===


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "stages", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture
def photos(portrait: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "portrait.png"), portrait[:, :, ::-1])
    return folder


def test_report_has_time_floor_and_ratio_of_every_stage(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    out = tmp_path / "stages.json"
    done = run("--photos", photos, "--repeat", "2", "--threads", "1", "--json", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["command"] == "stages"
    assert len(report["pinned"]) == 1
    assert {"others", "frequency_mhz"} <= set(report["watch"])
    assert {"float32", "float64"} <= set(report["rates"]["gemm_gflop_s"])
    for name, stage in report["stages"].items():
        assert stage["n"] == 2
        assert stage["q1"] <= stage["median"] <= stage["q3"]
        assert stage["counted"], name
        assert name == "fit" or stage["floor_ms"] > 0
    assert "ms a photo" in done.stdout


def test_scaling_report_has_an_exponent_for_every_stage(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    out = tmp_path / "scaling.json"
    words = ("--repeat", "1", "--threads", "1", "--sizes", "200,300", "--levels", "0")
    done = run("--scaling", "--photos", photos, *words, "--json", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["photos"] == ["portrait.png"]
    assert report["pixels"]["sizes"] == [200 * 200, 300 * 300]
    assert not report["pixels"]["failed"]
    dense = report["pixels"]["stages"]["dense"]
    assert dense["exponent"] is not None
    assert dense["ms"]["40000"]["n"] == 1
    assert list(report["vertices"]["results"]) == ["4368"]
    assert "the whole grows as pixels^" in done.stdout


def test_refused_option_is_a_line_and_an_exit_status(photos: Path) -> None:
    pytest.importorskip("scipy")
    done = run("--scaling", "--photos", photos, "--levels", "9")
    assert done.returncode == 2
    assert done.stdout.startswith("--levels")
    assert not done.stderr
