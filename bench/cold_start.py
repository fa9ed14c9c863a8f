"""Fresh interpreters up to their first face, and the memory of one that does more photos.

The files are in the system's cache: the process is cold, the disk is not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench import machine, timing
from bench.stats import quartiles

STEPS = ("import", "construct", "first photo")  # of `bench.first_face`
WHOLE = "start to first face"


def start(device: str, threads: int, photos: Sequence[str]) -> dict[str, Any]:
    """ms and peak memory after each step of one process, and peak memory after the last photo."""
    command = [sys.executable, "-m", "bench.first_face", device, str(threads)]
    started = time.perf_counter()
    with subprocess.Popen([*command, *photos], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = process.stdout.readline()
        whole = 1e3 * (time.perf_counter() - started)
        last = process.stdout.readline()
    if process.returncode or not last:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}: see above")
    told = json.loads(first)
    return {
        "ms": {**dict(zip(STEPS, told["ms"], strict=True)), WHOLE: whole},
        "peak_memory_mb": dict(zip(STEPS, told["peak_memory_mb"], strict=True)),
        "last_peak_memory_mb": json.loads(last)["peak_memory_mb"],
    }


def measure(device: str, threads: int, photo: str, *, starts: int) -> dict[str, Any]:
    """Quartiles over fresh processes, after one that compiles modules and fills the cache."""
    start(device, threads, [photo])
    with machine.Watch() as watch:
        runs = [start(device, threads, [photo]) for _ in range(starts)]
    return {
        **{
            key: {name: quartiles([run[key][name] for run in runs]) for name in runs[0][key]}
            for key in ("ms", "peak_memory_mb")
        },
        "starts": starts,
        "watch": watch.report,
    }


def lines(report: dict[str, Any]) -> list[str]:
    out = [f"cold start, ms (quartiles) of {report['starts']} fresh processes:"]
    for name, ms in report["ms"].items():
        peak = report["peak_memory_mb"].get(name, {}).get("median")
        memory = f"   peak memory {peak:.0f} MB by then" if peak else ""
        out.append(f"  {name:<20}{timing.spread(ms, '.0f'):>20}{memory}")
    return out
