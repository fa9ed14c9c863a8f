"""One comparison: who takes part, what each time includes, whether the answers agree, who wins."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import numpy as np

from bench.stats import quartiles
from bench.timing import Call, in_turn, ratios, spread

T = TypeVar("T")

LEAST_ROUNDS = 3  # of fewer, quartiles say nothing
INSTALL = "pip install '.[bench]'"


class Missing(Exception):
    """A peer that cannot take part, and what would let it."""


class Failed(Exception):
    """A peer that gave nothing to measure, and why: no fault of our code."""


@dataclass(frozen=True)
class Agreement:
    """How far a peer's answer is from ours."""

    error: float
    tolerance: float
    unit: str
    note: str = ""

    @property
    def agrees(self) -> bool:
        return bool(self.error <= self.tolerance)

    def __str__(self) -> str:
        said = "same answer" if self.agrees else "OTHER ANSWER"
        sign = "<=" if self.agrees else "not <="
        about = f"; {self.note}" if self.note else ""
        return f"{said}: {self.error:.3g} {sign} {self.tolerance:.3g} {self.unit}{about}"


class OwnClock:
    """ms that calls took by a clock of their own: that of another process, without the pipe."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def add(self, ms: float) -> None:
        self._taken.append(ms)

    def last(self, n: int) -> list[float]:
        return self._taken[-n:]


@dataclass(frozen=True, eq=False)
class Contender:
    """Somebody who does the work."""

    name: str
    call: Call
    includes: str  # what is in its time, and what is not
    versus: str = ""  # name of ours that it is set against; ours have none
    agreement: Callable[[Any], Agreement] | None = None  # of what the call returns with our answer
    clock: OwnClock | None = None


@dataclass(frozen=True, eq=False)
class Contest:
    """All who do the same work on the same input."""

    given: str  # the input, in words and numbers
    ours: Sequence[Contender]
    peers: Sequence[Contender]
    missing: Mapping[str, str] = field(default_factory=dict)  # why some peers do not take part
    least_ms: float = 0.0  # of a sample; see `bench.timing.in_turn`
    every: int = 1  # rounds come in multiples of this: one for each photo
    most: int | None = None  # rounds, where somebody is slow
    counts: Mapping[str, Any] = field(default_factory=dict)  # to report beside the times


def load(module: str, package: str) -> Any:
    """An optional package.

    Raises:
        Missing: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that is not there
        raise Missing(f"{package} is not there ({error}): {INSTALL}") from error


def each_in_turn(items: Sequence[T], do: Callable[[T], Any]) -> Call:
    """Does the next item at each call, the first one after the last.

    Contenders of one contest are called equally often, so all are at the same item.
    """
    turns = itertools.cycle(items)
    return lambda: do(next(turns))


def gather(
    makers: Mapping[str, Callable[[], Iterable[Contender]]],
) -> tuple[list[Contender], dict[str, str]]:
    """Peers that can be made, and why the others cannot."""
    peers: list[Contender] = []
    missing = {}
    for title, make in makers.items():
        try:
            peers += make()
        except Missing as error:
            missing[title] = str(error)
        except Exception as error:  # a peer's own failure is a result, not ours to raise
            missing[title] = f"{type(error).__name__}: {error}"
    return peers, missing


def hold(contest: Contest, rounds: int) -> dict[str, Any]:
    """Let all do the work once, compare their answers, then time them in turn."""
    rounds = contest.every * -(-min(rounds, contest.most or rounds) // contest.every)
    answers: dict[str, Agreement | None] = {}
    failed = {}
    for contender in (*contest.ours, *contest.peers):
        try:
            answer = contender.call()
            answers[contender.name] = contender.agreement(answer) if contender.agreement else None
        except Exception as error:
            if contender in contest.ours:
                raise
            kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
            failed[contender.name] = f"{kind}{error}"
    taking_part = [c for c in (*contest.ours, *contest.peers) if c.name in answers]
    taken = in_turn({c.name: c.call for c in taking_part}, rounds=rounds, least_ms=contest.least_ms)
    for contender in taking_part:
        if contender.clock:
            taken[contender.name] = contender.clock.last(rounds)
    return {
        "given": contest.given,
        "rounds": rounds,
        "contenders": {c.name: _result(c, taken, answers[c.name]) for c in taking_part},
        "missing": dict(contest.missing),
        "failed_peers": failed,
        "counts": dict(contest.counts),
    }


def _result(
    contender: Contender, taken: Mapping[str, list[float]], answer: Agreement | None
) -> dict[str, Any]:
    ms = taken[contender.name]
    result: dict[str, Any] = {
        "includes": contender.includes,
        "ms": quartiles(ms),
        "shown": spread(ms),
        "failures": int(np.isnan(ms).sum()),
    }
    if not contender.versus:
        return result
    ratio = ratios(ms, taken[contender.versus])
    result |= {"versus": contender.versus, "ratio": ratio, "verdict": verdict(ratio)}
    if answer:
        result["answer"] = {
            "agrees": answer.agrees,
            # JSON has no NaN
            "error": round(answer.error, 8) if np.isfinite(answer.error) else None,
            "tolerance": answer.tolerance,
            "unit": answer.unit,
            "said": str(answer),
        }
    return result


def verdict(ratio: Mapping[str, float | int | None]) -> str:
    """Who is faster, of the quartiles of peer's time / ours: told only if both say the same."""
    q1, q3 = ratio["q1"], ratio["q3"]
    if q1 is None or q3 is None or (ratio["n"] or 0) < LEAST_ROUNDS:
        return "unknown"
    if q1 > 1:
        return "we win"
    return "we lose" if q3 < 1 else "even"


def times(ratio: Mapping[str, float | int | None]) -> str:
    """`1.23x (1.1-1.4)`: median and quartiles."""
    return spread(ratio, ".3g").replace(" (", "x (")


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    out = [f"given: {report['given']}"]
    for name, result in report["contenders"].items():
        ratio = ""
        if "ratio" in result:
            shown = times(result["ratio"])
            ratio = f"   {shown} of {result['versus']}: {result['verdict'].upper()}"
        out.append(f"  {name}: {result['shown']} ms{ratio}")
        out.append(f"      {result['includes']}")
        if "answer" in result:
            out.append(f"      {result['answer']['said']}")
        if result["failures"]:
            out.append(f"      failed {result['failures']} of {report['rounds']} times")
    for name, value in report["counts"].items():
        out.append(f"  {name}: {value}")
    out += [f"  {name}: FAILED: {why}" for name, why in report["failed_peers"].items()]
    out += [f"  without {name}: {why}" for name, why in report["missing"].items()]
    return out


def headlines(report: Mapping[str, Any]) -> list[str]:
    """Of each peer one line, win or loss alike."""
    out = []
    for name, result in report["contenders"].items():
        if "ratio" not in result or result["ratio"]["median"] is None:
            continue
        other = "" if result.get("answer", {}).get("agrees", True) else ", with another answer"
        out.append(
            f"{name} takes {times(result['ratio'])} the time of {result['versus']}{other}: "
            f"{result['verdict']}"
        )
    return out


def version(package: str) -> str | None:
    """Of an installed package; None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
