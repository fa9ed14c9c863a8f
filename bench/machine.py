"""Where and with what a measurement was made: a number without it cannot be compared."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime")
LOADED = 0.05  # share of the cores that others may use before a number is no headline any more


def describe() -> dict[str, Any]:
    """CPU, cores, frequency, load, system, versions and commit."""
    import extreme3d_fast  # here, since it brings NumPy, whose threads start before a `pin` then

    return {
        "cpu": _cpu(),
        "cores": len(cores()),
        "frequency_mhz": frequency_mhz(),
        "load": _load(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            "extreme3d-fast": extreme3d_fast.__version__,
            **{name: _version(name) for name in PACKAGES},
        },
        "commit": _commit(),
    }


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(threads: int) -> list[int]:
    """Keeps this process, and those that it starts, on its first `threads` cores; returns them.

    Call it before anything starts threads of its own: those that run already stay where they are.
    """
    chosen = cores()[:threads]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)
    return chosen


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[list[int]]:
    """As `pin`, until the `with` block ends: what is started inside stays pinned, and its
    libraries start as many threads as they find cores."""
    before = cores()
    try:
        yield pin(threads)
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, before)


def frequency_mhz() -> float | None:
    """Mean frequency of the cores now; None where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        values = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        return None
    return round(sum(values) / len(values)) if values else None


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    try:  # VmHWM starts with the program; ru_maxrss may include the parent's at the fork
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def data_folder() -> Path:
    """Where the research data is looked for; it may not be there."""
    return Path(os.environ.get("EXTREME3D_DATA", REPOSITORY.parent / "shared" / "data"))


def write(report: Mapping[str, Any], path: Path | None) -> None:
    """The report as JSON, where that was asked for."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_without_nan(report), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    """None for what is no finite number, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    return value


class Watch:
    """What the machine did beside a measurement: `with Watch() as watch: ...; watch.report`.

    Others' use of the cores is what they were busy with less the time of this process and of its
    children that have ended by then. Time that a hypervisor gave to other machines counts as
    theirs. It is looked at over all cores, for one that is pinned to some is slowed by those beside
    it too, and over those that are measured on, for on a large machine one that is taken is a small
    share of all; the larger share counts.

    Args:
        measured: cores that are measured on; None: those of this process.
    """

    #: Once done: load before and after, frequency, shares of the cores that others used.
    report: dict[str, Any]

    def __init__(self, measured: Sequence[int] | None = None) -> None:
        self._measured = measured

    def __enter__(self) -> Watch:
        self._cores = cores() if self._measured is None else list(self._measured)
        self._before = _load(), _busy_seconds(), _own_seconds(), time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        load, busy, own, started = self._before
        now = _busy_seconds()
        own = _own_seconds() - own
        wall = max(time.perf_counter() - started, 1e-3)
        of_all = _others(busy, now, busy, own, wall)
        of_measured = _others(busy, now, self._cores, own, wall)
        shares = [share for share in (of_all, of_measured) if share is not None]
        self.report = {
            "load_before": load,
            "load_after": _load(),
            "others": max(shares, default=None),
            "others_of_all_cores": of_all,
            "others_of_measured_cores": of_measured,
            "frequency_mhz": frequency_mhz(),
        }


def is_loaded(watched: Mapping[str, Any]) -> bool:
    """Whether others used so much of the machine that its numbers are no headline."""
    others = watched.get("others")
    return others is None or others > LOADED


def headline(text: str, watched: Mapping[str, Any]) -> str:
    """The line of a report that people quote, with a warning if the machine was loaded."""
    if not is_loaded(watched):
        return text
    others = watched.get("others")
    used = "an unknown share" if others is None else f"{others:.0%}"
    return f"LOADED MACHINE, others used {used} of the cores, do not quote: {text}"


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _others(
    before: Mapping[int, float],
    after: Mapping[int, float],
    of: Collection[int],
    own: float,
    wall: float,
) -> float | None:
    """Share of some cores that others used.

    Args:
        before: s that each core had been busy then.
        after: s that each core has been busy by now.
        of: the cores.
        own: s of it that were ours.
        wall: s between the two.
    """
    if not of or not all(core in before and core in after for core in of):
        return None
    spent = sum(after[core] - before[core] for core in of) - own
    return round(max(spent, 0.0) / (len(of) * wall), 3)


def _busy_seconds() -> dict[int, float]:
    """CPU time of everything on each core, steal included; none where the system does not say."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    busy = {}
    for line in lines:
        if re.match(r"cpu\d", line):
            name, *ticks = line.split()
            user, nice, system, _idle, _wait, irq, soft, steal = (int(n) for n in ticks[:8])
            ticks_busy = user + nice + system + irq + soft + steal
            busy[int(name[3:])] = ticks_busy / os.sysconf("SC_CLK_TCK")
    return busy


def _own_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the repository, with a + where files differ from it."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def astronaut() -> Any:
    """scikit-image's public-domain portrait, (512, 512, 3) uint8 RGB."""
    import numpy as np
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)
