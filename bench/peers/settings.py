"""What a run of the peers was asked for, and the inputs that its comparisons share."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.peers.contest import Missing
from bench.workloads import Capture, capture
from extreme3d_fast import NoFaceFound

# A photo whose hidden side is recovered and whose holes are filled has work for all comparisons.
NEEDED = ("rasterize", "fill", "soft_symmetry", "zipper")
TRIED = 10  # photos, in search of one that has


@dataclass(frozen=True)
class Settings:
    """All of it can be sent to another process."""

    photos: tuple[str, ...]  # paths; "" stands for the astronaut
    threads: int
    rounds: int
    quick: bool = False
    mediapipe: str | None = None  # an interpreter
    commands: Path | None = None  # a TOML file


def captured(settings: Settings, *needed: str) -> tuple[Capture, str]:
    """A reconstruction whose stages have been recorded, and the name of its photo.

    All comparisons look for all of `NEEDED` first, so that they work on the same photo.

    Raises:
        Missing: no photo has the stages needed.
    """
    second: tuple[Capture, str] | None = None
    for photo in settings.photos[:TRIED]:
        try:
            found = capture(source(photo), threads=settings.threads)
        except NoFaceFound:
            continue
        name = Path(photo).name or "scikit-image's astronaut"
        if all(stage in found.stages for stage in NEEDED):
            return found, name
        if second is None and all(stage in found.stages for stage in needed):
            second = found, name
    if second is None:
        raise Missing(f"none of the photos has {' and '.join(needed)}: give others by --photos")
    return second


def source(photo: str) -> Any:
    """What `Reconstructor.reconstruct` takes."""
    return photo or machine.astronaut()


def scratch() -> Path:
    """A folder that is gone when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="bench-peers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
