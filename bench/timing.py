"""How long calls take: warmed up, in turn, on pinned cores, with what else the machine did."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.stats import quartiles

Call = Callable[[], Any]


def milliseconds(call: Call, loops: int = 1, wait: Call | None = None) -> float:
    """ms of one call, the mean of `loops` in a row.

    Args:
        call: what is timed.
        loops: calls in the timed region.
        wait: waits for the device: before the region begins, and inside it after the last call.
    """
    if wait:
        wait()
    started = time.perf_counter()
    for _ in range(loops):
        call()
    if wait:
        wait()
    return 1e3 * (time.perf_counter() - started) / loops


def in_turn(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    warm_up: int = 1,
    least_ms: float = 0.0,
) -> dict[str, list[float]]:
    """ms of each call in each round: A B C, C B A, A B C, ..., so that a machine whose speed
    drifts slows all alike, and none always comes after the same other.

    Args:
        calls: what is compared, by name.
        rounds: samples of each.
        warm_up: rounds before them that do not count.
        least_ms: a sample is the mean over as many calls as take this long.
    """
    for _ in range(max(warm_up - 1, 0)):
        for call in calls.values():
            call()
    once = {name: milliseconds(call) for name, call in calls.items()} if warm_up else {}
    loops = {name: max(1, round(least_ms / max(once.get(name, least_ms), 1e-4))) for name in calls}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds):
        for name in list(calls)[:: -1 if round_ % 2 else 1]:
            taken[name].append(milliseconds(calls[name], loops[name]))
    return taken


def ratios(of: Sequence[float], to: Sequence[float]) -> dict[str, float | int | None]:
    """Quartiles of of / to, sample by sample of the same round."""
    return quartiles([a / b for a, b in zip(of, to, strict=True) if b > 0])


def spread(of: Sequence[float] | Mapping[str, Any], form: str = ".2f") -> str:
    """`12.3 (11.9-13.0)`: median and quartiles, of values or as `quartiles` found them."""
    q = of if isinstance(of, Mapping) else quartiles(of)
    if q["median"] is None:
        return "-"
    return f"{q['median']:{form}} ({q['q1']:{form}}-{q['q3']:{form}})"
