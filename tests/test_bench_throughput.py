"""bench throughput: frames, shares and percentiles are right, and a run reports all of it."""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from bench import frames, machine, throughput
from bench.pasting import KINDS, Occluders

UInt8 = NDArray[np.uint8]


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    throughput.add_arguments(parser)
    return parser.parse_args(arguments)


def write_portrait(path: Path, portrait: UInt8) -> str:
    frames.write_jpeg(path, frames.framed(portrait, (320, 240), 0))
    return str(path)


@pytest.fixture
def occluders(tmp_path: Path) -> Occluders:
    """Opaque squares of each kind."""
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "square.png"), np.full((40, 40, 4), 255, np.uint8))
    return Occluders(tmp_path)


# === Frames ===


@pytest.mark.parametrize(
    ("shape", "scale"), [((240, 240), 2.0), ((120, 320), 2.0), ((960, 300), 0.5)]
)
def test_photo_fits_whole_into_the_frame(shape: tuple[int, int], scale: float) -> None:
    assert frames.fit_scale(np.zeros((*shape, 3)), (640, 480)) == scale


def test_photo_lies_undistorted_in_the_middle() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    photo[25:75, 25:75] = 255  # its square is 50 px, in the frame twice as much
    bright = frames.framed(photo, (400, 200), 0).mean(2) > 127
    middle = bright[:, 100:300]  # without what is beside the photo
    assert np.flatnonzero(middle.all(axis=1)).size == 0
    rows, columns = (np.flatnonzero(middle.sum(axis) > 50) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (50, 149, 50, 149)


def test_grain_is_as_strong_as_said_and_the_same_for_a_seed() -> None:
    photo = np.full((50, 50, 3), 128, np.uint8)
    first, again, other = (frames.framed(photo, (640, 480), seed) for seed in (1, 1, 2))
    assert first.std() == pytest.approx(
        frames.GRAIN, rel=0.02
    )  # of 300,000 pixels; rounding adds 1 %
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bits_per_pixel_are_those_of_the_file(tmp_path: Path) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    bits = frames.write_jpeg(tmp_path / "a.jpg", image)
    assert bits == 8 * (tmp_path / "a.jpg").stat().st_size / 1200
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == image.shape


def test_colours_are_written_in_their_order(tmp_path: Path) -> None:
    frames.write_jpeg(tmp_path / "red.jpg", np.full((16, 16, 3), [200, 30, 30], np.uint8))
    assert np.allclose(frames.read(str(tmp_path / "red.jpg")), [200, 30, 30], atol=4)  # JPEG


def test_prepared_faces_are_covered_by_the_share(tmp_path: Path, occluders: Occluders) -> None:
    image = np.full((300, 300, 3), 90, np.uint8)
    subject = frames.Subject("a", image, np.array([100.0, 60.0, 200.0, 210.0]))
    files, row = frames.prepare([subject], "VGA", 30, occluders, tmp_path, 0)
    assert row["covered_share"]["median"] == pytest.approx(0.3, abs=0.02)
    assert row["face_height_px"]["median"] == 150 * 480 / 300
    assert frames.read(files["a"]).shape == (480, 640, 3)


def test_photo_without_a_face_to_cover_is_counted_as_lost(
    tmp_path: Path, occluders: Occluders
) -> None:
    subject = frames.Subject("a", np.zeros((30, 30, 3), np.uint8), None)
    files, row = frames.prepare([subject], "VGA", 15, occluders, tmp_path, 0)
    assert not files
    assert list(row["lost"]) == ["a"]
    assert row["photos"] == 1
    assert "a" in frames.prepare([subject], "VGA", 0, None, tmp_path, 0)[0]


def test_face_box_surrounds_the_face(tmp_path: Path, portrait: UInt8) -> None:
    blank = str(tmp_path / "blank.png")
    cv2.imwrite(blank, np.zeros((64, 64, 3), np.uint8))
    found, none = frames.face_boxes([write_portrait(tmp_path / "a.jpg", portrait), blank], 1)
    assert none is None
    assert found is not None
    # the astronaut's eyes, 512 px: (207, 106) and (245, 106), and mouth (228, 150); frame: 240 px
    scale, left = 240 / 512, 40
    x0, y0, x1, y1 = found
    assert x0 < 207 * scale + left < 245 * scale + left < x1
    assert y0 < 106 * scale < 150 * scale < y1


# === Numbers ===


def test_percentiles_are_those_of_all_passes() -> None:
    passes = [[float(i) for i in range(50)], [float(i) for i in range(50, 101)]]
    assert throughput.percentiles(passes) == {
        **{"median": 50.0, "q1": 25.0, "q3": 75.0, "n": 101},
        **{"p95": 95.0, "p99": 99.0},
    }


def test_no_samples_have_no_percentiles() -> None:
    assert throughput.percentiles([])["p99"] is None


@pytest.mark.parametrize(
    ("photos", "batch", "lanes", "expected"),
    [(10, 8, 1, 1), (3, 8, 1, 3), (4, 8, 1, 2), (10, 8, 4, 2), (1, 1, 1, 1), (0, 5, 1, 5)],
)
def test_pass_fills_a_batch_and_every_lane_four_times(
    photos: int, batch: int, lanes: int, expected: int
) -> None:
    assert throughput.repeats(photos, batch, lanes) == expected


def test_every_way_does_every_photo_with_a_face(tmp_path: Path, portrait: UInt8) -> None:
    blank = str(tmp_path / "blank.png")
    cv2.imwrite(blank, np.zeros((64, 64, 3), np.uint8))
    files = {"blank": blank, "face": write_portrait(tmp_path / "a.jpg", portrait)}
    row = throughput.time_ways(files, "cpu", 1, 1, 1, 2)
    assert list(row["lost"]) == ["blank"]
    assert row["lost_ms"]["n"] == 1
    assert {source: ms["n"] for source, ms in row["latency_ms"].items()} == {"file": 2, "array": 2}
    assert {name: rate["n"] for name, rate in row["faces_per_s"].items()} == dict.fromkeys(
        [f"{way} {source}" for way in throughput.WAYS for source in throughput.SOURCES], 2
    )


def test_row_without_any_face_says_so(tmp_path: Path) -> None:
    blank = str(tmp_path / "blank.png")
    cv2.imwrite(blank, np.zeros((64, 64, 3), np.uint8))
    row = throughput.time_ways({"blank": blank}, "cpu", 1, 1, 1, 1)
    row |= {"size": "VGA", "covered_percent": 0}
    assert all("no face found" in line for line in throughput.lines(row))


# === Options and data ===


def test_lanes_are_refused_on_the_cpu() -> None:
    with pytest.raises(SystemExit, match="--lanes needs --device cuda"):
        throughput.run(options("--lanes", "2"))


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(SystemExit, match="this process may use"):
        throughput.run(options("--threads", str(len(machine.cores()) + 1)))


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_counts_are_whole_numbers_from_one(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        options(f"--batch={text}")
    assert stopped.value.code == 2
    assert "expected a whole number from 1" in capsys.readouterr().err


def test_missing_cut_outs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTREME3D_DATA", str(tmp_path))
    occluders, why = throughput.find_occluders()
    assert occluders is None
    assert why is not None
    assert str(tmp_path / "occluders") in why


# === A real run ===


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, portrait: UInt8) -> tuple[str, dict[str, Any]]:
    """What a quick run of two photos printed and wrote; one of them shows no face."""
    folder = tmp_path_factory.mktemp("throughput")
    cv2.imwrite(str(folder / "blank.png"), np.zeros((48, 64, 3), np.uint8))
    write_portrait(folder / "face.jpg", portrait)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "throughput", "--quick", "--threads", "1", "--batch", "1"]
        + ["--photos", str(folder), "--json", str(folder / "out" / "report.json")],
        env={**os.environ, "EXTREME3D_DATA": str(folder)},
        cwd=machine.REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout, json.loads((folder / "out" / "report.json").read_text())


def test_run_reports_each_size_with_its_losses(ran: tuple[str, dict[str, Any]]) -> None:
    printed, report = ran
    assert [(row["size"], row["photos"]) for row in report["rows"]] == [("VGA", 2), ("1080p", 2)]
    for row in report["rows"]:
        assert list(row["lost"]) == ["blank.png"]
        assert row["latency_ms"]["file"]["n"] == 1
    assert "lost of VGA, 0 % covered: blank.png: no face found" in printed
    assert printed.count("to find none took") == 2
    assert "skipped: coverings" in printed


def test_run_says_where_and_how_it_was_made(ran: tuple[str, dict[str, Any]]) -> None:
    _, report = ran
    assert report["command"] == "throughput"
    assert len(report["pinned"]) == 1
    assert report["machine"]["cpu"]
    for watched in (report, report["cold_start"], *report["rows"]):
        assert {"load_before", "load_after", "others", "frequency_mhz"} <= set(watched["watch"])


def test_steps_of_the_cold_start_add_up_within_the_whole(
    ran: tuple[str, dict[str, Any]],
) -> None:
    cold = ran[1]["cold_start"]
    ms = {name: quartiles["median"] for name, quartiles in cold["ms"].items()}
    assert ms["import"] + ms["construct"] + ms["first photo"] < ms["start to first face"]
    peaks = [quartiles["median"] for quartiles in cold["peak_memory_mb"].values()]
    assert peaks == sorted(peaks)


@pytest.mark.parametrize(("others", "flagged"), [(0.0, 0), (0.5, 2), (None, 2)])
def test_headlines_of_a_loaded_machine_are_flagged(
    ran: tuple[str, dict[str, Any]], others: float | None, flagged: int
) -> None:
    report = copy.deepcopy(ran[1])
    for watched in (report["cold_start"], *report["rows"]):
        watched["watch"]["others"] = others
    assert sum("LOADED MACHINE" in line for line in throughput.summary(report)) == flagged


def test_report_without_any_face_has_no_headline(ran: tuple[str, dict[str, Any]]) -> None:
    last = throughput.summary({**ran[1], "cold_start": None})[-1]
    assert last == "no face in any 1080p photo: no cold start, no headline"
