"""bench compare: its arithmetic, its workers on toy packages, toy revisions built and compared."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import extreme3d_fast
from bench import compare, compare_worker, machine, revisions

TOY = """
import os
from types import SimpleNamespace

__version__ = "1.0"


class Reconstructor:
    def __init__(self, *, threads):
        pass

    def reconstruct(self, photo):
        name = os.path.basename(photo)
        if name == "no_face.jpg" and {fails}:
            raise ValueError("no face")
        if name == "deadly.jpg":
            print("last words", flush=True)
            os._exit(3)
        return SimpleNamespace(
            vertices=[[0.0, 0.0, {z}]],
            faces=[[0, 0, 0]],
            warnings=("toy",),
            timings={{"detect": 10.0, "zipper": {zipper}}},
        )
"""
BACKEND = """
import pathlib, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    about, wheel = "extreme3d_fast-1.0.dist-info", "extreme3d_fast-1.0-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\\nName: extreme3d-fast\\nVersion: 1.0\\n"
    with zipfile.ZipFile(pathlib.Path(directory) / wheel, "w") as z:
        for path in pathlib.Path("python").rglob("*.py"):
            z.write(path, path.relative_to("python"))
        z.writestr(f"{about}/METADATA", metadata)
        z.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        z.writestr(f"{about}/RECORD", "")
    return wheel
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["cpp"]
"""


def toy(zipper: float = 10.0, z: float = 0.0, fails: bool = False) -> str:
    return TOY.format(zipper=zipper, z=z, fails=fails)


def package(folder: Path, source: str) -> Path:
    (folder / "extreme3d_fast").mkdir(parents=True)
    (folder / "extreme3d_fast" / "__init__.py").write_text(source)
    return folder


@pytest.fixture
def cores() -> list[int]:
    return machine.cores()[:1]


# === Arithmetic ===


def pairs(ratio: float, base_ms: float, n: int = 8) -> compare.Pairs:
    return {"photo": [(base_ms * (1 + i), ratio * base_ms * (1 + i)) for i in range(n)]}


@pytest.mark.parametrize(
    ("ratio", "base_ms", "verdict"),
    [
        (1.2, 10.0, "slower"),
        (1.05, 10.0, "same"),  # within 10 %
        (1.2, 0.01, "same"),  # below the floor
        (1 / 1.2, 10.0, "faster"),
        (1 / 1.05, 10.0, "same"),
        (1 / 1.2, 0.01, "same"),
    ],
)
def test_verdict_needs_ten_percent_and_the_floor(
    ratio: float, base_ms: float, verdict: str
) -> None:
    row = compare.judged(pairs(ratio, base_ms), floor_ms=0.3)
    assert row["verdict"] == verdict
    assert row["significant"]
    assert row["ratio_of_medians"] == pytest.approx(ratio, abs=1e-4)
    assert row["paired_ratio"]["low"] == pytest.approx(ratio, abs=1e-4)
    assert row["paired_ratio"]["high"] == pytest.approx(ratio, abs=1e-4)
    assert row["paired_ratio"]["n"] == 8
    assert row["difference_ms"] == pytest.approx((ratio - 1) * 4.5 * base_ms, abs=1e-3)


def test_pairs_see_through_photos_of_different_size() -> None:
    # twice as slow on the two small ones, 1 % faster on the large one
    row = compare.judged({"": [(1.0, 2.0), (1.0, 2.0), (100.0, 99.0)]}, 0.3)
    assert row["paired_ratio"]["median"] == 2.0
    assert row["base"]["median"] == 1.0


def test_noise_around_no_difference_is_not_significant() -> None:
    rng = np.random.default_rng(1)
    noisy = {str(i): [(10.0, 10.0 * r) for r in np.exp(rng.normal(0, 0.3, 5))] for i in range(5)}
    assert not compare.judged(noisy, 0.3)["significant"]


def test_few_pairs_prove_nothing() -> None:
    row = compare.judged(pairs(2.0, 10.0, n=compare.LEAST_PAIRS - 1), 0.3)
    assert row["paired_ratio"]["low"] is None
    assert row["verdict"] == "slower"
    assert not row["significant"]


def test_interval_covers_what_photos_differ_by() -> None:
    # a hundred rounds of two photos are not two hundred photos
    assert compare.interval([[1.0] * 100, [2.0] * 100]) == (1.0, 2.0)
    low, high = compare.interval([[1.0] * 3, [1.0] * 2, [1.0]])  # of different length
    assert (low, high) == (1.0, 1.0)


def test_interval_of_a_median_is_that_of_its_order_statistics() -> None:
    # of 100 values the median's 95 % interval is from the 40th to the 61st
    values = np.random.default_rng(0).permutation(np.arange(1, 101) / 100)
    low, high = compare.interval([values.tolist()])
    assert low == pytest.approx(0.40, abs=0.02)
    assert high == pytest.approx(0.61, abs=0.02)


def turn(base: dict[str, float], head: dict[str, float]) -> dict[str, dict[str, float]]:
    return {"base": base, "head": head}


def test_stages_are_paired_where_both_have_them_and_the_total_is_last() -> None:
    ms = {
        "a": [turn({"total": 9.0, "x": 1.0, "old": 5.0}, {"total": 8.0, "x": 2.0, "new": 3.0})],
        "b": [turn({"total": 7.0}, {"total": 6.0, "x": 2.0})],
    }
    stages = compare.by_stage(ms)
    assert list(stages) == ["x", "total"]
    assert stages["x"] == {"a": [(1.0, 2.0)]}
    assert stages["total"] == {"a": [(9.0, 8.0)], "b": [(7.0, 6.0)]}
    alone = compare.unpaired(ms)
    assert alone["base"]["old"]["median"] == 5.0
    assert alone["head"]["new"]["median"] == 3.0


def test_each_side_is_first_in_turn() -> None:
    assert [compare._order(i)[0] for i in range(-1, 3)] == ["head", "base", "head", "base"]


def face(vertices: list[list[float]], warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"vertices": vertices, "faces": [[0, 1, 0]], "warnings": warnings}


def test_results_are_compared_vertex_by_vertex() -> None:
    a, b = [[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0.0, 0, 0], [1, 3, 4], [2, 0, 0]]
    same = compare.difference(face(a), face(a))
    assert (same["median_mm"], same["max_mm"], same["same_faces"]) == (0.0, 0.0, True)
    moved = compare.difference(face(a, ("dark",)), face(b, ("small",)))
    assert (moved["median_mm"], moved["max_mm"]) == (0.0, 5.0)
    assert moved["warnings_only_in_base"] == ["dark"]
    assert moved["warnings_only_in_head"] == ["small"]


def test_meshes_of_other_size_are_compared_to_the_nearest_vertex_both_ways() -> None:
    pytest.importorskip("scipy")
    a, b = [[0.0, 0, 0], [1, 0, 0]], [[0.0, 0, 0], [1, 0, 0], [1, 0, 7]]
    for pair in ((a, b), (b, a)):
        told = compare.difference(*map(face, pair))
        assert not told["same_faces"]
        assert told["max_mm"] == 7.0


# === Workers ===


def test_workers_measure_both_packages(tmp_path: Path, cores: list[int]) -> None:
    sites = {
        "base": package(tmp_path / "base", toy()),
        "head": package(tmp_path / "head", toy(zipper=20.0, z=2.0, fails=True)),
    }
    photos = [f"/nowhere/{name}.jpg" for name in ("a", "no_face", "b")]
    with compare.workers(sites, cores, 1, "cpu") as pair:
        measured = compare.measure(pair, photos, rounds=3)
        peaks = [worker.ask("memory") for worker in pair.values()]
        with pytest.raises(compare.Refused, match="head: AttributeError"):
            pair["head"].ask("no_such_task")
        processes = [worker.process for worker in pair.values()]
    assert all(process.poll() is not None for process in processes)
    assert all(5 < peak < 5000 for peak in peaks)  # MB of a Python that did little
    assert measured["failed"] == {"no_face.jpg": {"head": "head: ValueError: no face"}}
    assert {name: r["max_mm"] for name, r in measured["results"].items()} == {
        "a.jpg": 2.0,
        "b.jpg": 2.0,
    }
    stages = compare.by_stage(measured["ms"])
    assert stages["zipper"] == {"a.jpg": [(10.0, 20.0)] * 3, "b.jpg": [(10.0, 20.0)] * 3}
    assert all(ms > 0 for taken in stages["total"].values() for pair in taken for ms in pair)


def test_what_runs_the_networks_is_told_by_those_that_know() -> None:
    worker = object.__new__(compare_worker.Worker)
    worker.package = SimpleNamespace(__file__="a.py", __version__="1")
    worker.reconstructor = SimpleNamespace(runtime="openvino 2025")
    assert worker.about()["runtime"] == "openvino 2025"
    worker.reconstructor = SimpleNamespace()  # of an old revision
    assert worker.about()["runtime"] is None
    report = small_report(others=0.0, head_ms=10.0)
    report["head"] = {**report["head"], "runtime": "openvino 2025"}
    text = compare.table(report)
    assert "base main (1234567)\nhead main (1234567), networks: openvino 2025" in text


def test_package_without_operations_leaves_them_out(tmp_path: Path, cores: list[int]) -> None:
    sites = {side: package(tmp_path / side, toy()) for side in compare.SIDES}
    with compare.workers(sites, cores, 1, "cpu") as pair:
        taken, missing = compare.measure_operations(pair, "a.jpg")
    assert taken == {}
    assert "ImportError" in missing["base"]["all"]


def test_dead_worker_is_reported_with_its_last_words(tmp_path: Path, cores: list[int]) -> None:
    sites = {side: package(tmp_path / side, toy()) for side in compare.SIDES}
    with compare.workers(sites, cores, 1, "cpu") as pair:
        processes = [worker.process for worker in pair.values()]
        with pytest.raises(compare.WorkerFailed, match="base: the worker died") as error:
            compare.measure(pair, ["deadly.jpg"], rounds=1)
    assert "exit status 3" in str(error.value)
    assert "last words" in str(error.value)
    assert all(process.poll() is not None for process in processes)


def test_package_from_elsewhere_is_refused(tmp_path: Path, cores: list[int]) -> None:
    sites = {side: tmp_path / side for side in compare.SIDES}  # hold nothing
    with (
        pytest.raises(compare.WorkerFailed, match=r"base: imports .*, not what was built"),
        compare.workers(sites, cores, 1, "cpu"),
    ):
        pass


def test_package_that_cannot_be_opened_is_reported(tmp_path: Path, cores: list[int]) -> None:
    sites = {side: package(tmp_path / side, "Reconstructor = None") for side in compare.SIDES}
    with pytest.raises(compare.WorkerFailed, match="head: cannot be opened"):
        compare.start_up(sites, cores, 1, "cpu")


def test_photos_that_fail_on_a_side_leave_nothing_to_compare(
    tmp_path: Path, cores: list[int]
) -> None:
    sites = {side: package(tmp_path / side, toy(fails=True)) for side in compare.SIDES}
    with (
        pytest.raises(compare.WorkerFailed, match="no photo came out of both"),
        compare.workers(sites, cores, 1, "cpu") as pair,
    ):
        compare.measure(pair, ["no_face.jpg"], rounds=1)


def test_real_package_equals_itself_and_its_operations_are_timed(
    cores: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(compare, "OPERATION_ROUNDS", 1)
    monkeypatch.setattr(compare, "SAMPLE_MS", 0.0)
    site = Path(extreme3d_fast.__file__).parents[1]
    with compare.workers(dict.fromkeys(compare.SIDES, site), cores, 1, "cpu") as pair:
        measured = compare.measure(pair, [""], rounds=1)
        taken, missing = compare.measure_operations(pair, "")
    assert measured["results"]["astronaut"]["max_mm"] == 0.0
    assert {"detect", "zipper", "total"} <= set(compare.by_stage(measured["ms"]))
    assert {"normals", "zipper"} <= set(taken)
    assert all(len(ms) == compare.OPERATION_ROUNDS for ms in taken.values())
    assert not set(taken) & set(missing["base"])


# === Revisions ===


def git(repository: Path, *arguments: str) -> str:
    who = ("-c", "user.name=toy", "-c", "user.email=toy")
    return subprocess.run(
        ["git", *who, "-C", str(repository), *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits; the second takes twice as long for the zipper."""
    path = tmp_path / "repository"
    package(path / "python", toy())
    (path / "cpp").mkdir()
    (path / "cpp" / "backend.py").write_text(BACKEND)
    (path / "pyproject.toml").write_text(PROJECT)
    (path / ".gitignore").write_text("*.so\n__pycache__/\n")
    git(path, "init", "--quiet")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "Fast")
    source(path).write_text(toy(zipper=20.0))
    git(path, "commit", "--quiet", "-am", "Slow")
    return path


def source(repository: Path) -> Path:
    return repository / "python" / "extreme3d_fast" / "__init__.py"


def worktrees(repository: Path) -> int:
    return len(git(repository, "worktree", "list").splitlines())


def test_working_tree_is_a_revision_with_what_is_not_committed(repository: Path) -> None:
    clean = revisions.find(repository, ".")
    assert clean.commit == git(repository, "rev-parse", "HEAD")
    assert not clean.changed
    (repository / "python" / "new.py").write_text("untracked = 1\n")
    (repository / "python" / "ignored.so").write_text("")
    source(repository).write_text(toy(zipper=30.0))
    status = git(repository, "status", "--porcelain")
    tree = revisions.find(repository, ".")
    assert tree.changed
    assert tree.title.endswith("+)")
    assert tree.sources != clean.sources
    listed = git(repository, "ls-tree", "-r", "--name-only", tree.commit)
    assert "python/new.py" in listed
    assert "ignored.so" not in listed
    assert 'zipper": 30.0' in git(
        repository, "show", f"{tree.commit}:python/extreme3d_fast/__init__.py"
    )
    assert git(repository, "status", "--porcelain") == status
    assert git(repository, "rev-parse", "HEAD") == clean.commit


def test_sources_are_what_a_build_depends_on(repository: Path) -> None:
    before = revisions.find(repository, ".")
    (repository / "README.md").write_text("words")
    after = revisions.find(repository, ".")
    assert before.commit != after.commit
    assert before.sources == after.sources


def test_unknown_revision_is_named(repository: Path) -> None:
    with pytest.raises(revisions.BuildFailed, match="no revision nonsense"):
        revisions.find(repository, "nonsense")


def test_worktree_is_gone_even_after_an_interrupt(repository: Path) -> None:
    def work() -> None:
        with revisions.worktree(repository, "HEAD~1") as path:
            assert 'zipper": 10.0' in source(path).read_text()
            assert worktrees(repository) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert worktrees(repository) == 1


def test_failing_build_shows_the_end_of_its_log(repository: Path, tmp_path: Path) -> None:
    (repository / "cpp" / "backend.py").write_text("raise RuntimeError('no compiler today')")
    with pytest.raises(revisions.BuildFailed, match="no compiler today") as error:
        revisions.build(repository, revisions.find(repository, "."), tmp_path / "cache")
    assert "does not build" in str(error.value)
    assert worktrees(repository) == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".log"]


def test_revisions_are_built_once_compared_and_the_slower_one_is_warned_of(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(compare, "REPOSITORY", repository)
    monkeypatch.setattr(compare, "STARTS", 1)
    photos, cache, report_file = tmp_path / "photos", tmp_path / "cache", tmp_path / "report.json"
    photos.mkdir()
    for name in "abc":
        (photos / f"{name}.jpg").touch()
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    given = ["HEAD~1", "--photos", str(photos), "--rounds", "2", "--threads", "1"]
    given += ["--cache", str(cache), "--json", str(report_file)]

    assert compare.run(parser.parse_args([*given, "--fail"])) == 1
    said = capsys.readouterr().out
    assert "WARNING slower: zipper, x 2.00, +10.00 ms" in said
    assert "equal to the last bit on 3 of 3 photos" in said
    assert worktrees(repository) == 1
    report = json.loads(report_file.read_text())
    assert {"command", "machine", "watch", "base", "head", "stages", "start"} <= set(report)
    assert report["stages"]["zipper"]["verdict"] == "slower"
    assert report["stages"]["zipper"]["base"] == {"median": 10.0, "q1": 10.0, "q3": 10.0, "n": 6}
    assert report["stages"]["detect"]["verdict"] == "same"
    assert report["base"]["commit"] == git(repository, "rev-parse", "HEAD~1")

    built = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert compare.run(parser.parse_args(given)) == 0  # a warning alone is no failure
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == built


def test_what_cannot_be_compared_is_said_without_a_traceback(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(compare, "REPOSITORY", repository)
    (tmp_path / "a.jpg").touch()
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    options = parser.parse_args(["nonsense", "--photos", str(tmp_path)])
    assert compare.run(options) == 2
    assert "no revision nonsense" in capsys.readouterr().err


INTERRUPTED = """
import argparse, sys
from pathlib import Path
from bench import compare

compare.REPOSITORY = Path(sys.argv[1])
parser = argparse.ArgumentParser()
compare.add_arguments(parser)
sys.exit(compare.run(parser.parse_args(sys.argv[2:])))
"""
SLOW_BACKEND = """
import os, pathlib, time
pathlib.Path({mark!r}).write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_a_build_and_leaves_nothing(
    repository: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    mark, temporary = tmp_path / "mark", tmp_path / "temporary"
    temporary.mkdir()
    (repository / "cpp" / "backend.py").write_text(SLOW_BACKEND.format(mark=str(mark)))
    (tmp_path / "a.jpg").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(repository), ".", "."]
        + ["--photos", str(tmp_path), "--cache", str(tmp_path / "cache")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(machine.REPOSITORY), *sys.path]),
            "TMPDIR": str(temporary),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (mark.exists() and mark.read_text()):
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.endswith("compare: interrupted\n")
    assert worktrees(repository) == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".log"]
    # onnxruntime leaves a file of its own
    assert not [*temporary.glob("pip-*"), *temporary.glob("extreme3d-*")]
    for _ in range(100):  # whoever adopts it takes a moment to let it go
        if not Path(f"/proc/{mark.read_text()}").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the build goes on")


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_rounds_are_a_positive_number(number: str, capsys: Any) -> None:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["main", "--rounds", number])
    assert "expected a whole number from 1" in capsys.readouterr().err


def test_operations_of_a_gpu_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    words = ["main", "--device", "cuda", "--operations"]
    assert compare.run(parser.parse_args(words)) == 2
    assert "--operations are those of the CPU" in capsys.readouterr().err


# === For people ===


def small_report(others: float, head_ms: float) -> dict[str, Any]:
    stages = {"zipper": compare.judged(pairs(head_ms / 10.0, 10.0), 0.3)}
    stages["total"] = compare.judged(pairs(head_ms / 10.0, 100.0), 0.3)
    side = {"title": "main (1234567)"}
    return {
        "machine": machine.describe(),
        "watch": {"others": others, "frequency_mhz": 1, "load_before": 0, "load_after": 0},
        "base": side,
        "head": side,
        "same_sources": False,
        "threads": 1,
        "device": "cpu",
        "rounds": 8,
        "photos": 1,
        "failed": {},
        "floor_ms": 0.3,
        "stages": stages,
        "not_in_both": {"base": {}, "head": {}},
        "start": {},
        "operations": {},
        "operations_missing": {},
        "peak_memory_mb": {"base": 1.0, "head": 2.0},
        "results": {"photo": compare.difference(face([[0.0, 0, 0]]), face([[0.0, 0, 0]]))},
    }


def test_verdicts_of_a_loaded_machine_say_so() -> None:
    assert "LOADED MACHINE" in compare.table(small_report(others=0.5, head_ms=20.0))
    assert "LOADED MACHINE" not in compare.table(small_report(others=0.0, head_ms=20.0))


def test_table_says_what_is_slower_faster_or_neither() -> None:
    assert "WARNING slower: zipper, x 2.00" in compare.table(small_report(0.0, 20.0))
    assert "faster: zipper, x 0.50" in compare.table(small_report(0.0, 5.0))
    assert "nothing is slower by more than 10%" in compare.table(small_report(0.0, 10.0))
