"""bench readme: README's numbers are those of bench/results, and a stale README is noticed."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench import readme

BUSY = {"others": 0.4}
QUIET = {"others": 0.01}


@pytest.fixture
def results() -> readme.Results:
    return readme.Results(readme.RESULTS)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """README with one region, which says what is in answer.json."""
    (tmp_path / "answer.json").write_text(json.dumps({"n": 42}))
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- generated: answer -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(readme, "README", path)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    monkeypatch.setattr(readme, "REGIONS", {"answer": lambda r: f"it is {r['answer']['n']}"})
    return path


def options(check: bool) -> argparse.Namespace:
    return argparse.Namespace(check=check)


def loaded_copy(results: readme.Results, name: str, watch: dict[str, Any]) -> dict[str, Any]:
    return {name: {**copy.deepcopy(results[name]), "watch": watch}}


def test_readme_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme.run(options(check=True)) == 0, capsys.readouterr().out


def test_region_is_written_and_the_rest_stays(toy: Path) -> None:
    assert readme.run(options(check=False)) == 0
    expected = "before\n<!-- generated: answer -->\nit is 42\n<!-- end -->\nafter\n"
    assert toy.read_text() == expected
    assert readme.run(options(check=True)) == 0


def test_check_shows_what_is_stale_and_changes_nothing(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = toy.read_text()
    assert readme.run(options(check=True)) == 1
    said = capsys.readouterr().out
    assert "-old" in said
    assert "+it is 42" in said
    assert toy.read_text() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- generated: other -->\n<!-- end -->\n", "the region other; there are answer"),
        ("<!-- generated: answer -->\n<!-- end -->\n" * 2, "twice, or without its end"),
        ("<!-- generated: answer -->\n", "twice, or without its end"),
        ("nothing\n", "marks no region answer"),
    ],
)
def test_wrong_marks_are_refused(toy: Path, text: str, said: str) -> None:
    toy.write_text(text)
    with pytest.raises(SystemExit, match=said):
        readme.run(options(check=True))


def test_region_may_wait_for_its_results(toy: Path) -> None:
    toy.write_text("nothing\n")
    (toy.parent / "answer.json").unlink()
    assert readme.run(options(check=True)) == 0


def test_missing_file_of_results_is_named(toy: Path) -> None:
    (toy.parent / "answer.json").unlink()
    with pytest.raises(SystemExit, match=r"answer\.json, which is not there"):
        readme.run(options(check=False))


def test_other_numbers_give_another_text(results: readme.Results) -> None:
    report = copy.deepcopy(results["stages_cpu"])
    report["stages"]["detect"]["p50"] = 1234.56
    report["photos"], report["failed"] = 10, {"a": "no face", "b": "no face"}
    text = readme.speed({"stages_cpu": report})
    assert "| detect | 1234.6 |" in text
    assert "the eight photos" in text


def test_times_of_a_loaded_machine_are_said_to_be(results: readme.Results) -> None:
    for watch, is_said in ((BUSY, True), (QUIET, False)):
        report = loaded_copy(results, "stages_cpu", watch)
        said = " ".join(readme.speed(report).split())  # lines break anywhere
        assert ("others used 40% of the cores" in said) is is_said


def test_table_of_quality_was_loaded_while_it_was_timed(results: readme.Results) -> None:
    for whole, table, is_said in ((BUSY, None, True), (BUSY, QUIET, False), (QUIET, BUSY, True)):
        report = loaded_copy(results, "quality_cpu", whole)
        time = report["quality_cpu"]["tables"]["time"]
        time.pop("watch", None)
        if table:
            time["watch"] = table
        assert ("loaded machine" in readme.foundations(report)) is is_said


def test_pictures_without_a_result_are_said_beside_the_mean(results: readme.Results) -> None:
    report = copy.deepcopy(results["quality_cpu"])
    cell = report["tables"]["scans"]["columns"]["ours"]["60/0"]
    cell["mean"].update(mean=1.5, n=2)
    cell["lost"] = 7
    assert "1.50 (7 of 9 lost)" in readme.foundations({"quality_cpu": report})


def test_small_numbers_are_words() -> None:
    assert [readme.count(n) for n in (0, 2, 10, 11, 122836)] == [
        "no",
        "two",
        "ten",
        "11",
        "122,836",
    ]


def test_table_has_numbers_on_the_right_and_empty_cells() -> None:
    text = readme.table(["", "a", "b"], [["x", "1", ""]])
    assert text == "| | a | b |\n| --- | ---: | ---: |\n| x | 1 | |"


def test_missing_values_are_dashes() -> None:
    assert readme.each([1.25, None, 3.0], 1) == "1.2 / - / 3.0"


def test_floors_are_shown_once_they_are_measured(results: readme.Results) -> None:
    report = copy.deepcopy(results["stages_cpu"])
    report.pop("rates", None)
    assert "floor" not in readme.speed({"stages_cpu": report})
    report["rates"] = {}
    for stage in report["stages"].values():
        stage.pop("floor_ms", None)
    report["stages"]["detect"].update(p50=4.0, p95=5.0, floor_ms=0.25)
    report["stages"]["load"].update(p50=1.0, p95=2.0, floor_ms=None)
    text = readme.speed({"stages_cpu": report})
    assert "| detect | 4.0 | 5.0 | 0.25 |" in text
    assert "| load | 1.0 | 2.0 | |" in text


def spread(median: float) -> dict[str, float]:
    return {"median": median, "q1": median - 0.5, "q3": median + 0.5, "p95": 90.0, "p99": 99.0}


MACHINE = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "load": 0.1}


def test_throughput_is_said_by_size_and_covering() -> None:
    row = {
        "size": "4K",
        "covered_percent": 30,
        "latency_ms": {"file": spread(80.0)},
        "faces_per_s": {f"{way} file": spread(10.0 + i) for i, way in enumerate(readme.WAYS)},
        "lost": {"a.jpg": "no face"},
        "peak_memory_mb": None,
    }
    report = {
        "machine": MACHINE,
        "watch": BUSY,
        "threads": 2,
        "rounds": 3,
        "photos": 29,
        "rows": [row],
        "cold_start": {"ms": {"start to first face": spread(1500.0), "import": spread(250.0)}},
    }
    text = " ".join(readme.throughput({"throughput_cpu": report}).split())
    assert "| 4K | 30 % | 80 (80–80) | 90 / 99 | 10.00 / 11.00 / 12.00 | 1 | - |" in text
    assert "1.50 s after the start of the process, of which 0.25 s are the import" in text
    assert "others used 40% of the cores" in text
    report["cold_start"] = None
    text = " ".join(readme.throughput({"throughput_cpu": report}).split())
    assert "In no photo without covering a face was found" in text


def test_stages_where_nothing_was_filled_say_nothing_of_it(results: readme.Results) -> None:
    report = copy.deepcopy(results["stages_cpu"])
    assert "hidden" in readme.speed({"stages_cpu": report})
    del report["stages"]["section 4.2"]
    text = readme.speed({"stages_cpu": report})
    assert "hidden" not in text
    assert '"section 4.3" is the sum' in text


def test_peers_that_win_lose_or_answer_otherwise_are_all_shown() -> None:
    def contender(ratio: float, verdict: str, agrees: bool) -> dict[str, Any]:
        answer = {"agrees": agrees}
        return {"versus": "ours", "ratio": spread(ratio), "verdict": verdict, "answer": answer}

    held = {
        "contenders": {
            "ours": {"ms": spread(1.0)},
            "slow": contender(3.0, "we win", True),
            "fast": contender(0.75, "we lose", True),
            "loose": contender(1.0, "even", False),
        },
        "missing": {"absent": "not installed"},
        "failed_peers": {"broken": "ValueError: no"},
        "watch": QUIET,
    }
    failed = {"failed": "its process ended", "watch": QUIET}
    twice = {"1": held, "2": {"missing": held["missing"], "watch": QUIET}}
    report = {"machine": MACHINE, "comparisons": {"solve": twice, "mesh": {"1": failed}}}
    text = readme.peers({"peers_cpu": report})
    assert "| solve | 1 | slow | ours | 3.00 (2.50–3.50) | ours |" in text
    assert "| solve | 1 | fast | ours | 0.75 (0.25–1.25) | theirs |" in text
    assert "| solve | 1 | loose | ours | 1.00 (0.50–1.50) | neither, another answer |" in text
    assert (
        "Not run: absent (solve, threads: 1 and 2): not installed; broken (solve, threads: 1): "
        "ValueError: no; all (mesh, threads: 1): its process ended."
    ) in " ".join(text.split())
    held["watch"] = BUSY
    assert "3.00 (2.50–3.50) (loaded machine)" in readme.peers({"peers_cpu": report})


def test_completion_is_said_with_its_interval() -> None:
    some = {"value": 0.975, "low": 0.9, "high": 0.99, "n": 80}
    none = {"value": None, "low": None, "high": None, "n": 0}
    groups = {"utkface": {"done": some, "valid": some, "warned": none}}
    tables = {"completion": {"groups": groups}}
    text = readme.completion({"quality_cpu": {"tables": tables}})
    assert "| UTKFace | 80 | 97.5 (90.0–99.0) | 97.5 (90.0–99.0) | - |" in text


def test_tables_of_quality_may_be_in_one_file_or_in_several(results: readme.Results) -> None:
    tables = {n: t for file in readme.QUALITY[::-1] for n, t in results[file]["tables"].items()}
    together = {"quality_cpu": {**results["quality_cpu"], "tables": tables}}
    assert readme.detail(together) == readme.detail(results)
    assert "[quality_cpu.json]" in readme.holes(together)
    with pytest.raises(SystemExit, match="the table holes"):
        readme.holes({file: {"tables": {}} for file in readme.QUALITY})


def test_quick_runs_are_not_for_readme(toy: Path) -> None:
    (toy.parent / "answer.json").write_text(json.dumps({"n": 42, "quick": True}))
    with pytest.raises(SystemExit, match="--quick"):
        readme.run(options(check=False))
