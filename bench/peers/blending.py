"""Holes of a bump map filled by gradients: our multigrid, OpenCV's seamlessClone, SciPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bench.peers.contest import Agreement, Contender, Contest, gather, load
from bench.peers.settings import Settings, captured

NAME = "blending"
HELP = "holes of a bump map filled: OpenCV's seamlessClone, SciPy"
THREADS = "one"  # our solve has one, and what `fill_bump` does around it is little
PACKAGES = ("opencv-python-headless", "scipy")

FILL, SOLVE = "ours, fill_bump", "ours, blend_gradients"
# `blend_gradients` solves to this share of the range; twice it, for the range is that of all maps.
TOLERANCE = 2e-4
CLONE_TOLERANCE = 1 / 255  # of the range: what 8 bits can tell
LEVELS = 255
# `seamlessClone` takes 3 pixels off its mask, beyond which it keeps the target's gradients, such as
# the step at the hole's border: so it gets 4 more.
GROWN = np.ones((9, 9), np.uint8)
PULL = 1e-3  # of unknown pixels without known neighbours towards the guidance; see blending.h


class Maps(NamedTuple):
    """What `blend_gradients` takes, (H, W) each."""

    values: np.ndarray  # float32 mm
    known: np.ndarray  # bool
    region: np.ndarray  # bool
    guidance: np.ndarray  # float32 mm
    guided: np.ndarray  # bool

    @property
    def unknown(self) -> np.ndarray:
        return np.asarray(self.region & ~self.known)


def contest(settings: Settings) -> Contest:
    from extreme3d_fast.blending import blend_gradients
    from extreme3d_fast.occlusion import fill_bump, unfade

    found, photo = captured(settings, "fill")
    given = found["fill"].given
    bump, weight, hole = (np.asarray(given[k]) for k in ("bump", "weight", "hole"))
    borrowed, guided = maps_borrowed(given, bump.shape)
    hole = hole.astype(bool) & (weight > 0)
    values, known = unfade(bump, weight, hole)
    maps = Maps(values, known, known | hole, borrowed, guided)

    def solve() -> np.ndarray:
        return blend_gradients(*maps)

    truth = solve().copy()
    span = float(np.ptp(truth[maps.region]))
    peers, missing = gather(
        {"SciPy": lambda: _scipy(maps, truth, span), "OpenCV": lambda: _opencv(maps, truth, span)}
    )
    return Contest(
        given=f"{photo}: {bump.shape[1]} x {bump.shape[0]} pixels, {maps.unknown.sum():,} to be "
        f"filled {'with the gradients of a reference' if guided.any() else 'smoothly'}, range "
        f"{span:.2f} mm",
        ours=[
            Contender(SOLVE, solve, "checks, set-up and solve of every hole; float32"),
            Contender(
                FILL,
                lambda: fill_bump(bump, weight, hole, borrowed, guided, threads=settings.threads),
                "the same, with fading taken out of the map before and put in after",
            ),
        ],
        peers=peers,
        missing=missing,
        least_ms=20.0,
    )


def maps_borrowed(
    given: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The reference's bump and where it holds; nowhere, if nothing was borrowed."""
    borrowed = given.get("borrowed")
    if borrowed is None:
        return np.zeros(shape, np.float32), np.zeros(shape, bool)
    valid = given.get("valid")
    holds = np.ones(shape, bool) if valid is None else np.asarray(valid).astype(bool)
    return np.asarray(borrowed, np.float32), holds


def equations(maps: Maps) -> tuple[Any, np.ndarray]:
    """Normal equations of the pixels to be filled: CSC matrix and right-hand side, mm.

    The same as in blending.h: pairs of neighbours in the region, gradients of the guidance where
    both ends are guided, free borders, a weak pull for holes that touch nothing known.
    """
    sparse = load("scipy.sparse", "scipy")
    graph = load("scipy.sparse.csgraph", "scipy")
    unknown = maps.unknown
    place = np.full(unknown.shape, -1)
    n = int(unknown.sum())
    place[unknown] = np.arange(n)
    index = np.arange(unknown.size).reshape(unknown.shape)
    pairs = [
        np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()]),
        np.stack([index[:-1].ravel(), index[1:].ravel()]),
    ]
    a, b = np.concatenate(pairs, axis=1)
    region, place, guided = maps.region.ravel(), place.ravel(), maps.guided.ravel()
    take = region[a] & region[b] & ((place[a] >= 0) | (place[b] >= 0))
    # both directions: i is the unknown whose row it is
    i, j = np.r_[a[take], b[take]], np.r_[b[take], a[take]]
    i, j = i[place[i] >= 0], j[place[i] >= 0]
    g = maps.guidance.ravel().astype(np.float64)
    step = np.where(guided[i] & guided[j], g[i] - g[j], 0.0)
    inner = place[j] >= 0
    step[~inner] += maps.values.ravel().astype(np.float64)[j[~inner]]
    rhs = np.bincount(place[i], step, n)
    diagonal = np.bincount(place[i], minlength=n).astype(np.float64)
    off = sparse.coo_matrix((-np.ones(inner.sum()), (place[i[inner]], place[j[inner]])), (n, n))
    _, label = graph.connected_components(off, directed=False)
    anchored = np.zeros(label.max(initial=0) + 1, bool)
    anchored[label[place[i[~inner]]]] = True
    loose = ~anchored[label]
    diagonal[loose] += PULL
    rhs[loose] += PULL * np.where(guided, g, 0.0)[unknown.ravel()][loose]
    return (off + sparse.diags(diagonal)).tocsc(), rhs


def _scipy(maps: Maps, truth: np.ndarray, span: float) -> list[Contender]:
    linalg = load("scipy.sparse.linalg", "scipy")
    definite = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    matrix, rhs = equations(maps)
    unknown = maps.unknown

    def solved(a: Any, b: np.ndarray) -> np.ndarray:
        out = maps.values.copy()
        out[unknown] = linalg.splu(a, "MMD_AT_PLUS_A", **definite).solve(b)
        return out

    def agreement(answer: np.ndarray) -> Agreement:
        return _difference(answer, truth, unknown, span, TOLERANCE, "")

    return [
        Contender(
            "scipy splu",
            lambda: solved(matrix, rhs),
            "ordering, LU factorisation in symmetric mode, solve; the equations are given",
            SOLVE,
            agreement,
        ),
        Contender(
            "scipy splu, equations included",
            lambda: solved(*equations(maps)),
            "the equations by NumPy, then the same",
            SOLVE,
            agreement,
        ),
    ]


def _opencv(maps: Maps, truth: np.ndarray, span: float) -> list[Contender]:
    cv2 = load("cv2", "opencv-python-headless")
    unknown = maps.unknown
    low = float(truth[maps.region].min())

    def levels(of: np.ndarray) -> np.ndarray:
        scaled = np.clip((of - low) / max(span, 1e-6), 0, 1) * LEVELS
        return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, 2)

    # What it lays in, moved by a constant (which changes no gradient) so that 8 bits can hold it.
    guidance = np.where(maps.guided, maps.guidance, 0).astype(np.float32)
    offset = float(np.median((truth - guidance)[unknown]))
    laid_in = levels(guidance + offset)
    # beyond the face's border, where it wants values as well, the best there are
    target = levels(np.where(maps.known, maps.values, guidance + offset))
    mask = cv2.dilate(np.where(unknown, 255, 0).astype(np.uint8), GROWN)
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    center = (x + width // 2, y + height // 2)

    def clone() -> np.ndarray:
        return np.asarray(cv2.seamlessClone(laid_in, target, mask, center, cv2.NORMAL_CLONE))

    def agreement(answer: np.ndarray) -> Agreement:
        mm = low + answer[..., 0] / LEVELS * span
        rounded = low + levels(truth)[..., 0] / LEVELS * span
        quantised = _rms((rounded - truth)[unknown])
        moved = _rms((answer[..., 0].astype(float) - target[..., 0])[maps.known]) / LEVELS * span
        note = (
            f"RMS {_rms((mm - truth)[unknown]):.3f} mm, of which 8 bits alone cost "
            f"{quantised:.4f}; known pixels move by {moved:.3f}, where ours keep their values: it "
            "solves in the rectangle round all holes and knows no free border, which the face has"
        )
        return _difference(mm, truth, unknown, span, CLONE_TOLERANCE, note)

    return [
        Contender(
            "cv2.seamlessClone",
            clone,
            "solve by cosine transforms, of 8 bits and three channels, which it insists on; maps "
            "converted beforehand",
            SOLVE,
            agreement,
        )
    ]


def _difference(
    answer: np.ndarray,
    truth: np.ndarray,
    where: np.ndarray,
    span: float,
    tolerance: float,
    note: str,
) -> Agreement:
    error = float(np.abs(answer - truth)[where].max(initial=0.0)) / max(span, 1e-6)
    return Agreement(error, tolerance, "of the map's range, at most", note)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
