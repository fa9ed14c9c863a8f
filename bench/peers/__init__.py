"""The same work done by what a user would pick instead, in turn with ours.

Each comparison runs in a process of its own, pinned to its threads: first with one, then with
--threads where somebody can use them. A ratio is a peer's time over ours in the same round, with
its quartiles; who wins is told only if both quartiles say the same. docs/peers.md says what is
compared and how to add commands.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bench import machine
from bench.options import positive
from bench.peers import (
    blending,
    commands,
    cotangent,
    environments,
    faces,
    raster,
    sewing,
    symmetry,
)
from bench.peers.contest import Missing, headlines, hold, lines, version
from bench.peers.settings import Settings
from bench.stages import find_photos

NAME = "peers"
HELP = "the same work by libigl, SciPy, OpenCV, Open3D, pymeshlab, MediaPipe, any command"

# Each has NAME, HELP, PACKAGES, contest(settings) -> Contest, and THREADS: it is held with "one",
# with the "most" that are asked for, or with "both".
COMPARISONS = {
    module.NAME: module
    for module in (cotangent, symmetry, blending, raster, sewing, faces, commands)
}
ROUNDS, QUICK_ROUNDS = 15, 3
QUICK_PHOTOS = 3
HOPELESS_S = 3600  # a comparison of `ROUNDS` rounds that takes longer hangs
UNTIMED_RUNS = 2  # of each contender, before the rounds
GRACE_S = 30  # for a process to end in its own way

Measure = Callable[[str, Settings, Connection], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    described = "; ".join(f"{name}: {module.HELP}" for name, module in COMPARISONS.items())
    parser.add_argument(
        "--only",
        type=_names,
        default=tuple(COMPARISONS),
        metavar="A,B",
        help=f"default: all. {described}",
    )
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help=f"default: {ROUNDS}, quick: {QUICK_ROUNDS}"
    )
    parser.add_argument(
        "--threads", type=positive, default=2, metavar="N", help="default: 2; 1 is always run"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="default: paper_photos of EXTREME3D_DATA, else scikit-image's astronaut",
    )
    parser.add_argument(
        "--mediapipe", metavar="PYTHON", help="interpreter of an environment with mediapipe 0.10.21"
    )
    parser.add_argument(
        "--make-environments",
        type=Path,
        metavar="DIR",
        help="install there what cannot live beside this package (MediaPipe), or find it there",
    )
    parser.add_argument("--commands", type=Path, metavar="FILE", help="TOML: see docs/peers.md")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")


def run(options: argparse.Namespace) -> int:
    photos = find_photos(options.photos)
    if options.commands:
        commands.read_commands(options.commands)  # says at once what is wrong with it
    mediapipe = options.mediapipe
    if options.make_environments and not mediapipe:
        mediapipe = environments.make_mediapipe(options.make_environments)
    report: dict[str, Any] = {
        "command": NAME,
        "machine": machine.describe(),
        "quick": options.quick,
        "photos": len(photos),
        "versions": {p: version(p) for m in COMPARISONS.values() for p in m.PACKAGES},
        "comparisons": {},
    }
    with machine.Watch() as whole:
        for name in options.only:
            of_threads = report["comparisons"][name] = {}
            for threads in _thread_counts(COMPARISONS[name].THREADS, options.threads):
                settings = Settings(
                    photos=tuple(photos[: QUICK_PHOTOS if options.quick else None]),
                    threads=threads,
                    rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
                    quick=options.quick,
                    mediapipe=mediapipe,
                    commands=options.commands,
                )
                of_threads[str(threads)] = measured = _apart(name, settings)
                print(_text(name, threads, measured), flush=True)
                machine.write(report, options.json)  # after each: the whole takes minutes
    report["watch"] = whole.report
    machine.write(report, options.json)
    done = [m for of in report["comparisons"].values() for m in of.values() if "contenders" in m]
    return 0 if any("ratio" in c for m in done for c in m["contenders"].values()) else 1


def _thread_counts(held_with: str, most: int) -> list[int]:
    return {"one": [1], "most": [most], "both": sorted({1, most})}[held_with]


def _apart(name: str, settings: Settings, measure: Measure | None = None) -> dict[str, Any]:
    """The comparison's report, from a process of its own: a peer that crashes ends only that."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=measure or _measure, args=(name, settings, sending))
    limit = patience(name, settings)
    with machine.Watch(machine.cores()[: settings.threads]) as watch:
        with machine.pinned(settings.threads):
            process.start()
        sending.close()
        try:
            done = receiving.poll(limit)
            report: dict[str, Any] = (
                receiving.recv() if done else {"failed": f"not done after {limit:.0f} s"}
            )
        except EOFError:
            done, report = True, {}
        _end(process, wait=done)
    if not report:
        report["failed"] = f"its process ended with status {process.exitcode}"
    report["watch"] = watch.report
    return report


def patience(name: str, settings: Settings) -> float:
    """Seconds after which a comparison hangs: it may take longer where it has more rounds, and
    where all of its commands take all the time that they are given."""
    seconds = HOPELESS_S * max(1.0, settings.rounds / ROUNDS)
    if name == commands.NAME and settings.commands:
        # rounds come in whole turns of the photos
        runs = settings.rounds + len(settings.photos) + UNTIMED_RUNS
        seconds += runs * sum(c.timeout for c in commands.read_commands(settings.commands))
    return seconds


def _end(process: BaseProcess, *, wait: bool) -> None:
    """Waits for a process that is done, so that it can clean up; one that is not is told to."""
    if wait:
        process.join(GRACE_S)
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(GRACE_S)
    process.join()


def _measure(name: str, settings: Settings, sending: Connection) -> None:
    signal.signal(signal.SIGTERM, _leave)
    try:
        report = hold(COMPARISONS[name].contest(settings), settings.rounds)
    except Missing as error:
        report = {"missing": {name: str(error)}}
    except Exception as error:
        report = {"failed": f"{type(error).__name__}: {error}"}
    sending.send(report)


def _leave(*_: object) -> None:
    """SIGTERM ends the process as an exception does, which ends what it has started."""
    raise SystemExit(1)


def _text(name: str, threads: int, measured: Mapping[str, Any]) -> str:
    out = ["", f"== {name}, {threads} thread{'s' if threads > 1 else ''}: {COMPARISONS[name].HELP}"]
    if "failed" in measured:
        return "\n".join([*out, f"failed: {measured['failed']}"])
    if "contenders" not in measured:
        return "\n".join([*out, *(f"not run: {why}" for why in measured["missing"].values())])
    out += lines(measured)
    out += [machine.headline(line, measured["watch"]) for line in headlines(measured)]
    return "\n".join(out)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in COMPARISONS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no comparison {', '.join(unknown)}; there are {', '.join(COMPARISONS)}"
        )
    return names
