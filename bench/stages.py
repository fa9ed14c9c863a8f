"""Time of each stage of a reconstruction on real photos, its floor, and the memory that it takes.

A floor is the least that a stage can take on this machine, see bench/floors.py; `--scaling` tells
how times grow with pixels and vertices, see bench/scaling.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine, scaling, timing
from bench.floors import Floor
from bench.options import add_runtime, positive
from bench.processes import fresh
from bench.stats import quartiles

NAME = "stages"
HELP = "ms per stage, how far from its floor, and peak memory on real photos; --scaling"

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
BESIDE = ("crop", "texture")  # run beside other stages, where there are two threads
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="default: paper_photos of EXTREME3D_DATA, else scikit-image's astronaut",
    )
    parser.add_argument("--repeat", type=positive, default=3, metavar="N", help="default: 3")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="default: 2")
    add_runtime(parser)
    scaling.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Measure in processes of their own: the peak memory of the first is the reconstruction's."""
    photos = find_photos(options.photos)
    if options.scaling and (why := scaling.refusal(options)):
        print(why)
        return 2
    report: dict[str, Any] = {
        "command": f"{NAME} --scaling" if options.scaling else NAME,
        "machine": machine.describe(),  # of all its cores
        "pinned": machine.pin(options.threads),  # what starts below inherits it
    }
    if options.scaling:
        return run_scaling(options, scaling.some(photos), report)
    with machine.Watch() as watch:
        how = options.threads, options.runtime
        try:
            measured = fresh(measure, photos, options.repeat, *how)
        except ImportError as error:  # of --runtime
            raise SystemExit(str(error)) from None
        counted = fresh(count, photos, *how)
    report |= {
        "watch": watch.report,
        "threads": options.threads,
        "runtime": measured["runtime"],
        "repeat": options.repeat,
        "photos": len(photos),
        "failed": measured["failed"],
        "rates": counted["rates"],
        "stages": summarize(measured["timings"]),
        "peak_memory_mb": measured["peak_memory_mb"],
        "import_memory_mb": measured["import_memory_mb"],
        "vertices": measured["vertices"],
        "head_vertices": measured["head_vertices"],
    }
    beside = BESIDE if options.threads > 1 else ()
    floors = summarize_floors(
        measured["timings"], measured["timed"], counted["floors"], beside=beside
    )
    for name, of_stage in floors.items():
        report["stages"][name] |= of_stage
    print(table(report))
    machine.write(report, options.json)
    return 0 if measured["timings"] else 1


def run_scaling(options: argparse.Namespace, photos: list[str], about: Mapping[str, Any]) -> int:
    """Time by size, in a process of its own too."""
    sizes = options.sizes, options.levels, options.repeat, options.threads
    with machine.Watch() as watch:
        measured = fresh(scaling.measure, photos, *sizes)
    report = {
        **about,
        "watch": watch.report,
        "threads": options.threads,
        "repeat": options.repeat,
        "photos": [Path(photo).name or "astronaut" for photo in photos],
        **measured,
    }
    print(scaling.table(report))
    machine.write(report, options.json)
    return 0 if measured["pixels"]["results"] or measured["vertices"]["results"] else 1


def find_photos(folder: Path | None) -> list[str]:
    """Paths of the photos; an empty string stands for the astronaut."""
    if folder is None:
        folder = machine.data_folder() / "paper_photos"
        if not folder.is_dir():
            if importlib.util.find_spec("skimage") is None:
                raise SystemExit(
                    f"no photos in {folder}, and none of scikit-image: --photos DIR, or "
                    "pip install .[bench]"
                )
            return [""]
    if not folder.is_dir():
        raise SystemExit(f"no folder {folder}")
    # The paper's photos lie among maps named after them: 07.jpg beside 07_mask.png.
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    names = {p.stem for p in found}
    photos = [str(p) for p in found if p.stem.split("_")[0] not in names - {p.stem}]
    if not photos:
        raise SystemExit(f"no photos in {folder}")
    return photos


def measure(
    photos: Sequence[str], repeat: int, threads: int, runtime: str | None = None
) -> dict[str, Any]:
    """Reconstruct each photo `repeat` times, after one run that does not count."""
    from extreme3d_fast import NoFaceFound, Reconstructor

    reconstructor = Reconstructor(threads=threads, runtime=runtime)  # type: ignore[arg-type]
    import_memory = machine.peak_memory_mb()
    timings: list[dict[str, float]] = []
    timed: list[str] = []  # photo of each
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
                timed.append(photo)
                vertices.append(len(face.vertices))
    return {
        "timings": timings,
        "timed": timed,
        "failed": failed,
        "runtime": reconstructor.runtime,
        "vertices": int(np.median(vertices)) if vertices else 0,
        "head_vertices": reconstructor.head_model.skin_vertex_count,
        "import_memory_mb": round(import_memory, 1),
        "peak_memory_mb": round(machine.peak_memory_mb(), 1),
    }


def count(photos: Sequence[str], threads: int, runtime: str | None = None) -> dict[str, Any]:
    """Floors of each photo's stages, by the rates of the machine before and after counting."""
    from bench import floors
    from bench.workloads import capture
    from extreme3d_fast import NoFaceFound, Reconstructor

    owner = Reconstructor(threads=threads, runtime=runtime)  # type: ignore[arg-type]
    bfloat16 = "bf16" in owner.runtime
    rates = floors.measure_rates(threads, bfloat16=bfloat16)
    counts: dict[str, Mapping[str, Any]] = {}
    for photo in photos:
        try:
            captured = capture(photo or machine.astronaut(), owner=owner)
        except NoFaceFound:
            continue
        counts[photo] = floors.counts(captured)
    rates = floors.best_of(rates, floors.measure_rates(threads, bfloat16=bfloat16))
    return {
        "rates": rates.report(),
        "floors": {
            photo: {name: floors.floor(c, rates) for name, c in of_photo.items()}
            for photo, of_photo in counts.items()
        },
    }


def of_section_4_2(timings: Mapping[str, float]) -> float | None:
    """ms of section 4.2 in a run; None where nothing was filled from a reference."""
    if not {"search", "transfer"} <= set(timings):
        return None
    return sum(timings.get(stage, 0.0) for stage in SECTION_4_2)


def with_sums(row: Mapping[str, float]) -> dict[str, float]:
    """A run's stages and its sums: of section 4.2 where something was filled from a reference."""
    filling = of_section_4_2(row)
    sums = {} if filling is None else {"section 4.2": filling}
    sums["section 4.3"] = sum(row.get(stage, 0.0) for stage in SECTION_4_3)
    return {**row, **sums}


def summarize(timings: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """p50, p95 and quartiles of each stage in ms over the runs that have it, of section 4.2 where
    something was filled from a reference, of section 4.3, and of all together."""
    rows = [with_sums(row) for row in timings]
    # the run of most stages has them in their order
    names = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    order = [n for n in names if n not in SUMS] + [n for n in SUMS if n in names]
    summary = {}
    for name in order:
        values = [row[name] for row in rows if name in row]
        p50, p95 = np.percentile(values, [50, 95])
        summary[name] = {
            "p50": round(float(p50), 3),
            "p95": round(float(p95), 3),
            **quartiles(values),
        }
    return summary


def summarize_floors(
    timings: Sequence[Mapping[str, float]],
    timed: Sequence[str],
    floors: Mapping[str, Mapping[str, Floor]],
    *,
    beside: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """How far each stage is from its floor, run by run: floors differ from photo to photo.

    Args:
        timings: ms of each stage in each run.
        timed: photo of each run.
        floors: by photo and stage. That of a sum is the sum of its stages'.
        beside: stages that may run while others do: they are no part of the total's floor.
    """
    least: dict[str, list[float]] = {}
    ratio: dict[str, list[float]] = {}
    about: dict[str, list[Floor]] = {}
    for row, photo in zip(timings, timed, strict=True):
        known = {n: f.ms for n, f in floors.get(photo, {}).items() if f.ms is not None}
        known = with_sums({n: ms for n, ms in known.items() if n in row})
        known["total"] = sum(ms for n, ms in known.items() if n not in (*SUMS, *beside))
        for name, ms in with_sums(row).items():
            if known.get(name, 0.0) > 0:
                least.setdefault(name, []).append(known[name])
                ratio.setdefault(name, []).append(ms / known[name])
            if name in floors.get(photo, {}):
                about.setdefault(name, []).append(floors[photo][name])
    out: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([*least, *about]):
        bounds = Counter(f.bound for f in about.get(name, []))
        last = about[name][-1].why if name in about else "sum of its stages'"
        if name == "total" and beside:
            last += f" but {' and '.join(beside)}, which run beside others"
        out[name] = {
            "floor_ms": round(float(np.median(least[name])), 4) if name in least else None,
            "ratio": quartiles(ratio.get(name, [])),
            "bound": bounds.most_common(1)[0][0] if bounds else "sum",
            "counted": last,
        }
    return out


def table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    about = report["machine"]
    lines = [
        f"{'stage':<14}{'p50 ms':>9}{'p95 ms':>9}{'q1-q3':>16}{'floor ms':>10}{'ratio':>7}  "
        f"{'bound':<6}{'n':>4}  counted"
    ]
    lines += [_line(name, s) for name, s in report["stages"].items()]
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
        f"Python {about['python']}, networks: {report['runtime']}",
    ]
    if "rates" in report:
        copy, gemm = report["rates"]["copy_gb_s"], report["rates"]["gemm_gflop_s"]
        lines += [
            "floors: bytes by copies in a working set of that size, "
            + ", ".join(f"{size} {rate:.0f} GB/s" for size, rate in copy.items()),
            "floors: operations by NumPy's matrix product, "
            + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in gemm.items()),
        ]
    if "watch" in report and "total" in report["stages"]:
        total = report["stages"]["total"]
        text = f"{timing.spread(total, '.1f')} ms a photo, median and quartiles"
        lines.append(machine.headline(text, report["watch"]))
    lines += [f"failed: {name}: {why}" for name, why in report["failed"].items()]
    return "\n".join(lines)


def _line(name: str, s: Mapping[str, Any]) -> str:
    """A stage in the table; reports of before there were floors have less."""
    spread = f"{s['q1']:.2f}-{s['q3']:.2f}" if "q1" in s else "-"
    known = s.get("floor_ms") is not None
    least = f"{s['floor_ms']:.3f}" if known else "-"
    ratio = f"{s['ratio']['median']:.1f}" if known else "-"
    return (
        f"{name:<14}{s['p50']:>9.2f}{s['p95']:>9.2f}{spread:>16}{least:>10}{ratio:>7}  "
        f"{s.get('bound', '-'):<6}{s['n']:>4}  {s.get('counted', '')}".rstrip()
    )
