"""Environments of their own for peers whose packages cannot live beside ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.peers.contest import Missing

MEDIAPIPE = "mediapipe==0.10.21"  # pins numpy<2; Python 3.9 to 3.12
HOW = (
    f"--make-environments DIR installs {MEDIAPIPE} there, or --mediapipe PYTHON names the "
    "interpreter of an environment that has it"
)


def make_mediapipe(folder: Path) -> str:
    """The interpreter of FOLDER/mediapipe, which is made if it is not there.

    Raises:
        SystemExit: it cannot be made; the installer has said why.
    """
    home = folder / "mediapipe"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    try:
        check_mediapipe(str(python))
    except Missing:
        print(f"installing {MEDIAPIPE} in {home}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", MEDIAPIPE], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{MEDIAPIPE} could not be installed in {home}: {error}") from error
        check_mediapipe(str(python))
    return str(python)


def check_mediapipe(python: str | None) -> str:
    """The interpreter, if it has the version of MediaPipe that we compare with.

    Raises:
        Missing: it has not, or there is none.
    """
    if not python:
        raise Missing(f"no environment: {HOW}")
    ask = "from importlib.metadata import version; print(version('mediapipe'))"
    try:
        asked = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{python} does not run ({error}): {HOW}") from error
    found = asked.stdout.strip()
    if asked.returncode or f"mediapipe=={found}" != MEDIAPIPE:
        raise Missing(f"{python} has mediapipe {found or '(none)'}, not {MEDIAPIPE}: {HOW}")
    return python
