"""Means with intervals, and how well scores tell same from different."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
Z95 = 1.959964  # standard deviations of a normal between which 95 % lie


def summary(
    values: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, float | int | None]:
    """Mean, its bootstrapped 95 % interval (of two values or more), median and n.

    Args:
        values: (n,) what is averaged.
        seed: of the resampling.
        groups: (n,) whose each value is. The interval is then over groups, which are independent
            where their values are not, and needs two of them; their number is in "groups".
    """
    x = np.asarray(values, np.float64)
    if groups is not None:
        return _of_groups(x, np.asarray(groups), seed)
    if not len(x):
        return {"mean": None, "low": None, "high": None, "median": None, "n": 0}
    if len(x) == 1:
        value = round(float(x[0]), 4)
        return {"mean": value, "low": None, "high": None, "median": value, "n": 1}
    draws = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.percentile(x[draws].mean(1), [2.5, 97.5])
    numbers = {"mean": x.mean(), "low": low, "high": high, "median": np.median(x)}
    return {**{k: round(float(v), 4) for k, v in numbers.items()}, "n": len(x)}


def _of_groups(x: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float | int | None]:
    names, row = np.unique(groups, return_inverse=True)
    found = {**summary(x, seed=seed), "low": None, "high": None, "groups": len(names)}
    if len(names) > 1:
        sums = np.bincount(row, x), np.bincount(row)
        draws = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
        means = sums[0][draws].sum(1) / sums[1][draws].sum(1)
        found["low"], found["high"] = (
            round(float(v), 4) for v in np.percentile(means, [2.5, 97.5])
        )
    return found


def proportion(count: int, n: int) -> dict[str, float | int | None]:
    """Share of n that `count` is, and its 95 % interval (Wilson 1927): 0 of n is no certainty."""
    if not n:
        return {"value": None, "low": None, "high": None, "count": 0, "n": 0}
    p, z2 = count / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    found = {"value": p, "low": max(middle - half, 0.0), "high": min(middle + half, 1.0)}
    return {**{k: round(float(v), 4) for k, v in found.items()}, "count": int(count), "n": int(n)}


def ratio(
    parts: Sequence[float] | np.ndarray, wholes: Sequence[float] | np.ndarray, *, seed: int = 0
) -> dict[str, float | int | None]:
    """Sum of parts over the sum of wholes, and its interval, bootstrapped over the pairs."""
    a, b = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    if not b.sum():
        return {"value": None, "low": None, "high": None, "n": len(b)}
    if len(b) == 1:
        return {"value": round(float(a[0] / b[0]), 4), "low": None, "high": None, "n": 1}
    draws = np.random.default_rng(seed).integers(0, len(b), (RESAMPLES, len(b)))
    tops, bottoms = a[draws].sum(1), b[draws].sum(1)
    some = bottoms > 0
    low, high = np.percentile(tops[some] / bottoms[some], [2.5, 97.5])
    found = {"value": a.sum() / b.sum(), "low": low, "high": high}
    return {**{k: round(float(v), 4) for k, v in found.items()}, "n": len(b)}


def auc(scores: np.ndarray, same: np.ndarray) -> float:
    """Area under the ROC curve: how often a same pair scores above a different one, ties half."""
    from scipy.stats import rankdata

    same = np.asarray(same, bool)
    n, m = int(same.sum()), int((~same).sum())
    ranks = rankdata(scores)
    return float((ranks[same].sum() - n * (n + 1) / 2) / (n * m))


def roc(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates, and the thresholds (score >= threshold is "same")."""
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    order = np.argsort(-scores, kind="stable")
    s, y = scores[order], same[order]
    last = np.r_[np.flatnonzero(np.diff(s)), len(s) - 1]  # of each run of equal scores
    tpr = np.r_[0, np.cumsum(y)[last]] / y.sum()
    fpr = np.r_[0, np.cumsum(~y)[last]] / (~y).sum()
    return fpr, tpr, np.r_[np.inf, s[last]]


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """Where false alarms and misses are equally frequent, on the ROC's straight pieces."""
    fpr, tpr, _ = roc(scores, same)
    return equal_error(fpr, tpr)


def equal_error(fpr: np.ndarray, tpr: np.ndarray) -> float:
    """As `equal_error_rate`, of a ROC curve."""
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    i = int(np.searchsorted(gap, 0.0))
    if i == 0:
        return float(fpr[0])
    t = -gap[i - 1] / (gap[i] - gap[i - 1])
    return float(fpr[i - 1] + t * (fpr[i] - fpr[i - 1]))


def best_threshold(scores: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Threshold of the highest balanced accuracy, and that accuracy."""
    fpr, tpr, thresholds = roc(scores, same)
    accuracy = (tpr + 1 - fpr) / 2
    i = int(np.argmax(accuracy))
    return float(thresholds[i]), float(accuracy[i])


def weighted_separation(
    ranked: np.ndarray, same: np.ndarray, weight: np.ndarray
) -> tuple[float, float, float]:
    """AUC, highest balanced accuracy and equal error rate of weighted pairs; NaN where one kind has
    none.

    Args:
        ranked: (n,) scores, descending.
        same: (n,) bool.
        weight: (n,) how often each pair counts.
    """
    last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1]  # of each run of equal scores
    weight = np.asarray(weight, np.float64)
    hits = np.r_[0.0, np.cumsum(np.where(same, weight, 0))[last]]
    alarms = np.r_[0.0, np.cumsum(np.where(same, 0, weight))[last]]
    if hits[-1] == 0 or alarms[-1] == 0:
        return float("nan"), float("nan"), float("nan")
    tpr, fpr = hits / hits[-1], alarms / alarms[-1]
    area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    return area, float((tpr - fpr).max() / 2 + 0.5), equal_error(fpr, tpr)


def accuracy_at(threshold: float, scores: np.ndarray, same: np.ndarray) -> float:
    """Balanced accuracy of calling scores >= threshold "same"."""
    said = np.asarray(scores) >= threshold
    same = np.asarray(same, bool)
    return float((said[same].mean() + (~said[~same]).mean()) / 2)


def quartiles(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Median, quartiles and n of the values that there are."""
    x = np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)
    if not len(x):
        return {"median": None, "q1": None, "q3": None, "n": 0}
    q1, q2, q3 = (round(float(v), 4) for v in np.percentile(x, [25, 50, 75]))
    return {"median": q2, "q1": q1, "q3": q3, "n": len(x)}
