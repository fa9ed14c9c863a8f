"""bench peers: peers get the same work, losses are told as wins are, and nothing that others do
breaks the run."""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from synthetic import CAMERA, Head, camera_from_head, ellipsoid_head, sew

from bench import machine, peers
from bench.peers import (
    blending,
    commands,
    contest,
    cotangent,
    environments,
    faces,
    raster,
    sewing,
    symmetry,
)
from bench.peers.contest import Agreement, Contender, Contest, Missing, OwnClock
from bench.peers.settings import Settings
from extreme3d_fast import NoFaceFound, _core
from extreme3d_fast.blending import blend_gradients
from extreme3d_fast.rasterize import Raster, rasterize
from extreme3d_fast.soft_symmetry import soft_symmetry


def quartiles_of(median: float | None, q1: float | None = None, q3: float | None = None) -> dict:
    return {"median": median, "q1": q1 or median, "q3": q3 or median, "n": 4}


# === Who wins ===


@pytest.mark.parametrize(
    ("quartiles", "said"),
    [
        ((3.0, 2.0, 4.0), "we win"),
        ((0.5, 0.4, 0.9), "we lose"),
        ((1.1, 0.9, 1.2), "even"),
        ((0.9, 0.8, 1.1), "even"),
        ((None,), "unknown"),
    ],
)
def test_who_wins_is_told_only_where_both_quartiles_agree(quartiles: Any, said: str) -> None:
    assert contest.verdict(quartiles_of(*quartiles)) == said


def test_too_few_rounds_tell_nobody_the_winner() -> None:
    assert contest.verdict({**quartiles_of(3.0), "n": 2}) == "unknown"
    assert contest.verdict({**quartiles_of(3.0), "n": 3}) == "we win"


def clocked(name: str, ms: float, **more: Any) -> Contender:
    """A contender that says how long it took."""
    clock = OwnClock()
    return Contender(name, lambda: clock.add(ms), "nothing", clock=clock, **more)


def test_ratio_is_the_peers_time_over_that_of_whom_it_is_set_against() -> None:
    held = contest.hold(
        Contest(
            "numbers",
            ours=[clocked("fast", 2.0), clocked("slow", 8.0)],
            peers=[clocked("a", 4.0, versus="fast"), clocked("b", 4.0, versus="slow")],
        ),
        rounds=3,
    )
    rows = held["contenders"]
    assert [rows[name]["ratio"]["median"] for name in "ab"] == [2.0, 0.5]
    assert [rows[name]["verdict"] for name in "ab"] == ["we win", "we lose"]
    assert rows["a"]["ms"] == {"median": 4.0, "q1": 4.0, "q3": 4.0, "n": 3}
    assert "ratio" not in rows["fast"]
    text = "\n".join([*contest.lines(held), *contest.headlines(held)])
    for words in ("2x (2-2) of fast: WE WIN", "0.5x (0.5-0.5) of slow: WE LOSE", ": we lose"):
        assert words in text


def test_a_peer_that_answers_something_else_is_said_so() -> None:
    def of(error: float) -> Contest:
        peer = clocked("peer", 1.0, versus="ours", agreement=lambda _: Agreement(error, 0.1, "mm"))
        return Contest("a number", ours=[clocked("ours", 1.0)], peers=[peer])

    for error, agrees in ((0.1, True), (0.2, False), (float("nan"), False)):
        held = contest.hold(of(error), rounds=1)
        assert held["contenders"]["peer"]["answer"]["agrees"] is agrees
        assert ("OTHER ANSWER" in "\n".join(contest.lines(held))) is not agrees
        assert ("with another answer" in contest.headlines(held)[0]) is not agrees
        json.dumps(held, allow_nan=False)


def test_a_peer_that_fails_leaves_the_others() -> None:
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    held = contest.hold(
        Contest(
            "numbers",
            ours=[clocked("ours", 1.0)],
            peers=[Contender("bad", fail, "", "ours"), clocked("good", 1.0, versus="ours")],
        ),
        rounds=2,
    )
    assert held["failed_peers"] == {"bad": "ZeroDivisionError: by zero"}
    assert "good" in held["contenders"]
    assert "bad: FAILED: ZeroDivisionError: by zero" in "\n".join(contest.lines(held))


def test_what_fails_in_ours_is_not_hidden() -> None:
    ours = Contender("ours", lambda: 1 / 0, "")
    with pytest.raises(ZeroDivisionError):
        contest.hold(Contest("numbers", ours=[ours], peers=[]), rounds=1)


def test_all_contenders_are_at_the_same_photo_in_each_round() -> None:
    seen: dict[str, list[str]] = {"ours": [], "peer": []}
    made = [
        Contender(name, contest.each_in_turn(["x", "y", "z"], calls.append), "", versus)
        for (name, calls), versus in zip(seen.items(), ("", "ours"), strict=True)
    ]
    held = contest.hold(Contest("photos", ours=made[:1], peers=made[1:], every=3), rounds=4)
    assert held["rounds"] == 6  # whole turns
    assert seen["ours"] == seen["peer"]
    timed = seen["ours"][-6:]
    assert sorted(timed) == ["x", "x", "y", "y", "z", "z"]


def test_a_package_that_is_not_there_is_named_with_how_to_get_it() -> None:
    made, missing = contest.gather({"Nobody": lambda: contest.load("no_such_module_", "nobody")})
    assert made == []
    assert "nobody" in missing["Nobody"]
    assert "pip install '.[bench]'" in missing["Nobody"]


def test_a_peer_that_cannot_be_set_up_is_missing_with_its_reason() -> None:
    def make() -> list[Contender]:
        raise RuntimeError("no display")

    assert contest.gather({"GL": make}) == ([], {"GL": "RuntimeError: no display"})


# === The same work ===


@pytest.fixture(scope="module")
def head() -> Head:
    return ellipsoid_head(4)


def test_equations_of_soft_symmetry_have_our_solution(head: Head) -> None:
    x, y, z = head.vertices.T
    wave = np.stack([np.sin(y / 20), np.cos(x / 15 + 1), np.sin((x + z) / 25)], 1)
    visible = head.region & (x > -8) & (z > 0)
    detailed = np.where(visible[:, None], head.vertices + wave, head.vertices).astype(np.float32)
    ours = soft_symmetry(head.vertices, detailed, visible, head.faces, head.mirror, head.region)
    assert {symmetry.MIRRORED, symmetry.FOUNDATION} < set(ours.recovery)
    system = symmetry.assemble(head.vertices, detailed, ours.recovery, head.mirror, head.faces)
    expected = ours.vertices[system.unknown]
    solved = scipy.sparse.linalg.spsolve(system.matrix, system.rhs)
    assert np.abs(solved - expected).max() < symmetry.TOLERANCE_MM
    # the same as an energy with fixed values, which libigl minimises
    n = len(system.unknown)
    all_values = np.concatenate([solved, system.known])
    gradient = system.energy @ all_values + system.linear
    assert np.abs(gradient[:n]).max() < 1e-8  # of coordinates of 100 mm
    for make in (symmetry._scipy, symmetry._igl, symmetry._cholmod):
        try:
            contenders = make(system, lambda x: Agreement(np.abs(x[:n] - solved).max(), 1e-8, "mm"))
        except Missing:
            continue
        for contender in contenders:
            assert contender.agreement
            assert contender.agreement(contender.call()).agrees, contender.name


def hole_maps(*, guided: bool) -> blending.Maps:
    """Two holes in a square face, one on its border, and a strip that touches nothing known."""
    rng = np.random.default_rng(5)
    side = 40
    y, x = np.mgrid[:side, :side] / side
    values = (np.sin(5 * x) + y * x).astype(np.float32)
    region = np.zeros((side, side), bool)
    region[4:36, 4:30] = region[4:36, 33:36] = True
    hole = np.zeros_like(region)
    hole[10:20, 8:18] = hole[25:40, 10:22] = hole[:, 33:] = True
    guidance = (0.3 * np.cos(9 * y) + 0.1 * rng.random((side, side))).astype(np.float32)
    holds = (x > 0.3) if guided else np.zeros_like(region)
    return blending.Maps(values, region & ~hole, region, guidance, holds)


@pytest.mark.parametrize("guided", [True, False])
def test_equations_of_blending_have_our_solution(guided: bool) -> None:
    maps = hole_maps(guided=guided)
    ours = blend_gradients(*maps)
    matrix, rhs = blending.equations(maps)
    solved = scipy.sparse.linalg.spsolve(matrix, rhs)
    error = np.abs(solved - ours[maps.unknown]).max()
    assert error < blending.TOLERANCE * np.ptp(ours[maps.region])
    for contender in blending._scipy(maps, ours, float(np.ptp(ours[maps.region]))):
        assert contender.agreement
        assert contender.agreement(contender.call()).agrees


def test_seamless_clone_is_given_the_same_hole() -> None:
    """One hole far from all borders, over which the clone must come to what we do."""
    side = 64
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    hole = np.zeros((side, side), bool)
    hole[20:44, 20:44] = True
    everywhere = np.ones_like(hole)
    bump = (0.3 * np.sin(30 * x) * np.sin(25 * y)).astype(np.float32)
    values = bump + 0.3 * x
    maps = blending.Maps(values, ~hole, everywhere, bump, everywhere)
    ours = blend_gradients(*maps)
    (peer,) = blending._opencv(maps, ours, float(np.ptp(ours)))
    assert peer.agreement
    # the mask is 4 pixels larger: 4 * 0.3 / 64 of a range of 0.8; a shift by a pixel would be 0.16
    assert peer.agreement(peer.call()).error < 0.03


def test_cotangent_weights_of_a_square_are_known() -> None:
    """Right triangles: half of cot 45° on each side, and cot 90° across, kept above 0."""
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    edges = _core.EdgeRows(np.array([[0, 1, 2], [0, 2, 3]], np.int32), 4)
    offsets, neighbours = edges.csr()
    assert offsets.tolist() == [0, 3, 5, 8, 10]
    assert neighbours.tolist() == [1, 2, 3, 0, 2, 0, 1, 3, 0, 2]
    side, across = 0.5, cotangent.LEAST
    expected = [side, across, side, side, side, across, side, side, side, side]
    for threads in (1, 2):
        weights = edges.cotangent_weights(square, threads)
        np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_weights_of_the_equations_are_ours(head: Head) -> None:
    edges = _core.EdgeRows(head.faces, len(head.vertices))
    offsets, neighbours = edges.csr()
    twin = symmetry.cotangent_weights(head.vertices.astype(np.float64), head.faces)
    np.testing.assert_array_equal(twin.indptr, offsets)
    np.testing.assert_array_equal(twin.indices, neighbours)
    # float32 on edges of 5 mm of a head of 100 mm
    np.testing.assert_allclose(edges.cotangent_weights(head.vertices), twin.data, atol=1e-4)


def test_weights_within_our_bounds_are_those_of_libigl(head: Head) -> None:
    pytest.importorskip("igl", reason="libigl is in the extra `bench`")
    edges = _core.EdgeRows(head.faces, len(head.vertices))
    weights = edges.cotangent_weights(head.vertices)
    for contender in cotangent._igl(head.vertices, head.faces, (*edges.csr(), weights)):
        assert contender.agreement
        answer = contender.agreement(contender.call())
        assert answer.agrees, contender.name


def test_wrong_weights_are_told_from_right_ones() -> None:
    ours = scipy.sparse.csr_matrix([[0.0, 0.5], [0.5, 0.0]])
    assert cotangent.compare(ours, ours.copy()).agrees
    assert not cotangent.compare(ours, 1.1 * ours).agrees
    # what ours bounds is left out, and counted
    clipped = cotangent.compare(ours, scipy.sparse.csr_matrix([[0.0, -3.0], [-3.0, 0.0]]))
    assert clipped.agrees
    assert "without 2 of 2 entries" in clipped.note


def test_pixels_that_see_another_depth_are_counted() -> None:
    truth = np.full((10, 10), 500.0, np.float32)
    truth[:, 5:] = np.inf
    depth = truth.copy()
    depth[0, 0] += 1.0  # another surface
    depth[1, 1] = np.inf  # nothing
    depth[2, 2] += 0.5 * raster.SAME_MM
    assert raster._pixels(depth, truth, 0.01, "").error == pytest.approx(2 / 50)
    slope = np.tile(np.arange(10, dtype=np.float32), (10, 1))
    assert raster._pixels(slope + 1, slope, 0.0, "").error == 1.0
    last = 10 / 100  # beyond the last column nothing is so deep
    assert raster._pixels(slope + 1, slope, 0.0, "", loose=True).error == pytest.approx(last)


def seen_head(head: Head) -> tuple[raster.Scene, Raster]:
    matrix = camera_from_head(20)
    vertices = (head.vertices @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    scene = raster.Scene(vertices, head.faces, CAMERA, 1)
    return scene, rasterize(vertices, head.faces, CAMERA, cull_back_faces=False)


@pytest.mark.parametrize(
    ("module", "make"), [("open3d", raster._open3d), ("pyrender", raster._pyrender)]
)
def test_other_rasterisers_see_what_ours_sees(module: str, make: Any, head: Head) -> None:
    pytest.importorskip(module, reason=f"{module} is in the extra `bench`")
    scene, truth = seen_head(head)
    found, missing = contest.gather({module: lambda: make(scene, truth)})
    if missing:
        pytest.skip(missing[module])
    for contender in found:
        assert contender.agreement
        answer = contender.agreement(contender.call())
        assert answer.agrees, str(answer)
        if module == "open3d":
            assert float(re.findall(r"([\d.]+)%", answer.note)[1]) > 99


# === Sewing ===


def test_pieces_are_what_is_left_without_the_strips_between_them() -> None:
    mesh = sew(ellipsoid_head(), 25.0).mesh
    pieces = sewing.pieces_of(mesh)
    assert pieces.count >= 2
    assert len(pieces.faces) < len(mesh.faces)
    assert sewing.validity(mesh.vertices, mesh.faces, 0).agrees
    assert not sewing.validity(pieces.vertices, pieces.faces, 0).agrees


def test_faults_of_a_mesh_are_counted() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    flipped = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 2]], np.int32)
    good = sewing.validity(square, flipped[:2], 1)
    assert good.agrees
    assert sewing.validity(square, flipped[:2], 0).error == 1
    assert not sewing.validity(square, flipped, 1).agrees


def test_a_mesh_repair_is_judged_by_what_it_leaves() -> None:
    pieces = sewing.pieces_of(sew(ellipsoid_head(), 25.0).mesh)
    for contender in sewing._trimesh(pieces, 0):
        assert contender.agreement
        assert "vertices" in contender.agreement(contender.call()).note


# === Faces ===


def test_distance_of_landmarks_is_relative_to_the_face() -> None:
    points = np.zeros((faces.POINTS, 3), np.float32)
    points[0, 0] = 200.0  # the face's size
    moved = points[:, :2] + [3.0, 4.0]
    answer = faces.distance([points, None, points], [moved, moved, None])
    assert answer.error == pytest.approx(5 / 200)
    assert answer.note.startswith("1 of 3 photos")
    assert not faces.distance([None], [moved]).agrees  # nothing to agree on


@pytest.mark.parametrize("python", [None, "/no/such/python", sys.executable])
def test_without_mediapipe_it_is_said_how_to_get_it(python: str | None) -> None:
    if python == sys.executable and contest.version("mediapipe"):
        pytest.skip("MediaPipe is installed beside this package")
    with pytest.raises(Missing, match=r"--make-environments DIR .*--mediapipe PYTHON"):
        environments.check_mediapipe(python)


def test_worker_that_does_not_start_is_a_reason_not_a_hang() -> None:
    if contest.version("mediapipe"):
        pytest.skip("MediaPipe is installed beside this package")
    with pytest.raises(RuntimeError, match="MediaPipe ended with status 1"):
        faces.Worker(sys.executable)


# === Commands ===


def toml(folder: Path, text: str) -> Path:
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli", reason="tomli is in the extra `bench`, for Python 3.10")
    path = folder / "commands.toml"
    path.write_text(text)
    return path


def test_commands_are_read_with_their_defaults(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        [[command]]
        name = "a"
        command = "tool '{input} x' {output}"
        [[command]]
        name = "b"
        command = ["tool"]
        input = "photo.jpg"
        output = "mesh.obj"
        directory = "sub"
        timeout = 5
        timing = { regex = 't=(\\d+)', unit = "s" }
        """,
    )
    a, b = commands.read_commands(path)
    assert a.words == ("tool", "{input} x", "{output}")
    assert (a.input, a.output, a.regex, a.timeout) == (None, None, None, commands.TIMEOUT_S)
    assert a.directory == tmp_path
    assert (b.input, b.directory) == (str(tmp_path / "photo.jpg"), tmp_path / "sub")
    assert b.regex
    assert (b.regex.pattern, b.unit, b.timeout) == (r"t=(\d+)", "s", 5.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected [[command]] tables"),
        ("[[command]", "commands.toml"),
        ('[[command]]\ncommand = "a"', "needs a name"),
        ('[[command]]\nname = "a"', "command should be a string or a list"),
        ('[[command]]\nname = "a"\ncommand = []', "command should be a string or a list"),
        ('[[command]]\nname = "a"\ncommand = "x"\ncolour = 1', "no key colour"),
        ('[[command]]\nname = "a"\ncommand = "x"\noutput = 1', "output should be a string"),
        ('[[command]]\nname = "a"\ncommand = "x"\ntimeout = 0', "timeout should be a positive"),
        ('[[command]]\nname = "a"\ncommand = "x"\ntiming = "cpu"', "timing should be"),
        ('[[command]]\nname = "a"\ncommand = "x"\ntiming = {regex = "("}', "regex"),
        ('[[command]]\nname = "a"\ncommand = "x"\ntiming = {regex = "x"}', "has no group"),
        ('[[command]]\nname = "a"\ncommand = "x"\ntiming = {regex = "(x)", unit = "h"}', "unit"),
        ('[[command]]\nname = "a"\ncommand = "x"\n' * 2, "same name"),
    ],
)
def test_bad_file_of_commands_is_refused_with_its_fault(
    tmp_path: Path, text: str, said: str
) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(SystemExit, match=re.escape(said)):
        commands.read_commands(path)


def test_the_example_in_the_docs_is_understood(tmp_path: Path) -> None:
    docs = (machine.REPOSITORY / "docs" / "peers.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", docs, re.S)
    assert len(commands.read_commands(toml(tmp_path, example))) == 2


def python_command(code: str, **more: Any) -> commands.Command:
    return commands.Command(
        "a", (sys.executable, "-c", code, "{input}", "{output}"), Path.cwd(), **more
    )


WRITES = "import sys; open(sys.argv[2] + '/mesh.obj', 'w').write(sys.argv[1]); "


def test_a_command_gets_its_photo_and_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "left_over.obj").write_text("from before")
    command = python_command(WRITES, output="mesh.obj")
    assert commands.run_command(command, Path("a photo; rm.jpg"), folder) > 0
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"mesh.obj": "a photo; rm.jpg"}


@pytest.mark.parametrize(("unit", "ms"), [("s", 1500.0), ("ms", 1.5), ("us", 0.0015)])
def test_a_commands_own_time_is_in_its_unit(tmp_path: Path, unit: str, ms: float) -> None:
    command = python_command(
        WRITES + "print('took 1.5 units')", regex=re.compile(r"took ([\d.]+)"), unit=unit
    )
    assert commands.run_command(command, Path("x"), tmp_path / "out") == pytest.approx(ms)


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        ("import sys; sys.exit('no model')", {}, "status 1: no model"),
        ("pass", {}, "wrote nothing"),
        (WRITES, {"output": "face.glb"}, "wrote nothing to face.glb"),
        (WRITES, {"regex": re.compile("(x)")}, "printed nothing like"),
        (WRITES + "print('t=x')", {"regex": re.compile("t=(.)")}, "'x', which is no number"),
        ("import time; time.sleep(60)", {"timeout": 0.3}, "not done after 0.3 s"),
    ],
)
def test_a_command_that_gives_nothing_to_measure_has_failed(
    tmp_path: Path, code: str, more: Any, said: str
) -> None:
    with pytest.raises(contest.Failed, match=re.escape(said)):
        commands.run_command(python_command(code, **more), Path("x"), tmp_path / "out")


def test_a_command_that_is_not_there_has_failed(tmp_path: Path) -> None:
    command = commands.Command("a", ("/no/such/tool",), tmp_path)
    with pytest.raises(contest.Failed, match="does not start"):
        commands.run_command(command, Path("x"), tmp_path / "out")


def test_runs_that_fail_later_are_counted_and_have_no_time(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        f"import sys, pathlib; m = pathlib.Path({str(mark)!r}); n = len(m.read_text()) "
        f"if m.exists() else 0; m.write_text('x' * (n + 1)); n == 3 and sys.exit(1); {WRITES}"
    )
    runner = commands.Runner(python_command(code), tmp_path / "out")
    peer = Contender("a", lambda: runner(Path("x")), "", "ours", clock=runner.clock)
    held = contest.hold(Contest("x", ours=[clocked("ours", 1.0)], peers=[peer]), rounds=3)
    row = held["contenders"]["a"]
    assert (row["failures"], row["ms"]["n"], row["ratio"]["n"]) == (1, 2, 2)
    assert "failed 1 of 3 times" in "\n".join(contest.lines(held))
    json.dumps(held, allow_nan=False)


# === The command ===


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    peers.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "raster,speed"], "no comparison speed; there are cotangent"),
        (["--rounds", "0"], "expected a whole number from 1, got '0'"),
        (["--threads", "two"], "expected a whole number from 1, got 'two'"),
    ],
)
def test_bad_options_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(*words)
    assert said in capsys.readouterr().err


def test_threads_are_those_that_somebody_can_use() -> None:
    assert peers._thread_counts("one", 4) == [1]
    assert peers._thread_counts("most", 4) == [4]
    assert peers._thread_counts("both", 4) == [1, 4]
    assert peers._thread_counts("both", 1) == [1]


def crash(_name: str, _settings: Settings, _sending: Any) -> None:
    os._exit(3)  # as a fault in somebody's C++ would


def test_a_peer_that_crashes_its_process_is_reported() -> None:
    measured = peers._apart("raster", Settings(photos=("",), threads=1, rounds=1), crash)
    assert measured["failed"] == "its process ended with status 3"
    assert "failed: its process ended" in peers._text("raster", 1, measured)


def cleans_up(_name: str, settings: Settings, sending: Any) -> None:
    assert settings.commands
    atexit.register(settings.commands.write_text, f"cleaned up on {len(machine.cores())} core")
    sending.send({"failed": "nothing to do"})


def test_a_process_that_is_done_cleans_up(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    settings = Settings(photos=("",), threads=1, rounds=1, commands=mark)
    assert peers._apart("raster", settings, cleans_up)["failed"] == "nothing to do"
    assert mark.read_text() == "cleaned up on 1 core"


def runs_a_command(_name: str, settings: Settings, _sending: Any) -> None:
    signal.signal(signal.SIGTERM, peers._leave)
    assert settings.commands
    code = f"import os, time; open({str(settings.commands)!r}, 'w').write(str(os.getpid())); "
    command = python_command(code + "time.sleep(600)")
    commands.run_command(command, Path("x"), settings.commands.parent / "out")


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
def test_a_process_that_hangs_is_ended_with_the_command_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"

    class Patient:
        """Waits until the command runs, then no longer."""

        def poll(self, _: float) -> bool:
            while not (mark.exists() and mark.read_text()):
                time.sleep(0.01)
            return False

    settings = Settings(photos=("",), threads=1, rounds=1, commands=mark)
    monkeypatch.setattr(peers, "patience", lambda *_: 7.0)
    context = multiprocessing.get_context("spawn")
    pipe = context.Pipe
    monkeypatch.setattr(context, "Pipe", lambda duplex: (Patient(), pipe(duplex)[1]))
    monkeypatch.setattr(peers.multiprocessing, "get_context", lambda _: context)
    measured = peers._apart("raster", settings, runs_a_command)
    assert measured["failed"] == "not done after 7 s"
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_patience_grows_with_rounds_and_with_what_commands_are_given(tmp_path: Path) -> None:
    few = Settings(photos=("a", "b"), threads=1, rounds=peers.ROUNDS)
    many = Settings(photos=("a", "b"), threads=1, rounds=4 * peers.ROUNDS)
    assert peers.patience("raster", few) == peers.HOPELESS_S
    assert peers.patience("raster", many) == 4 * peers.HOPELESS_S
    text = "".join(f'[[command]]\nname = "{n}"\ncommand = "x"\ntimeout = 100\n' for n in "ab")
    told = Settings(photos=("a", "b"), threads=1, rounds=3, commands=toml(tmp_path, text))
    runs = 3 + 2 + peers.UNTIMED_RUNS
    assert peers.patience("commands", told) == peers.HOPELESS_S + runs * 200


def test_a_command_is_set_against_ours_on_its_own_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        [[command]]
        name = "own"
        command = "x"
        input = "own.jpg"
        [[command]]
        name = "own time"
        command = "x"
        input = "own.jpg"
        timing = { regex = '(.)' }
        [[command]]
        name = "of the run"
        command = "x"
        [[command]]
        name = "faceless"
        command = "x"
        input = "wall.jpg"
        """
    seen: list[str] = []

    class Ours:
        threads = 1

        def __init__(self, **_: Any) -> None:
            pass

        def reconstruct(self, photo: Path) -> Any:
            if photo.name == "wall.jpg":
                raise NoFaceFound("no face found")
            seen.append(photo.name)
            return SimpleNamespace(save=lambda _: None)

    monkeypatch.setattr("extreme3d_fast.Reconstructor", Ours)
    monkeypatch.setattr(
        commands, "run_command", lambda _, photo, _folder: seen.append(photo.name) or 1.0
    )
    settings = Settings(photos=("/a.jpg",), threads=1, rounds=1, commands=toml(tmp_path, text))
    made = commands.contest(settings)
    ours = {c.name: c for c in made.ours}
    versus = {c.name: c.versus for c in made.peers}
    assert versus == {
        "own": "ours, command line, on own.jpg",
        "own time": "ours, loaded, on own.jpg",
        "of the run": "ours, command line",
    }
    assert set(ours) == set(versus.values())
    assert made.missing == {"faceless": "wall.jpg: no face found"}
    for peer in made.peers:
        seen.clear()
        ours[peer.versus].call()
        peer.call()
        assert seen == ["a.jpg" if peer.name == "of the run" else "own.jpg"] * 2


def test_without_commands_the_comparison_says_what_it_needs() -> None:
    with pytest.raises(Missing, match="--commands"):
        commands.contest(Settings(photos=("",), threads=1, rounds=1))


def test_a_small_run_yields_a_whole_report(tmp_path: Path, portrait: np.ndarray) -> None:
    import cv2

    # a bar over the eyes: a hole to be filled
    photo = portrait.copy()
    photo[95:125, 160:290] = 0
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "covered.png"), photo[..., ::-1])
    report_file = tmp_path / "report.json"
    words = ["--only", "symmetry,blending", "--quick", "--rounds", "1", "--threads", "1"]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "peers", *words),
            *("--photos", str(photos), "--json", str(report_file)),
        ],
        cwd=machine.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_file.read_text())
    assert report["command"] == "peers"
    assert {"machine", "watch", "versions", "quick"} < set(report)
    for name in ("symmetry", "blending"):
        measured = report["comparisons"][name]["1"]
        assert "others" in measured["watch"]
        rows = measured["contenders"]
        assert sum("ratio" in row for row in rows.values()) >= 1
        for peer, row in rows.items():
            assert set(row["ms"]) == {"median", "q1", "q3", "n"}, peer
            assert row["includes"]
        scipy_rows = [row for peer, row in rows.items() if peer.startswith("scipy")]
        assert len(scipy_rows) >= 2
        assert all(row["answer"]["agrees"] for row in scipy_rows)
    assert "covered.png" in report["comparisons"]["blending"]["1"]["given"]
    for words_of_report in ("== symmetry, 1 thread", "scipy splu", "same answer"):
        assert words_of_report in ended.stdout
