"""bench: sums and percentiles are right, and photos are told from the maps beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import machine, stages


def test_percentiles_are_those_of_the_runs() -> None:
    runs = [{"detect": float(i), "total": 2.0 * i} for i in range(101)]
    quartiles = {"median": 50.0, "q1": 25.0, "q3": 75.0, "n": 101}
    assert stages.summarize(runs)["detect"] == {"p50": 50.0, "p95": 95.0, **quartiles}


def test_section_4_3_is_the_sum_of_its_stages_in_each_run() -> None:
    runs = [
        {"detect": 9.0, "soft_symmetry": 5.0, "zipper": 1.0, "total": 15.0},
        {"detect": 9.0, "soft_symmetry": 1.0, "zipper": 5.0, "total": 15.0},
    ]
    summary = stages.summarize(runs)
    assert summary["section 4.3"]["p95"] == 6.0
    assert list(summary)[-2:] == ["section 4.3", "total"]


def test_every_stage_of_section_4_3_is_timed_by_the_reconstructor() -> None:
    source = machine.REPOSITORY / "python" / "extreme3d_fast" / "reconstructor.py"
    for stage in stages.SECTION_4_3:
        assert f'"{stage}"' in source.read_text(), stage


def test_maps_beside_the_photos_are_left_out(tmp_path: Path) -> None:
    for name in ("07.jpg", "07_mask.png", "07_bump.png", "08.jpg", "my_face.png", "notes.txt"):
        (tmp_path / name).touch()
    names = [Path(photo).name for photo in stages.find_photos(tmp_path)]
    assert names == ["07.jpg", "08.jpg", "my_face.png"]


def test_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no photos in"):
        stages.find_photos(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no folder .*gone"):
        stages.find_photos(tmp_path / "gone")


def test_missing_photos_and_scikit_image_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTREME3D_DATA", str(tmp_path))
    monkeypatch.setattr(stages.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=r"pip install \.\[bench\]"):
        stages.find_photos(None)


def test_table_names_the_machine_and_every_stage() -> None:
    report = {
        "machine": machine.describe(),
        "threads": 2,
        "runtime": "onnxruntime 1.32.0 CPU",
        "repeat": 1,
        "photos": 2,
        "failed": {"a.jpg": "no face found"},
        "stages": stages.summarize([{"detect": 1.0, "total": 2.0}]),
        "peak_memory_mb": 300.0,
        "import_memory_mb": 100.0,
        "vertices": 5,
    }
    text = stages.table(report)
    for word in ("detect", "total", "300 MB", "cores", "1.32.0", "failed: a.jpg: no face found"):
        assert word in text
