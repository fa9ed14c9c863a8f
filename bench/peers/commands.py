"""External commands from a TOML file, beside ours: from a photo on disk to a mesh on disk.

    [[command]]
    name = "their tool"
    command = ["python", "run.py", "{input}", "--out", "{output}"]  # or one string
    output = "face.obj"        # file that must be there afterwards, within {output}; default: any
    timing = "wall"            # the default, or what the command prints:
    # timing = { regex = 'took ([0-9.]+) ms', unit = "ms" }         # ms, s or us
    # input = "photo.jpg"      # default: the photos of the run, one a round; ours then gets it too
    # timeout = 600            # seconds
    # directory = "/their/tool"  # where it runs; default: where the TOML file is

{input} is a photo, {output} a folder that is empty before each run. No shell is involved.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.contest import INSTALL, Contender, Contest, Failed, Missing, OwnClock, each_in_turn
from bench.peers.settings import Settings, scratch

NAME = "commands"
HELP = "photo to mesh by external commands, of --commands"
THREADS = "most"  # they have threads of their own: run once, with --threads
PACKAGES = ()

IN_PROCESS, COMMAND_LINE = "ours, loaded", "ours, command line"
UNITS = {"ms": 1.0, "s": 1e3, "us": 1e-3}
KEYS = {"name", "command", "input", "output", "timing", "timeout", "directory"}
TIMEOUT_S = 600.0
TAIL = 300  # characters of what a failing command said last


@dataclass(frozen=True)
class Command:
    name: str
    words: tuple[str, ...]
    directory: Path
    input: str | None = None
    output: str | None = None
    regex: re.Pattern[str] | None = None  # its first group is the time
    unit: str = "ms"
    timeout: float = TIMEOUT_S


def contest(settings: Settings) -> Contest:
    from extreme3d_fast import Reconstructor

    if not settings.commands:
        raise Missing("give a TOML file by --commands; docs/peers.md has an example")
    commands = read_commands(settings.commands)
    folder = scratch()
    reconstructor = Reconstructor(threads=settings.threads)
    photos, faceless = [], 0
    if any(command.input is None for command in commands):
        on_disk = [_on_disk(photo, folder) for photo in settings.photos]
        photos = [photo for photo in on_disk if _why_no_face(reconstructor, photo) is None]
        faceless = len(on_disk) - len(photos)
    ours: dict[str, Contender] = {}
    peers, missing = [], {}
    for i, command in enumerate(commands):
        # a command with an input of its own is set against ours on that input
        inputs = [Path(command.input)] if command.input else photos
        why = None if photos else "in none of the photos we find a face: give others by --photos"
        if command.input:
            why = _why_no_face(reconstructor, inputs[0])
        if why:
            missing[command.name] = why
            continue
        make = _command_line if command.regex is None else _loaded
        # named as from the file's folder: reports need not tell where that is
        own = command.input and os.path.relpath(command.input, settings.commands.resolve().parent)
        our = make(reconstructor, inputs, folder / f"ours {i}", own)
        ours.setdefault(our.name, our)
        runner = Runner(command, folder / str(i))
        peers.append(
            Contender(
                command.name,
                each_in_turn(inputs, runner),
                "the whole command, its start included"
                if command.regex is None
                else f"what it prints as {command.regex.pattern!r}",
                our.name,
                clock=runner.clock,
            )
        )
    if not peers:
        raise Missing("; ".join(f"{name}: {why}" for name, why in missing.items()))
    return Contest(
        given=f"photos on disk, each to a mesh on disk: {len(photos)} in turn, or a command's own; "
        "what the meshes are like is not compared",
        ours=list(ours.values()),
        peers=peers,
        missing=missing,
        every=max(len(photos), 1),
        counts={"left out, for we find no face in them": faceless} if faceless else {},
    )


def read_commands(path: Path) -> list[Command]:
    """The commands of a file.

    Raises:
        SystemExit: it cannot be read, or says something that is not understood.
    """
    try:
        tables = _toml().loads(path.read_text()).get("command")
    except (OSError, ValueError) as error:  # a TOML error is a ValueError
        raise SystemExit(f"{path}: {error}") from error
    if not isinstance(tables, list) or not tables:
        raise SystemExit(f"{path}: expected [[command]] tables, found none")
    commands = [_command(table, path) for table in tables]
    names = [command.name for command in commands]
    if len(set(names)) < len(names):
        raise SystemExit(f"{path}: two commands have the same name")
    return commands


def _toml() -> Any:
    """Python has had it since 3.11."""
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise SystemExit(f"tomli is not there, which Python 3.10 needs: {INSTALL}") from error
    return tomllib


def _command(table: Mapping[str, Any], path: Path) -> Command:
    def wrong(what: str) -> SystemExit:
        return SystemExit(f"{path}: command {table.get('name', '?')}: {what}")

    unknown = set(table) - KEYS
    if unknown:
        raise wrong(f"no key {', '.join(sorted(unknown))}; there are {', '.join(sorted(KEYS))}")
    for key in ("name", "input", "output", "directory"):
        if key in table and not isinstance(table[key], str):
            raise wrong(f"{key} should be a string, is {table[key]!r}")
    if not table.get("name"):
        raise wrong("needs a name")
    words = table.get("command")
    words = shlex.split(words) if isinstance(words, str) else words
    if not isinstance(words, list) or not words or not all(isinstance(w, str) for w in words):
        raise wrong(f"command should be a string or a list of strings, is {words!r}")
    timeout = table.get("timeout", TIMEOUT_S)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0:
        raise wrong(f"timeout should be a positive number of seconds, is {timeout!r}")
    regex, unit = None, "ms"
    timing = table.get("timing", "wall")
    if timing != "wall":
        if not isinstance(timing, dict) or set(timing) - {"regex", "unit"} or "regex" not in timing:
            raise wrong(f'timing should be "wall" or {{ regex, unit }}, is {timing!r}')
        unit = timing.get("unit", "ms")
        if unit not in UNITS:
            raise wrong(f"unit should be one of {', '.join(UNITS)}, is {unit!r}")
        try:
            regex = re.compile(timing["regex"])
        except (re.error, TypeError) as error:
            raise wrong(f"regex {timing['regex']!r}: {error}") from error
        if regex.groups < 1:
            raise wrong(f"regex {regex.pattern!r} has no group (...) round the number")
    base = path.resolve().parent
    given = table.get("input")
    return Command(
        name=table["name"],
        words=tuple(words),
        directory=base / table.get("directory", "."),
        input=str(base / given) if given else None,
        output=table.get("output"),
        regex=regex,
        unit=unit,
        timeout=float(timeout),
    )


class Runner:
    """Runs a command on a photo; a run that fails has no time, and says why the first time."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.clock = OwnClock()
        self._worked = False

    def __call__(self, photo: Path) -> None:
        """Raises `Failed` unless an earlier run has worked: then there is something to report."""
        try:
            self.clock.add(run_command(self.command, photo, self.folder))
            self._worked = True
        except Failed:
            if not self._worked:
                raise
            self.clock.add(float("nan"))


def run_command(command: Command, photo: Path, folder: Path) -> float:
    """ms of one run.

    Raises:
        Failed: it does not start or end, reports failure, or leaves no output or time.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fill = {"{input}": str(photo), "{output}": str(folder)}
    words = [_filled(word, fill) for word in command.words]
    started = time.perf_counter()
    try:
        process = subprocess.Popen(
            words,
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"does not start: {error}") from error
    try:
        output, _ = process.communicate(timeout=command.timeout)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise Failed(f"not done after {command.timeout:g} s") from error
    except BaseException:  # told to end: the command has a session of its own, and would go on
        _end(process)
        raise
    ms = 1e3 * (time.perf_counter() - started)
    said = output.decode(errors="replace")
    if process.returncode:
        last = said[-TAIL:].strip() or "it said nothing"
        raise Failed(f"status {process.returncode}: {last}")
    written = folder / command.output if command.output else folder
    files = [written] if command.output else list(folder.rglob("*"))
    if not any(file.is_file() and file.stat().st_size for file in files):
        raise Failed(f"wrote nothing to {command.output or 'its folder {output}'}")
    if command.regex is None:
        return ms
    found = command.regex.search(said)
    if not found:
        raise Failed(f"printed nothing like {command.regex.pattern!r}")
    try:
        return float(found.group(1)) * UNITS[command.unit]
    except ValueError as error:
        raise Failed(f"printed {found.group(1)!r}, which is no number") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it has started, lest that slow the next."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def _filled(word: str, fill: Mapping[str, str]) -> str:
    for name, value in fill.items():
        word = word.replace(name, value)
    return word


def _on_disk(photo: str, folder: Path) -> Path:
    if photo:
        return Path(photo).resolve()
    import cv2

    from bench.machine import astronaut

    path = folder / "astronaut.png"
    cv2.imwrite(str(path), astronaut()[..., ::-1])
    return path


def _why_no_face(reconstructor: Any, photo: Path) -> str | None:
    """Why a photo gives no face; None if it gives one."""
    from extreme3d_fast import Extreme3DError

    try:
        reconstructor.reconstruct(photo)
    except (Extreme3DError, OSError) as error:
        return f"{photo.name}: {error}"
    return None


def _loaded(
    reconstructor: Any, photos: Sequence[Path], folder: Path, own: str | None = None
) -> Contender:
    """Ours as a library."""
    folder.mkdir()

    def loaded(photo: Path) -> None:
        reconstructor.reconstruct(photo).save(folder / "face.glb")

    return Contender(
        _named(IN_PROCESS, own),
        each_in_turn(photos, loaded),
        "photo read, reconstructed, GLB written, by a reconstructor that is there already",
    )


def _command_line(
    reconstructor: Any, photos: Sequence[Path], folder: Path, own: str | None = None
) -> Contender:
    """Ours as a command."""
    line = Command(
        name=COMMAND_LINE,
        words=(
            *(sys.executable, "-m", "extreme3d_fast", "reconstruct", "{input}", "-o", "{output}"),
            *("--format", "glb", "--threads", str(reconstructor.threads)),
        ),
        directory=Path.cwd(),
    )
    runner = Runner(line, folder)
    return Contender(
        _named(COMMAND_LINE, own),
        each_in_turn(photos, runner),
        "`extreme3d reconstruct`: the same as loaded, and Python, networks and model loaded",
        clock=runner.clock,
    )


def _named(name: str, own: str | None) -> str:
    return f"{name}, on {own}" if own else name
