"""Writes the numbers of README.md from the files in bench/results.

README.md marks what is generated, and a function here of the same name writes it:

    <!-- generated: speed -->
    ...
    <!-- end -->

To add a region, write a function that takes the results and returns Markdown, name it in REGIONS,
put its two marks into README.md and run `python -m bench readme`. A test runs `--check`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine

NAME = "readme"
HELP = "write README's numbers from bench/results, or check them"

README = machine.REPOSITORY / "README.md"
RESULTS = machine.REPOSITORY / "bench" / "results"
WIDTH = 132  # characters of a line of README's text
PAPER_4_2, PAPER_4_3 = "0.6 s", "50 s"  # what the paper says
AUTHORS_4_3 = "10.5 s"  # docs/reference_comparison.md
QUALITY = ("quality_cpu", "detail_cpu", "occlusion_cpu")
SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
REGION = re.compile(r"(?<=<!-- generated: )([\w-]+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


class NoResults(SystemExit):
    """A file of bench/results is not there."""


class Results(dict[str, Any]):
    """Files of bench/results by their name without suffix, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Any:
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise NoResults(f"README needs {path}, which is not there")
        report = json.loads(path.read_text())
        if report.get("quick"):
            raise SystemExit(f"{path} is of a run with --quick, which is not for README")
        self[name] = report
        return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if README is stale"
    )


def run(options: argparse.Namespace) -> int:
    """Write README, or say what is stale."""
    old = README.read_text()
    new = rendered(old, Results(RESULTS))
    if options.check and new != old:
        lines = (old.splitlines(), new.splitlines())
        print("\n".join(difflib.unified_diff(*lines, "README.md", "bench/results", lineterm="")))
        print("README.md is stale: run `python -m bench readme`")
        return 1
    if new != old:
        README.write_text(new)
    return 0


def rendered(text: str, results: Mapping[str, Any]) -> str:
    """The text with its regions written anew.

    Raises:
        SystemExit: a region has no function or stands there twice; one is not there, although its
            results are.
    """
    named = [match[1] for match in REGION.finditer(text)]
    if text.count("<!-- generated:") != len(named) or len(set(named)) != len(named):
        raise SystemExit("README.md marks a region twice, or without its end")
    for name in named:
        if name not in REGIONS:
            raise SystemExit(f"README.md marks the region {name}; there are {', '.join(REGIONS)}")
    for name in REGIONS:
        with contextlib.suppress(NoResults):
            if name not in named and REGIONS[name](results):
                raise SystemExit(f"README.md marks no region {name}, whose results are there")
    return REGION.sub(lambda m: f"{m[1]}{m[2]}{REGIONS[m[1]](results).rstrip()}\n", text)


# === What the regions are made of ===


def text(words: str) -> str:
    """A paragraph, in lines of README's width."""
    return textwrap.fill(" ".join(words.split()), WIDTH, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table, whose first columns are words; those after them are numbers and stand right."""
    lines = [head, ["---" if i < words else "---:" for i in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def link(name: str) -> str:
    """To a file of results."""
    return f"[{name}.json](bench/results/{name}.json)"


def count(n: int) -> str:
    """`three`, `29`, `122,836`."""
    return SMALL[n] if n < len(SMALL) else f"{n:,}"


def number(value: float | None, digits: int) -> str:
    """`2.60`, `-` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def cell(value: float | None, digits: int = 1) -> str:
    """A number, nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def each(values: Iterable[float | None], digits: int) -> str:
    """`1.0 / 2.6 / -`."""
    return " / ".join(number(value, digits) for value in values)


def spread(found: Mapping[str, Any], digits: int) -> str:
    """`12.3 (11.9–13.0)`: median and quartiles."""
    median, q1, q3 = (number(found[key], digits) for key in ("median", "q1", "q3"))
    return f"{median} ({q1}–{q3})"


def where(report: Mapping[str, Any]) -> str:
    """Cores and machine of times in words, with a warning if others used it too."""
    about = report["machine"]
    cpu = re.sub(r"\(R\)|\(TM\)| Processor| CPU", "", about["cpu"]).strip()
    return f"{count(about['cores'])} cores ({cpu}, load {about['load']}){caution(report)}"


def caution(report: Mapping[str, Any]) -> str:
    """What to know of times that were taken beside other work; files from before the machine was
    watched do not say."""
    watch = report.get("watch")
    if watch is None or not machine.is_loaded(watch):
        return ""
    others = watch["others"]
    share = "an unknown share" if others is None else f"{others:.0%}"
    return f" (**loaded machine, others used {share} of the cores: do not quote**)"


def quality(results: Mapping[str, Any], name: str) -> tuple[Any, Any, str]:
    """A table of `bench quality`, its report and file. All tables may be in the first file."""
    for file in QUALITY:
        with contextlib.suppress(NoResults, KeyError):
            return results[file]["tables"][name], results[file], file
    raise NoResults(f"README needs the table {name}, which none of {', '.join(QUALITY)} has")


def lost(value: str, n: int, of: int) -> str:
    """A value with how many are not in it."""
    return f"{value} ({n} of {of} lost)" if n else value


# === The regions ===


def speed(results: Mapping[str, Any]) -> str:
    """The stages of a reconstruction."""
    report = results["stages_cpu"]
    stages = report["stages"]
    photos = report["photos"] - len(report["failed"])
    filled = stages.get("section 4.2")  # nothing is, where nothing is hidden
    runs = stages["total"]
    # files from before it was written there lack it
    head = f"a head of {report['head_vertices']:,} vertices, " if "head_vertices" in report else ""
    about = f"""Median and 95th percentile over the {count(photos)} photos of the paper at hand,
        {count(report["repeat"])} runs each, crops of 500 × 500, {head}results of
        {count(report["vertices"])} vertices in the median; {count(report["threads"])} threads on
        {where(report)}. Peak memory
        {report["peak_memory_mb"]:.0f} MB, of which {report["import_memory_mb"]:.0f} MB before the
        first photo ({link("stages_cpu")})."""
    sums = ""
    if filled:
        sums = f""""section 4.2" is the sum of the stages from holes to filling where something is
            hidden ({filled["n"]} of the {runs["n"]} runs), for which the paper gives {PAPER_4_2}.
            """
    sums += f""""section 4.3" is the sum of the stages from dense mesh to zippering, for which the
        paper gives {PAPER_4_3}; the authors' released code takes {AUTHORS_4_3} in the median on
        such a machine."""
    columns = ["stage", "p50 ms", "p95 ms"]
    rows = [[name, f"{s['p50']:.1f}", f"{s['p95']:.1f}"] for name, s in stages.items()]
    with contextlib.suppress(NoResults, KeyError):
        other = results["stages_openvino"]
        columns.append("p50 ms, OpenVINO")
        rows = [[*row, cell(other["stages"].get(row[0], {}).get("p50"))] for row in rows]
        sums += f""" "OpenVINO" is a run with that package installed ({other["runtime"]};
            {link("stages_openvino")}{caution(other)})."""
    if "rates" in report:
        columns.append("floor ms")
        floors = (s.get("floor_ms") for s in stages.values())
        rows = [[*row, cell(ms, 2)] for row, ms in zip(rows, floors, strict=True)]
        sums += """ "floor" is what the bytes moved or the operations would take at the rates that
            the machine was measured to reach in the same run."""
    return "\n\n".join([text(about), table(columns, rows), text(sums)])


def gpu(results: Mapping[str, Any]) -> str:
    """Latency and throughput on a GPU."""
    report = results["gpu_h200"]
    total = report["latency"]["stages"]["total"]["p50"]
    graphs = [us for name, us in report["operations_us"].items() if name.startswith("graph ")]
    lanes, best = max(report["throughput"].items(), key=lambda item: item[1]["faces_per_s"])
    return text(
        f"""On an {report["gpu"]["name"]} a photo takes {total:.1f} ms in the median, of which the
        geometry takes {sum(graphs) / 1e3:.1f}, and {count(int(lanes))} warm lanes do
        {best["faces_per_s"]:.0f} faces a second{caution(report)} ([docs/gpu.md](docs/gpu.md),
        "Measured"; {link("gpu_h200")})."""
    )


def seams(results: Mapping[str, Any]) -> str:
    """How much the mesh folds where it is sewn."""
    report = results["seams_cpu"]
    on, around = report["seam"], report["surroundings"]
    return text(
        f"""Seams of the final mesh: the smooth normals at the two ends of an edge differ by
        {on["p50"]:.2f}° in the median (95th percentile {on["p95"]:.2f}°) along seams, whose edges
        are those of the head model, and by {around["p50"]:.2f}° ({around["p95"]:.2f}°) around them,
        where edges are half as long ({link("seams_cpu")})."""
    )


FOUNDATIONS = ("ours", "MediaPipe")
POSE_BINS = ("0-15", "30-45", "60-75", "75-90")


def foundations(results: Mapping[str, Any]) -> str:
    """Pose and shape beside MediaPipe's."""
    drift, scans, pose, verification = (
        quality(results, name)[0] for name in ("occlusion", "scans", "pose", "verification")
    )
    time, timed, _ = quality(results, "time")
    shares = list(drift["columns"]["ours"])
    yaws = list(dict.fromkeys(key.split("/")[0] for key in scans["columns"]["ours"]))
    mean_face = np.mean([face["mean"] for face in scans["mean face"].values()])

    def drifts(of: str) -> list[str]:
        cells = [drift["columns"][c].values() for c in FOUNDATIONS]
        return [each((cell[of]["mean"] for cell in row), 1) for row in cells]

    def turns(column: str) -> str:
        bins = {b["bin"]: b for b in pose["sources"]["rendered scans"][column]}
        return " / ".join(
            lost(number(b["mean"], 1), b["lost"], b["n"] + b["lost"])
            for b in (bins[name] for name in POSE_BINS)
        )

    def distances(column: str, covered: int) -> str:
        cells = [scans["columns"][column][f"{yaw}/{covered}"] for yaw in yaws]
        return " / ".join(
            lost(number(c["mean"]["mean"], 2), c["lost"], c["mean"]["n"] + c["lost"]) for c in cells
        )

    def same_person(column: str) -> str:
        views = verification["youtube"]["columns"][column]
        return each((views[view]["auc"] for view in ("clean", "hands")), 3)

    watched = time if "watch" in time else timed
    networks = f"{time['columns']['ours']['both networks']['median']:.1f}{caution(watched)}"
    rows = [
        [
            f"landmark drift with {' / '.join(shares)} % of the face box covered, % of its size",
            *drifts("drift"),
        ],
        ["rotation drift, degrees", *drifts("turn")],
        [
            f"photos lost, of {drift['photos']}",
            *(each((s["lost"] for s in drift["columns"][c].values()), 0) for c in FOUNDATIONS),
        ],
        [
            r"rotation error on rendered scans at \|yaw\| "
            f"{' / '.join(POSE_BINS).replace('-', '–')}°, degrees",
            *map(turns, FOUNDATIONS),
        ],
        [
            f"distance to real scans at yaw {' / '.join(yaws)}°, mm (the mean face: "
            f"{mean_face:.2f})",
            *(distances(column, 0) for column in FOUNDATIONS),
        ],
        ["the same with 30 % covered", *(distances(column, 30) for column in FOUNDATIONS)],
        [
            "same person or not by α, ROC-AUC, clean / behind hands",
            *map(same_person, FOUNDATIONS),
        ],
        [f"both networks, ms on {count(time['threads'])} threads", networks, ""],
    ]
    return table(["", *FOUNDATIONS], rows)


DETAIL = {  # title: column of the relief and authors' tables, and of the mask's
    "no relief or mask": ("foundation", "no mask"),
    "first version's rules": ("shading rule", "colour rule"),
    "shape from shading": ("shading", None),
    "network": ("network", "network"),
}
WHOLE_BAND = 0  # of the bands that bump maps are correlated in, the widest


def detail(results: Mapping[str, Any]) -> str:
    """Relief and face mask of each source."""
    relief, maps, masks = (
        quality(results, name)[0]["columns"] for name in ("relief", "authors", "mask")
    )

    def normals(column: str) -> str:
        return f"{relief[column]['all']['angle/gap in the band']['value']['mean']:.2f}"

    def correlation(column: str) -> str:
        return f"{maps[column][WHOLE_BAND]['median']:.2f}" if column in maps else ""

    def overlap(column: str | None) -> str:
        if column is None:
            return ""
        kinds = ("celebamask", "celebamask, covered")
        return each((masks[column][kind]["iou"]["mean"] for kind in kinds), 3)

    rows = [
        [
            "normals of drawn heads, degrees off all that our foundation lacks",
            *(normals(column) for column, _ in DETAIL.values()),
        ],
        [
            "correlation with the authors' bump maps",
            *(correlation(column) for column, _ in DETAIL.values()),
        ],
        [
            "IoU of the face mask, CelebAMask-HQ / with pasted occluders",
            *(overlap(mask) for _, mask in DETAIL.values()),
        ],
    ]
    return table(["", *DETAIL], rows)


FILLS = {  # title: column of the table of holes
    "references": "references, surface",
    "one reference, as in the paper": "1 reference, similarity",
    "mean of all references": "mean face",
    "smooth": "smooth",
}


def holes(results: Mapping[str, Any]) -> str:
    """What is put under pasted occluders."""
    report, _, file = quality(results, "holes")
    cells = [report["conditions"]["all"][column] for column in FILLS.values()]
    about = f"""Holes under pasted hands, masks and glasses on {count(report["photos"])} photos,
        against the bump of the uncovered photo ({link(file)}; docs/detail.md,
        "Holes"):"""
    rows = [
        ["RMS error, mm", *(f"{cell['rms']['mean']:.3f}" for cell in cells)],
        ["correlation of fine relief", *(f"{cell['fine']['mean']:.2f}" for cell in cells)],
    ]
    return "\n\n".join([text(about), table(["", *FILLS], rows)])


GROUPS = {  # of photos, as people call them
    "celebamask": "CelebAMask-HQ",
    "utkface": "UTKFace",
    "youtube_faces": "YouTube Faces",
    "fasseg_profile": "profiles of FASSEG",
    "masked_people": "people with masks",
    "paper_photos": "the paper's photos",
}


def completion(results: Mapping[str, Any]) -> str:
    """How often a photo gives a head, and whether its mesh is whole."""
    report, _, file = quality(results, "completion")

    def percent(share: Mapping[str, Any]) -> str:
        if share["value"] is None:
            return "-"
        low, value, high = (100 * share[key] for key in ("low", "value", "high"))
        return f"{value:.1f} ({low:.1f}–{high:.1f})"

    rows = [
        [
            GROUPS.get(name, name),
            str(group["done"]["n"]),
            *(percent(group[key]) for key in ("done", "valid", "warned")),
        ]
        for name, group in report["groups"].items()
    ]
    about = f"""Photos of which the face that is meant gave a head, and heads whose mesh is whole:
        finite, one piece, manifold, oriented, with no degenerate face and one border, on the neck;
        % and its 95 % interval ({link(file)}):"""
    head = ["photos", "n", "a head", "whole", "with a warning"]
    return "\n\n".join([text(about), table(head, rows)])


def throughput(results: Mapping[str, Any]) -> str:
    """Latency and faces a second by size of photo and covering."""
    report = results["throughput_cpu"]
    cold = report["cold_start"]
    first = "In no photo without covering a face was found, with which to start"
    if cold:
        ms = cold["ms"]
        first = f"""The first face comes {ms["start to first face"]["median"] / 1e3:.2f} s after the
            start of the process, of which {ms["import"]["median"] / 1e3:.2f} s are the import"""
    threads = count(report["threads"])
    about = f"""Throughput on {count(report["photos"])} photos in the frames of cameras, as JPEG
        files, rounds: {report["rounds"]}, {threads} threads on {where(report)}. "covered" is
        what pasted cut-outs hide of the face's box, "lost" are photos in which no face was found.
        {first} ({link("throughput_cpu")})."""
    rows = [
        [
            row["size"],
            f"{row['covered_percent']} %",
            spread(row["latency_ms"]["file"], 0),
            each((row["latency_ms"]["file"][key] for key in ("p95", "p99")), 0),
            each((row["faces_per_s"][f"{way} file"]["median"] for way in WAYS), 2),
            str(len(row["lost"])),
            number(row["peak_memory_mb"], 0),
        ]
        for row in report["rows"]
    ]
    head = [
        "photo",
        "covered",
        "ms, median (quartiles)",
        "p95 / p99",
        f"faces/s: {' / '.join(WAYS)}",
    ]
    return "\n\n".join([text(about), table([*head, "lost", "peak MB"], rows)])


WAYS = ("reconstruct", "batch", "stream")
FASTER = {"we win": "ours", "we lose": "theirs", "even": "neither", "unknown": "-"}


def peers(results: Mapping[str, Any]) -> str:
    """What a user would pick instead, wins and losses alike."""
    report = results["peers_cpu"]
    rows: list[list[str]] = []
    absent: dict[tuple[str, str, str], list[str]] = {}  # peer, work and why: with which threads
    for name, of_threads in report["comparisons"].items():
        for threads, held in of_threads.items():
            why_not = {**held.get("missing", {}), **held.get("failed_peers", {})}
            if "failed" in held:
                why_not["all"] = held["failed"]
            for peer, why in why_not.items():
                absent.setdefault((peer, name, " ".join(why.split())), []).append(threads)
            for peer, result in held.get("contenders", {}).items():
                if "ratio" not in result:
                    continue
                other = "" if result.get("answer", {}).get("agrees", True) else ", another answer"
                ratio = spread(result["ratio"], 2)
                ratio += " (loaded machine)" if machine.is_loaded(held["watch"]) else ""
                faster = FASTER[result["verdict"]] + other
                rows.append([name, threads, peer, result["versus"], ratio, faster])
    about = f"""The same work by others, in turn with ours: their time over ours, where more than 1
        is slower; {where(report)} ({link("peers_cpu")})."""
    head = ["work", "threads", "by", "beside", "time over ours (quartiles)", "faster"]
    parts = [text(about), table(head, rows, words=4)]
    if absent:
        said = (
            f"{peer} ({work}, threads: {' and '.join(threads)}): {why}"
            for (peer, work, why), threads in absent.items()
        )
        parts.append(text(f"Not run: {'; '.join(said)}."))
    return "\n\n".join(parts)


REGIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    region.__name__: region
    for region in (speed, gpu, seams, foundations, detail, holes, completion, throughput, peers)
}
