"""Revisions of the repository, each built by pip in a git worktree of its own and kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WORKING_TREE = "."  # the files as they are, changes that are not committed included
SHIPPED = ("pyproject.toml", "CMakeLists.txt", "cpp", "cuda", "python")  # what a build depends on
LOG_TAIL = 30  # lines of a failed build's log that are shown


class BuildFailed(Exception):
    """A revision does not exist or does not build; says why."""


@dataclass(frozen=True)
class Revision:
    """A state of the repository."""

    name: str  # as it was asked for
    commit: str  # a dangling one for a changed working tree
    sources: str  # hash of what a build depends on: revisions that share it are the same package
    changed: bool = False  # holds what is in no commit

    @property
    def title(self) -> str:
        """`main (1a2b3c4)`; `. (1a2b3c4+)` with changes."""
        return f"{self.name} ({self.commit[:7]}{'+' if self.changed else ''})"


def find(repository: Path, name: str) -> Revision:
    """The revision of that name; WORKING_TREE is the tree as it is.

    Raises:
        BuildFailed: there is no such revision, or no git.
    """
    if name == WORKING_TREE:
        commit, changed = _snapshot(repository)
    else:
        commit = _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        changed = False
    listed = _git(repository, "ls-tree", "-r", commit, "--", *SHIPPED)
    return Revision(name, commit, hashlib.sha256(listed.encode()).hexdigest()[:16], changed)


def _snapshot(repository: Path) -> tuple[str, bool]:
    """A commit of the working tree, and whether it differs from HEAD. Neither the index nor any
    branch learns of it; git collects it some day. Ignored files are not in it."""
    head = _git(repository, "rev-parse", "HEAD")
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(repository, "read-tree", head, extra=index)
        _git(repository, "add", "--all", extra=index)
        tree = _git(repository, "write-tree", extra=index)
    if tree == _git(repository, "rev-parse", f"{head}^{{tree}}"):
        return head, False
    who = {
        f"GIT_{role}_{key}": "bench"
        for role in ("AUTHOR", "COMMITTER")
        for key in ("NAME", "EMAIL")
    }
    commit = _git(repository, "commit-tree", tree, "-p", head, "-m", "Working tree", extra=who)
    return commit, True


def build(
    repository: Path,
    revision: Revision,
    cache: Path,
    *,
    defines: Sequence[str] = (),
    isolated: bool = True,
) -> Path:
    """Folder with the installed package of a revision; at once where the cache has it.

    Args:
        repository: any working tree of the repository.
        revision: what is built.
        cache: folder of earlier builds.
        defines: CMake definitions, NAME=VALUE.
        isolated: with build requirements that pip fetches, rather than those installed here.

    Raises:
        BuildFailed: with the end of the log.
    """
    recipe = [revision.sources, sys.version, platform.machine(), *defines, str(isolated)]
    recipe += [_compiler(), *(os.environ.get(name, "") for name in ("CFLAGS", "CXXFLAGS"))]
    key = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:16]
    site, log = cache / key, cache / f"{key}.log"
    if site.is_dir():
        return site
    cache.mkdir(parents=True, exist_ok=True)
    print(f"building {revision.title}, which takes minutes: {log}", file=sys.stderr, flush=True)
    with (
        worktree(repository, revision.commit) as sources,
        # beside its place, so that it takes it in one step
        tempfile.TemporaryDirectory(dir=cache) as unfinished,
    ):
        target = Path(unfinished) / "site"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
        pip += ["--no-warn-conflicts", "--target", str(target)]
        pip += [part for define in defines for part in ("-C", f"cmake.define.{define}")]
        pip += [] if isolated else ["--no-build-isolation"]
        # pip's own files go with the rest if it is interrupted
        status = _logged([*pip, str(sources)], log, {**os.environ, "TMPDIR": unfinished})
        if status:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
            raise BuildFailed(f"{revision.title} does not build (all of it: {log}):\n{tail}")
        with contextlib.suppress(OSError):  # another run was first
            target.rename(site)
    return site


@contextlib.contextmanager
def worktree(repository: Path, commit: str) -> Iterator[Path]:
    """A temporary git worktree of a commit, gone afterwards whatever happens."""
    with tempfile.TemporaryDirectory(prefix="extreme3d-bench-") as folder:
        path = Path(folder) / "tree"
        try:
            _git(repository, "worktree", "add", "--quiet", "--detach", str(path), commit)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            _git(repository, "worktree", "prune")


def _compiler() -> str:
    """Which compiler CMake will find: a build by another one is no equal."""
    name = os.environ.get("CXX", "c++")
    try:
        return subprocess.run([name, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return name


def _logged(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
    """Exit status of a command that writes to a log; it ends with this process, its children too.

    In a session of its own, so that Ctrl-C reaches it through here alone.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _git(repository: Path, *arguments: str, extra: dict[str, str] | None = None) -> str:
    try:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **(extra or {})},
        ).stdout.strip()
    except OSError as error:
        raise BuildFailed(f"git is needed: {error}") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or f"no revision {arguments[-1].removesuffix('^{commit}')}"
        raise BuildFailed(f"git {arguments[0]}: {said}") from error
