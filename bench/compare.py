"""Speed of two revisions, each built by itself, photo by photo in turn; warns of what got slower.

HEAD is what is committed unless said otherwise: say `.` for the files as they are. Builds are kept,
so that only the first run of a revision takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine, revisions
from bench.options import positive
from bench.stages import find_photos
from bench.stats import RESAMPLES, quartiles
from bench.timing import ratios, spread

NAME = "compare"
HELP = "speed and results of two revisions, in turn; warns of what got slower"

REPOSITORY = machine.REPOSITORY  # whose revisions are compared
SIDES = ("base", "head")
WARN_RATIO = 1.10
FLOOR_MS = 0.3  # of a stage
OPERATION_FLOOR_MS = 0.02
START_FLOOR_MS = 10.0  # of importing and opening
STARTS = 6  # times that each is imported and opened
LEAST_PAIRS = (
    6  # fewer cannot tell a median from 1: they all lie on one side in 2 * 0.5**n of cases
)
OPERATION_ROUNDS = 12
SAMPLE_MS = 10.0  # an operation is repeated to take this long
PATIENCE_S = 600.0  # with one answer
LOG_TAIL = 15  # lines of a dead worker's log that are shown
MOST_LISTED = 5  # photos whose results differ most

Pairs = Mapping[str, Sequence[tuple[float, float]]]
"""ms of base and head, taken one after the other, by what they worked on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="any name that git knows: main, HEAD~3, v0.1")
    parser.add_argument(
        "head",
        metavar="HEAD",
        nargs="?",
        default="HEAD",
        help="default: HEAD; '.' is the tree as it is, with what is not committed",
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="default: 5")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="default: 2")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda builds for it, which is slow"
    )
    parser.add_argument(
        "--operations", action="store_true", help="also each core operation of the CPU by itself"
    )
    parser.add_argument(
        "--floor",
        type=float,
        default=FLOOR_MS,
        metavar="MS",
        help=f"differences below it are none, in a stage (default: {FLOOR_MS})",
    )
    parser.add_argument("--fail", action="store_true", help="exit status 1 if anything got slower")
    parser.add_argument(
        "--cache",
        type=Path,
        default=REPOSITORY / "build" / "compare",
        metavar="DIR",
        help="where builds are kept (default: build/compare)",
    )
    parser.add_argument(
        "--no-build-isolation",
        action="store_true",
        help="build with the packages that are installed here, such as without a network",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")


def run(options: argparse.Namespace) -> int:
    """0: compared; 1: slower, with --fail; 2: could not be compared; 130: interrupted."""
    if options.operations and options.device != "cpu":
        print("compare: --operations are those of the CPU: leave it out", file=sys.stderr)
        return 2
    photos = find_photos(options.photos)
    try:
        with _term_interrupts():
            report = compare(options, photos)
    except (revisions.BuildFailed, WorkerFailed) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare: interrupted", file=sys.stderr)
        return 130
    print(table(report))
    machine.write(report, options.json)
    return int(options.fail and any(_warned(report, "slower")))


@contextlib.contextmanager
def _term_interrupts() -> Iterator[None]:
    """SIGTERM ends what was started and cleans up as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(options: argparse.Namespace, photos: Sequence[str]) -> dict[str, Any]:
    """Build both, measure, and make the report."""
    named = {"base": options.base, "head": options.head}
    found = {side: revisions.find(REPOSITORY, name) for side, name in named.items()}
    if options.head == "HEAD":
        now = revisions.find(REPOSITORY, revisions.WORKING_TREE)
        if now.sources != found["head"].sources:
            _say("what is not committed is left out; `.` in place of HEAD takes it in")
    defines = [f"EXTREME3D_CUDA={'ON' if options.device == 'cuda' else 'OFF'}"]
    sites = {}
    for side, revision in found.items():
        _say(f"{side}: {revision.title}")
        sites[side] = revisions.build(
            REPOSITORY,
            revision,
            options.cache,
            defines=defines,
            isolated=not options.no_build_isolation,
        )
    cores = machine.cores()[: options.threads]
    with machine.Watch(cores) as watch:
        started = start_up(sites, cores, options.threads, options.device)
        with workers(sites, cores, options.threads, options.device) as pair:
            measured = measure(pair, photos, options.rounds)
            memory = {side: round(worker.ask("memory"), 1) for side, worker in pair.items()}
            operations, without = {}, {}
            if options.operations:
                operations, without = measure_operations(pair, measured["fullest"])
    return {
        "command": NAME,
        "machine": machine.describe(),
        "watch": watch.report,
        **{
            side: {**vars(revision), "title": revision.title, **measured["about"][side]}
            for side, revision in found.items()
        },
        "same_sources": found["base"].sources == found["head"].sources,
        "threads": options.threads,
        "device": options.device,
        "rounds": options.rounds,
        "photos": len(photos),
        "failed": measured["failed"],
        "floor_ms": options.floor,
        "stages": {
            name: judged(pairs, options.floor) for name, pairs in by_stage(measured["ms"]).items()
        },
        "not_in_both": unpaired(measured["ms"]),
        "operations": {
            name: judged({"": pairs}, OPERATION_FLOOR_MS) for name, pairs in operations.items()
        },
        "operations_missing": without,
        "start": {name: judged({"": pairs}, START_FLOOR_MS) for name, pairs in started.items()},
        "peak_memory_mb": memory,
        "results": measured["results"],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# === The workers ===


class WorkerFailed(Exception):
    """A worker ended, hangs, or cannot do what was asked; says why."""


class Refused(WorkerFailed):
    """The worker could not do it, and waits for the next task."""


class Worker:
    """The process of one revision."""

    def __init__(self, side: str, site: Path, cores: Sequence[int], log: Path) -> None:
        self.side, self.log = side, log
        self.pipe, other = Pipe()
        told = {"pipe": other.fileno(), "cores": list(cores)}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*_python(), "-m", "bench.compare_worker", json.dumps(told)],
                env=_environment(site),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[other.fileno()],
                start_new_session=True,  # Ctrl-C reaches it through here alone
            )
        other.close()  # so that its end is seen as the end of the pipe

    def ask(self, task: str, *arguments: Any) -> Any:
        """The answer to a task; see `compare_worker.Worker`.

        Raises:
            Refused: the worker says why not.
            WorkerFailed: it is dead, or silent for too long.
        """
        try:
            self.pipe.send((task, arguments))
            if not self.pipe.poll(PATIENCE_S):
                raise WorkerFailed(f"{self.side}: no answer to {task} in {PATIENCE_S:.0f} s")
            done, answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            status = self.process.wait()
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
            raise WorkerFailed(f"{self.side}: the worker died ({how}):\n{tail}") from error
        if not done:
            raise Refused(f"{self.side}: {answer}")
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def _python() -> list[str]:
    # -S: no .pth files, of which that of an editable installation would put its package first
    return [sys.executable, "-S"]


def _environment(site: Path) -> dict[str, str]:
    """A process that imports that package, and this checkout's bench."""
    path = [str(site), str(machine.REPOSITORY), *(p for p in sys.path if p)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@contextlib.contextmanager
def workers(
    sites: Mapping[str, Path], cores: Sequence[int], threads: int, device: str
) -> Iterator[dict[str, Worker]]:
    """A process for each side, with a reconstructor of its package."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pair = {}
        for side, site in sites.items():
            pair[side] = Worker(side, site, cores, Path(folder) / f"{side}.log")
            stack.callback(pair[side].close)
        for side, worker in pair.items():
            about = worker.ask("open", threads, device)
            if not Path(about["file"]).resolve().is_relative_to(sites[side].resolve()):
                raise WorkerFailed(f"{side}: imports {about['file']}, not what was built")
        yield pair


START = """
import os, sys, time
cores = [int(core) for core in sys.argv[2].split(",")]
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cores)
began = time.perf_counter()
import extreme3d_fast
imported = time.perf_counter()
options = {} if sys.argv[3] == "cpu" else {"device": sys.argv[3]}
extreme3d_fast.Reconstructor(threads=int(sys.argv[1]), **options)
print(imported - began, time.perf_counter() - imported)
"""


def start_up(
    sites: Mapping[str, Path], cores: Sequence[int], threads: int, device: str
) -> dict[str, list[tuple[float, float]]]:
    """ms that a new process takes to import the package, and to make a reconstructor. Files are in
    the system's cache: the first round does not count."""
    arguments = [str(threads), ",".join(map(str, cores)), device]
    taken: dict[str, list[tuple[float, float]]] = {"import": [], "open": []}
    for round_ in range(-1, STARTS):
        ms = {}
        for side in _order(round_):
            done = subprocess.run(
                [*_python(), "-c", START, *arguments],
                env=_environment(sites[side]),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                said = "\n".join(done.stderr.splitlines()[-LOG_TAIL:])
                raise WorkerFailed(f"{side}: cannot be opened:\n{said}")
            # the last line: a package may say something itself
            ms[side] = [1e3 * float(s) for s in done.stdout.splitlines()[-1].split()]
        if round_ >= 0:
            for name, pair in zip(taken, zip(ms["base"], ms["head"], strict=True), strict=True):
                taken[name].append(pair)
    return taken


def _order(turn: int) -> tuple[str, ...]:
    """Who is first in a turn: a machine whose speed drifts slows both alike."""
    return SIDES[:: -1 if turn % 2 else 1]


# === Measuring ===


def measure(pair: Mapping[str, Worker], photos: Sequence[str], rounds: int) -> dict[str, Any]:
    """Each photo once to warm up and to see what comes out, then `rounds` times against the clock.

    Returns:
        about, of each side; results and failed, by photo; ms, by photo a list of what both sides
        took for each stage one after the other; and fullest, the photo of most stages.
    """
    results: dict[str, Any] = {}
    failed: dict[str, dict[str, str]] = {}
    named = {photo: Path(photo).name or "astronaut" for photo in photos}
    for photo, name in named.items():
        got = {}
        for side, worker in pair.items():
            try:
                got[side] = worker.ask("reconstruct", photo, True)
            except Refused as error:
                failed.setdefault(name, {})[side] = str(error)
        if len(got) == len(pair):
            results[name] = difference(got["base"], got["head"])
    if not results:
        raise WorkerFailed(f"no photo came out of both: {failed}")
    ms: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in results}
    for round_ in range(rounds):
        for turn, (photo, name) in enumerate((p, n) for p, n in named.items() if n in results):
            answers = {side: pair[side].ask("reconstruct", photo) for side in _order(round_ + turn)}
            ms[name].append({side: answer["ms"] for side, answer in answers.items()})
        _say(f"round {round_ + 1} of {rounds}")
    return {
        "about": {side: worker.ask("about") for side, worker in pair.items()},
        "results": results,
        "failed": failed,
        "ms": ms,
        "fullest": max(
            (photo for photo, name in named.items() if name in results),
            key=lambda photo: len(ms[named[photo]][0]["head"]),
        ),
    }


def measure_operations(
    pair: Mapping[str, Worker], photo: str
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, dict[str, str]]]:
    """ms of each core operation that both have, and why a side lacks others. Each side works on
    what its own pipeline hands to the operation."""
    names: dict[str, list[str]] = {}
    missing: dict[str, dict[str, str]] = {}
    for side, worker in pair.items():
        try:
            told = worker.ask("record", photo)
        except Refused as error:
            return {}, {side: {"all": str(error)}}
        names[side], missing[side] = told["names"], told["missing"]
    taken: dict[str, list[tuple[float, float]]] = {}
    for name in names["base"]:
        if name not in names["head"]:
            continue
        # warms up, too; as often on both sides
        once = min(worker.ask("operation", name, 1) for worker in pair.values())
        loops = max(1, round(SAMPLE_MS / max(once, 1e-4)))
        taken[name] = []
        for round_ in range(OPERATION_ROUNDS):
            ms = {side: pair[side].ask("operation", name, loops) for side in _order(round_)}
            taken[name].append((ms["base"], ms["head"]))
    _say(f"{len(taken)} operations")
    return taken, missing


def difference(base: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """How far two results of a photo are apart: vertex by vertex where the meshes are alike, else
    from each vertex to the nearest of the other mesh, mm."""
    a, b = (np.asarray(side["vertices"], np.float64) for side in (base, head))
    alike = np.array_equal(base["faces"], head["faces"]) and len(a) == len(b)
    gap = np.linalg.norm(a - b, axis=1) if alike else _nearest(a, b)
    noted = [set(side["warnings"]) for side in (base, head)]
    return {
        "vertices": [len(a), len(b)],
        "same_faces": alike,
        "median_mm": None if gap is None else round(float(np.median(gap)), 6),
        "max_mm": None if gap is None else round(float(gap.max()), 6),
        "warnings_only_in_base": sorted(noted[0] - noted[1]),
        "warnings_only_in_head": sorted(noted[1] - noted[0]),
    }


def _nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Distances both ways; None without scipy."""
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        return None
    return np.concatenate([cKDTree(a).query(b)[0], cKDTree(b).query(a)[0]])


# === Judging ===


def by_stage(ms: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> dict[str, Pairs]:
    """Pairs of each stage that both sides have, by photo; the total last."""
    stages: dict[str, dict[str, list[tuple[float, float]]]] = {}
    turns = [turn for taken in ms.values() for turn in taken]
    for name in _names(turns, "head"):
        for photo, taken in ms.items():
            pairs = [
                (turn["base"][name], turn["head"][name])
                for turn in taken
                if name in turn["base"] and name in turn["head"]
            ]
            if pairs:
                stages.setdefault(name, {})[photo] = pairs
    return stages


def unpaired(
    ms: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]],
) -> dict[str, dict[str, Any]]:
    """Stages that one side alone has, with their ms."""
    turns = [turn for taken in ms.values() for turn in taken]
    names = {side: _names(turns, side) for side in SIDES}
    alone = {"base": ("base", "head"), "head": ("head", "base")}
    return {
        side: {
            name: quartiles([turn[side][name] for turn in turns if name in turn[side]])
            for name in names[own]
            if name not in names[other]
        }
        for side, (own, other) in alone.items()
    }


def _names(turns: Sequence[Mapping[str, Mapping[str, float]]], side: str) -> list[str]:
    """Stages of one side in their order, which the run of most stages has; the total last."""
    longest = sorted((turn[side] for turn in turns), key=len, reverse=True)
    names = dict.fromkeys(name for row in longest for name in row)
    return [*(name for name in names if name != "total"), "total"]


def judged(pairs: Pairs, floor_ms: float) -> dict[str, Any]:
    """Both sides' times, how they compare, and whether it is worth a word."""
    base, head = (np.array([p[i] for taken in pairs.values() for p in taken]) for i in (0, 1))
    before, after, paired = quartiles(base), quartiles(head), ratios(head, base)
    low, high = interval([[h / b for b, h in taken] for taken in pairs.values()])
    gap = float(np.median(head - base))
    ratio = float(np.median(head / base))
    verdict = "same"
    if ratio > WARN_RATIO and gap > floor_ms:
        verdict = "slower"
    if ratio < 1 / WARN_RATIO and gap < -floor_ms:
        verdict = "faster"
    return {
        "base": before,
        "head": after,
        "ratio_of_medians": round(float(np.median(head) / np.median(base)), 4),
        "paired_ratio": {**paired, "low": low, "high": high},
        "difference_ms": round(gap, 4),
        "verdict": verdict,
        "significant": low is not None and high is not None and not low <= 1 <= high,
    }


def interval(groups: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Bootstrapped 95 % interval of the median of all values; None for too few.

    Values of a group (a photo's) are not independent of each other: groups are drawn first, then
    values of each.
    """
    sizes = np.array([len(group) for group in groups])
    if sizes.sum() < LEAST_PAIRS:
        return None, None
    values, first = np.concatenate(groups), np.cumsum(sizes) - sizes
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(groups), (RESAMPLES, len(groups)))[..., None]
    inside = rng.random((RESAMPLES, len(groups), sizes.max())) * sizes[drawn]
    medians = np.median(values[first[drawn] + inside.astype(int)].reshape(RESAMPLES, -1), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _rows(report: Mapping[str, Any]) -> dict[str, Any]:
    """All that is judged, by its title."""
    operations = {f"op {name}": row for name, row in report["operations"].items()}
    return {**report["start"], **operations, **report["stages"]}


def _warned(report: Mapping[str, Any], verdict: str) -> list[str]:
    """Names of rows with that verdict, as far as they are more than chance."""
    rows = _rows(report).items()
    return [name for name, row in rows if row["verdict"] == verdict and row["significant"]]


# === For people ===


def table(report: Mapping[str, Any]) -> str:
    """The report for people: what to know first comes last, where a terminal shows it."""
    head = f"{'ms, quartiles':<16}{'base':>27}{'head':>27}{'ratio':>7}"
    lines = [f"{head}  {'head / base in pairs [95 %]':<36}"]
    for name, row in _rows(report).items():
        lines.append(_line(name, row))
    for side, stages in report["not_in_both"].items():
        lines += [f"{name:<16} only in {side}: {spread(q)} ms" for name, q in stages.items()]
    for side, missing in report["operations_missing"].items():
        lines += [f"op {name} not in {side}: {why}" for name, why in missing.items()]
    lines.append(
        "n.s.: the interval of the paired ratio spans 1, or there are fewer than "
        f"{LEAST_PAIRS} pairs; ratio: of the medians. Of 20 intervals one is wrong by "
        "chance: repeat before you believe a lone warning"
    )
    lines += _of_results(report["results"])
    for name, why in report["failed"].items():
        lines += [f"{name} left out: {text}" for text in why.values()]
    memory = report["peak_memory_mb"]
    lines.append(f"peak memory {memory['base']:.0f} MB, then {memory['head']:.0f} MB")
    about, watch = report["machine"], report["watch"]
    lines += [
        f"{len(report['results'])} of {report['photos']} photos, rounds after one to warm up: "
        f"{report['rounds']}, {report['threads']} threads on as many cores, {report['device']}",
        f"{about['cpu']}, {about['cores']} cores, {watch['frequency_mhz']} MHz, load "
        f"{watch['load_before']} before and {watch['load_after']} after",
        *(f"{side} {report[side]['title']}{_networks(report[side])}" for side in SIDES),
    ]
    if report["same_sources"]:
        lines.append("both have the same sources: what differs is chance")
    lines += [machine.headline(text, watch) for text in _verdicts(report)]
    return "\n".join(lines)


def _line(name: str, row: Mapping[str, Any]) -> str:
    paired = row["paired_ratio"]
    ratio = spread(paired, ".3f")
    if paired["low"] is not None:
        ratio += f" [{paired['low']:.3f}-{paired['high']:.3f}]"
    word = "" if row["verdict"] == "same" else row["verdict"]
    chance = "" if row["significant"] else "n.s."
    both = f"{spread(row['base']):>27}{spread(row['head']):>27}"
    line = f"{name:<16}{both}{row['ratio_of_medians']:>7.2f}  {ratio:<36} {word} {chance}"
    return line.rstrip()


def _networks(side: Mapping[str, Any]) -> str:
    return f", networks: {side['runtime']}" if side.get("runtime") else ""


def _of_results(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What changed in the answers."""
    same = [name for name, r in results.items() if r["same_faces"] and r["max_mm"] == 0]
    lines = [f"results: equal to the last bit on {len(same)} of {len(results)} photos"]
    others = {name: r for name, r in results.items() if name not in same}
    worst = sorted(others.items(), key=lambda item: -(item[1]["max_mm"] or 0.0))
    for name, r in worst[:MOST_LISTED]:
        base, head = r["vertices"]
        apart = "how far they are apart takes scipy (pip install .[bench])"
        if r["max_mm"] is not None:
            apart = f"median {r['median_mm']:.4f} mm, at most {r['max_mm']:.4f} mm apart"
        way = "" if r["same_faces"] else ", to the nearest vertex: the meshes differ"
        lines.append(f"  {name}: {base} then {head} vertices, {apart}{way}")
    if len(worst) > MOST_LISTED:
        lines.append(f"  and {len(worst) - MOST_LISTED} more")
    for name, r in results.items():
        for side in SIDES:
            lines += [f"  {name}: only {side} warns: {w}" for w in r[f"warnings_only_in_{side}"]]
    return lines


def _verdicts(report: Mapping[str, Any]) -> list[str]:
    rows = _rows(report)
    total = rows["total"]["paired_ratio"]
    between = "" if total["low"] is None else f", 95 % {total['low']:.3f}-{total['high']:.3f}"
    lines = [f"head takes {total['median']:.3f} of the base's time (median of pairs{between})"]
    for word, verdict in (("WARNING slower", "slower"), ("faster", "faster")):
        for name in _warned(report, verdict):
            row = rows[name]
            lines.append(
                f"{word}: {name}, x {row['paired_ratio']['median']:.2f}, "
                f"{row['difference_ms']:+.2f} ms"
            )
    chance = [name for name, r in rows.items() if r["verdict"] == "slower" and not r["significant"]]
    if chance:
        lines.append(f"slower, but not significantly, take more rounds: {', '.join(chance)}")
    elif not _warned(report, "slower"):
        lines.append(
            f"nothing is slower by more than {WARN_RATIO - 1:.0%} and {report['floor_ms']} ms "
            f"({START_FLOOR_MS:.0f} ms in starting, {OPERATION_FLOOR_MS} ms in an operation)"
        )
    return lines
