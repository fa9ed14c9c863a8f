"""Options of the micro-benchmarks, and the operations that they share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import machine
from bench.options import positive

CORES = pytest.StashKey[int]()
WATCH = pytest.StashKey[machine.Watch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("micro-benchmarks of extreme3d_fast")
    group.addoption("--photo", metavar="FILE", help="default: scikit-image's astronaut")
    group.addoption("--threads", type=positive, default=2, metavar="N", help="default: 2")
    group.addoption("--crop-size", type=positive, default=500, metavar="PX", help="default: 500")


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("bench/micro needs pytest-benchmark: pip install .[bench]")
    photo = config.getoption("--photo")
    if photo and not Path(photo).is_file():
        raise pytest.UsageError(f"--photo: there is no file {photo}")
    config.stash[CORES] = len(machine.cores())  # the machine's, before it is pinned to some
    machine.pin(config.getoption("--threads"))
    config.stash[WATCH] = machine.Watch().__enter__()


@pytest.fixture(scope="session")
def operations(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Workloads by name, and why some are missing."""
    import cv2

    from bench.workloads import capture, make_workloads
    from extreme3d_fast import Extreme3DError

    options = request.config.option
    with tempfile.TemporaryDirectory() as folder:
        photo = options.photo and Path(options.photo)
        if not photo:  # a file, so that decoding is measured too
            photo = Path(folder) / "astronaut.png"
            cv2.imwrite(str(photo), machine.astronaut()[:, :, ::-1])
        try:
            captured = capture(photo, crop_size=options.crop_size, threads=options.threads)
        except Extreme3DError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        made, left_out = make_workloads(captured)
        yield {workload.name: workload for workload in made}, left_out


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]
) -> None:
    del benchmarks
    output_json |= {
        "machine": {**machine.describe(), "cores": config.stash[CORES]},
        "watch": _watched(config),
    }


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    text = f"{config.getoption('--threads')} threads, inputs warm in the caches"
    terminalreporter.write_line(machine.headline(text, _watched(config)))


def _watched(config: pytest.Config) -> dict[str, Any]:
    """What the machine did since the session began."""
    watch = config.stash[WATCH]
    watch.__exit__(None, None, None)
    return watch.report
