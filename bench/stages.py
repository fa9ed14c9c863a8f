"""Time of each stage of a reconstruction on real photos, and the memory that it takes."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine

NAME = "stages"
HELP = "ms per stage (p50, p95) and peak memory on real photos"

# What the paper took 0.6 s for: holes of the bump map found and filled from a reference. Photos
# without holes skip most of it.
SECTION_4_2 = ("holes", "identity", "search", "unroll", "references", "transfer", "fill")
TARGET_4_2_MS = 40.0  # on two cores
# What the paper took 50 s for: from the depth map with its details to the final mesh.
SECTION_4_3 = (
    "dense",
    "visibility",
    "sparse",
    "observed",
    "soft_symmetry",
    "registration",
    "completion",
    "zipper",
)
SUMS = ("section 4.2", "section 4.3", "total")  # come last
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="default: paper_photos of EXTREME3D_DATA, else scikit-image's astronaut",
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--markdown", action="store_true", help="print the table for the README")


def run(options: argparse.Namespace) -> int:
    """Measure in a process of its own, so that its peak memory is the reconstruction's."""
    photos = find_photos(options.photos)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measured = pool.apply(measure, (photos, options.repeat, options.threads))
    report = {
        "command": NAME,
        "machine": machine.describe(),
        "threads": options.threads,
        "repeat": options.repeat,
        "photos": len(photos),
        "failed": measured["failed"],
        "stages": summarize(measured["timings"]),
        "peak_memory_mb": measured["peak_memory_mb"],
        "import_memory_mb": measured["import_memory_mb"],
        "vertices": measured["vertices"],
    }
    print(table(report, markdown=options.markdown))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if measured["timings"] else 1


def find_photos(folder: Path | None) -> list[str]:
    """Paths of the photos; an empty string stands for the astronaut."""
    if folder is None:
        data = Path(os.environ.get("EXTREME3D_DATA", machine.REPOSITORY.parent / "shared" / "data"))
        folder = data / "paper_photos"
        if not folder.is_dir():
            return [""]
    # The paper's photos lie among maps named after them: 07.jpg beside 07_mask.png.
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    names = {p.stem for p in found}
    photos = [str(p) for p in found if p.stem.split("_")[0] not in names - {p.stem}]
    if not photos:
        raise SystemExit(f"no photos in {folder}")
    return photos


def measure(photos: Sequence[str], repeat: int, threads: int) -> dict[str, Any]:
    """Reconstruct each photo `repeat` times, after one run that does not count."""
    from extreme3d_fast import NoFaceFound, Reconstructor

    reconstructor = Reconstructor(threads=threads)
    import_memory = peak_memory_mb()
    timings: list[dict[str, float]] = []
    failed: dict[str, str] = {}
    vertices: list[int] = []
    for round_ in range(repeat + 1):
        for photo in photos[: 1 if round_ == 0 else None]:
            source = photo or machine.astronaut()
            started = time.perf_counter()
            try:
                face = reconstructor.reconstruct(source)
            except NoFaceFound as error:
                failed[Path(photo).name] = str(error)
                continue
            total = (time.perf_counter() - started) * 1e3
            if round_ > 0:
                timings.append({**face.timings, "total": total})
                vertices.append(len(face.vertices))
    return {
        "timings": timings,
        "failed": failed,
        "vertices": int(np.median(vertices)) if vertices else 0,
        "import_memory_mb": round(import_memory, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    try:  # VmHWM starts with the program; ru_maxrss may include the parent's at the fork
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def of_section_4_2(timings: Mapping[str, float]) -> float | None:
    """ms of section 4.2 in a run; None where nothing was filled from a reference."""
    if not {"search", "transfer"} <= set(timings):
        return None
    return sum(timings.get(stage, 0.0) for stage in SECTION_4_2)


def summarize(timings: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """p50 and p95 of each stage in ms over the runs that have it, of section 4.2 where something
    was filled from a reference, of section 4.3, and of all together."""
    rows = []
    for row in timings:
        filling = of_section_4_2(row)
        sums = {} if filling is None else {"section 4.2": filling}
        sums["section 4.3"] = sum(row.get(stage, 0.0) for stage in SECTION_4_3)
        rows.append({**row, **sums})
    # the run of most stages has them in their order
    names = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    order = [n for n in names if n not in SUMS] + [n for n in SUMS if n in names]
    summary = {}
    for name in order:
        values = [row[name] for row in rows if name in row]
        p50, p95 = np.percentile(values, [50, 95])
        summary[name] = {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "n": len(values)}
    return summary


def table(report: Mapping[str, Any], *, markdown: bool = False) -> str:
    """The report for people."""
    about = report["machine"]
    lines = []
    if markdown:
        lines += ["| stage | p50 ms | p95 ms |", "| --- | ---: | ---: |"]
        lines += [f"| {n} | {s['p50']:.1f} | {s['p95']:.1f} |" for n, s in report["stages"].items()]
        lines.append("")
    else:
        lines.append(f"{'stage':<16}{'p50 ms':>10}{'p95 ms':>10}{'n':>6}")
        for name, s in report["stages"].items():
            lines.append(f"{name:<16}{s['p50']:>10.2f}{s['p95']:>10.2f}{s['n']:>6}")
    done = report["photos"] - len(report["failed"])
    if "section 4.2" in report["stages"]:
        lines.append(f"section 4.2: target {TARGET_4_2_MS:.0f} ms on two cores")
    lines += [
        f"{done} of {report['photos']} photos, {report['repeat']} runs each, "
        f"{report['vertices']} vertices in the median",
        f"peak memory {report['peak_memory_mb']:.0f} MB, of which {report['import_memory_mb']:.0f} "
        "MB before the first photo",
        f"{about['cpu']}, {about['cores']} cores, load {about['load']}, "
        f"{report['threads']} threads used",
        f"extreme3d_fast {about['versions']['extreme3d-fast']} at {about['commit']}, "
        f"Python {about['python']}, onnxruntime {about['versions']['onnxruntime']}",
    ]
    lines += [f"failed: {name}: {why}" for name, why in report["failed"].items()]
    return "\n".join(lines)
