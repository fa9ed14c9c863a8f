"""bench/micro: runs on request only, says what it lacks, and measures every operation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from research_data import REPOSITORY


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "bench/micro", "-q", *map(str, options)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_plain_pytest_does_not_collect_micro_benchmarks(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("testpaths") == ["tests"]


def test_missing_plugin_is_named() -> None:
    done = run("-p", "no:benchmark")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pytest-benchmark: pip install .[bench]" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_photo_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    done = run("--photo", tmp_path / "none.jpg")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "there is no file" in done.stderr


def test_photo_without_a_face_ends_the_run(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    photo = tmp_path / "black.png"
    cv2.imwrite(str(photo), np.zeros((64, 64, 3), np.uint8))
    done = run("--photo", photo)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no face found" in done.stdout


def test_operation_is_measured_with_the_size_of_its_work(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    out = tmp_path / "micro.json"
    options = "--crop-size=250", "--threads=1", "--benchmark-min-rounds=1"
    done = run("-k", "dense", *options, "--benchmark-max-time=0.01", f"--benchmark-json={out}")
    assert done.returncode == 0, done.stdout
    report = json.loads(out.read_text())
    (dense,) = report["benchmarks"]
    assert dense["extra_info"]["pixels"] == 250 * 250
    assert dense["stats"]["median"] > 0
    assert {"cpu", "commit"} <= set(report["machine"])
    assert "others" in report["watch"]
