"""Faces a second, latency, cold start and memory, on real photos of several sizes and coverings.

Each row is measured in a fresh process on pinned cores. Photos come as JPEG files, decoding counted
(read from the system's cache: no disk is measured), and as arrays of the same pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import cold_start, frames, gpu, machine, timing
from bench.options import positive
from bench.pasting import Occluders
from bench.processes import fresh
from bench.stages import find_photos
from bench.stats import quartiles
from bench.tables import cell

NAME = "throughput"
HELP = "faces/s and latency by size of photo and covering; cold start, memory"

LEVELS = (15, 30, 60)  # % of the face's box that cut-outs cover, beside what the photo has
MAIN = "1080p"  # coverings, the cold start and the headline are of this size
SEED = 0
COLD_STARTS = 7
WAYS = ("reconstruct", "batch", "stream")
SOURCES = ("file", "array")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--batch", type=positive, default=8, metavar="N", help="photos a call (default: 8)"
    )
    parser.add_argument(
        "--threads", type=positive, default=2, metavar="N", help="and cores (default: 2)"
    )
    parser.add_argument(
        "--lanes", type=positive, metavar="N", help="photos at once on a GPU (default: 4)"
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="default: 3")
    parser.add_argument("--quick", action="store_true", help="two photos, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")


def run(options: argparse.Namespace) -> int:
    """Measure row by row, printing each as it is done."""
    from extreme3d_fast.errors import DeviceUnavailable, InvalidImage

    if options.device == "cpu" and (options.lanes or 1) > 1:
        raise SystemExit("--lanes needs --device cuda: the CPU works on one photo at a time")
    if options.threads > len(machine.cores()):
        raise SystemExit(
            f"--threads {options.threads}: this process may use {len(machine.cores())} cores"
        )
    photos = find_photos(options.photos)[: 2 if options.quick else None]
    report: dict[str, Any] = {
        "command": NAME,
        "machine": machine.describe(),
        "device": options.device,
        "pinned": machine.pin(options.threads),  # fresh processes inherit it
        "threads": options.threads,
        "lanes": options.lanes or (1 if options.device == "cpu" else 4),
        "batch": min(options.batch, 2) if options.quick else options.batch,
        "rounds": 1 if options.quick else options.rounds,
        "quick": options.quick,
        "seed": SEED,
        "photos": len(photos),
    }
    try:
        with machine.Watch() as watch, tempfile.TemporaryDirectory() as folder:
            if options.device == "cuda":
                report["gpu"] = fresh(gpu.describe_gpu)  # whose context would take memory here
            report |= measure_all(photos, report, Path(folder), quick=options.quick)
    except (DeviceUnavailable, InvalidImage) as error:
        raise SystemExit(str(error)) from None
    except ModuleNotFoundError as error:  # of the astronaut
        raise SystemExit(f"{error}; pip install .[bench], or give --photos") from None
    report["watch"] = watch.report
    print("\n".join(summary(report)))
    machine.write(report, options.json)
    return 0 if report["cold_start"] else 1


def measure_all(
    photos: Sequence[str], about: Mapping[str, Any], folder: Path, *, quick: bool
) -> dict[str, Any]:
    """All rows, and the cold start with a photo in which a face was found."""
    subjects = [
        frames.Subject(Path(photo).name or "astronaut", frames.read(photo), box)
        for photo, box in zip(
            photos, fresh(frames.face_boxes, photos, about["threads"]), strict=True
        )
    ]
    occluders, skipped = find_occluders()
    cases = [(size, 0) for size in (("VGA", MAIN) if quick else frames.SIZES)]
    if occluders:
        cases += [(MAIN, level) for level in (LEVELS[1:2] if quick else LEVELS)]
    else:
        print(f"skipped: {skipped}")
    print("\n".join(heading(about)), flush=True)
    rows, cold = [], None
    for size, level in cases:
        files, row = frames.prepare(subjects, size, level, occluders, folder, SEED)
        row |= measured(files, row["lost"], about)
        rows.append(row)
        print("\n".join(lines(row)), flush=True)
        kept = [file for name, file in files.items() if name not in row["lost"]]
        if (size, level) == (MAIN, 0) and kept:
            starts = 2 if quick else COLD_STARTS
            cold = cold_start.measure(about["device"], about["threads"], kept[0], starts=starts)
    return {"rows": rows, "skipped": skipped, "cold_start": cold}


def measured(
    files: Mapping[str, str], lost: Mapping[str, str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Times of a row in one fresh process, and in another the memory of the photos one by one."""
    device, threads = about["device"], about["threads"]
    row = fresh(time_ways, files, device, threads, about["lanes"], about["batch"], about["rounds"])
    alone = cold_start.start(device, threads, list(files.values())) if files else None
    return {
        **row,
        "lost": {**lost, **row["lost"]},
        "peak_memory_mb": alone and alone["last_peak_memory_mb"],
    }


def find_occluders() -> tuple[Occluders | None, str | None]:
    """The cut-outs of the research data, or why there are none."""
    try:
        return Occluders(machine.data_folder() / "occluders"), None
    except SystemExit as error:
        return None, f"coverings ({error}; set EXTREME3D_DATA)"


def time_ways(
    files: Mapping[str, str], device: Any, threads: int, lanes: int, batch: int, rounds: int
) -> dict[str, Any]:
    """Latency and faces/s of each way of working on the same photos.

    Photos without a face are counted and timed apart: in `reconstruct_batch` one of them ends the
    whole call.
    """
    from extreme3d_fast import NoFaceFound, Reconstructor
    from extreme3d_fast.image_io import load_image

    reconstructor = Reconstructor(device=device, threads=threads, lanes=lanes)
    lost: dict[str, str] = {}
    took: dict[str, float] = {}
    for name, file in [*list(files.items())[:1], *files.items()]:  # the first one also loads
        started = time.perf_counter()
        try:
            reconstructor.reconstruct(file)
        except NoFaceFound as error:
            lost[name] = str(error)
        took[name] = 1e3 * (time.perf_counter() - started)
    kept = [file for name, file in files.items() if name not in lost]
    times = repeats(len(kept), batch, lanes)
    sources: dict[str, list[Any]] = {
        "file": kept * times,
        "array": [load_image(file) for file in kept] * times,  # the same pixels
    }
    latency: dict[str, list[list[float]]] = {source: [] for source in SOURCES}

    def one_by_one(source: str) -> None:
        taken = []
        for photo in sources[source]:
            # A face is made of host arrays, also of a GPU, which has therefore finished by then: no
            # other synchronisation is needed inside the timed region.
            started = time.perf_counter()
            reconstructor.reconstruct(photo)
            taken.append(1e3 * (time.perf_counter() - started))
        latency[source].append(taken)

    def batches(source: str) -> None:
        work = sources[source]
        for begin in range(0, len(work), batch):
            reconstructor.reconstruct_batch(work[begin : begin + batch])

    def stream(source: str) -> None:
        for _ in reconstructor.stream(sources[source]):
            pass

    calls = {
        f"{way} {source}": lambda call=call, source=source: call(source)
        for way, call in zip(WAYS, (one_by_one, batches, stream), strict=True)
        for source in SOURCES
    }
    # a GPU's lane loads with its first photo, and records with its second
    warm_up = 1 if device == "cpu" else 2
    with machine.Watch() as watch:
        passes = timing.in_turn(calls, rounds=rounds if kept else 0, warm_up=warm_up)
    n = len(sources["file"])
    return {
        "lost": lost,
        "lost_ms": quartiles([took[name] for name in lost]),
        "photos_a_pass": n,
        "latency_ms": {s: percentiles(latency[s][warm_up:]) for s in SOURCES},
        "faces_per_s": {
            name: quartiles([1e3 * n / ms for ms in taken]) for name, taken in passes.items()
        },
        "gpu_memory_mb": gpu.memory_used() if device == "cuda" else None,
        "runtime": reconstructor.runtime,
        "watch": watch.report,
    }


def repeats(photos: int, batch: int, lanes: int) -> int:
    """How often a pass does the photos: a whole batch, and lanes that are full most of the time."""
    least = max(batch, 4 * lanes if lanes > 1 else 1)
    return -(-least // max(photos, 1))


def percentiles(passes: Sequence[Sequence[float]]) -> dict[str, float | int | None]:
    """Quartiles, p95 and p99 of all passes. Of fewer than a hundred p99 is about the largest."""
    ms = [one for taken in passes for one in taken]
    p95, p99 = (round(float(p), 4) for p in np.percentile(ms, [95, 99])) if ms else (None, None)
    return {**quartiles(ms), "p95": p95, "p99": p99}


# === For people ===


def heading(about: Mapping[str, Any]) -> list[str]:
    return [
        f"{about['device']}, {about['threads']} threads on as many cores, {about['lanes']} lanes, "
        f"{about['photos']} photos, batches of {about['batch']}, {about['rounds']} rounds; "
        "!: the machine was loaded",
        f"{'':<25}{'ms of reconstruct':^38}{'faces/s':^27}{'peak':>6}",
        f"{'size':<6}{'covered':>7}{'lost':>5} {'from':<6}"
        f"{'p50 (quartiles)':>22}{'p95':>8}{'p99':>8}"
        f"{'one':>9}{'batch':>9}{'stream':>9}{'MB':>6}",
    ]


def lines(row: Mapping[str, Any]) -> list[str]:
    """One line for each source."""
    out = []
    for source in SOURCES:
        ms = row["latency_ms"][source]
        left = f"{row['size']:<6}{row['covered_percent']:>5} %{len(row['lost']):>5} {source:<6}"
        if not ms["n"]:
            out.append(f"{left}no face found in any photo")
            continue
        rates = "".join(f"{row['faces_per_s'][f'{way} {source}']['median']:>9.2f}" for way in WAYS)
        spread = timing.spread(ms, ".1f")
        peak = cell(row["peak_memory_mb"], 0, 6)
        loaded = " !" if machine.is_loaded(row["watch"]) else ""
        out.append(f"{left}{spread:>22}{ms['p95']:>8.1f}{ms['p99']:>8.1f}{rates}{peak}{loaded}")
    return out


def summary(report: Mapping[str, Any]) -> list[str]:
    """What comes below the rows."""
    out = []
    for row in report["rows"]:
        out += [f"lost of {_title(row)}: {name}: {why}" for name, why in row["lost"].items()]
        if row["lost_ms"]["n"]:
            out.append(f"  in no time above; to find none took {row['lost_ms']['median']:.0f} ms")
        if row["gpu_memory_mb"]:
            out.append(f"{row['gpu_memory_mb']} MB of the GPU in use after {_title(row)}")
    cold, about = report["cold_start"], report["machine"]
    if not cold:
        return [*out, f"no face in any {MAIN} photo: no cold start, no headline"]
    out += cold_start.lines(cold)
    main = next(r for r in report["rows"] if (r["size"], r["covered_percent"]) == (MAIN, 0))
    ms, rate = main["latency_ms"]["file"], main["faces_per_s"]
    return [
        *out,
        f"{about['cpu']}, {about['cores']} cores, {about['frequency_mhz']} MHz, load "
        f"{about['load']}; extreme3d_fast at {about['commit']}; networks: {main['runtime']}",
        machine.headline(
            f"{MAIN} files: p50 (quartiles) {timing.spread(ms, '.0f')} ms, p95 "
            f"{ms['p95']:.0f}, p99 {ms['p99']:.0f}, n {ms['n']}; faces/s: "
            + ", ".join(f"{way} {rate[f'{way} file']['median']:.2f}" for way in WAYS),
            main["watch"],
        ),
        machine.headline(
            f"first face {cold['ms']['start to first face']['median'] / 1e3:.2f} s after the start "
            "of the process",
            cold["watch"],
        ),
    ]


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['size']}, {row['covered_percent']} % covered"
