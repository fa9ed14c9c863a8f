"""Sources of detail that are compared: no detail, the first version's rules, and the product's two.

A source says what relief a crop shows, and which of its pixels show the face. All start from the
same view of a photo, so that they differ in detail alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import colour_mask, shading_rule
from bench.face_views import FaceView

FOUNDATION, RULE, SHADING, NETWORK = "foundation", "shading rule", "shading", "network"
FACE_SHOWN = 0.5  # probability from which the network's pixels show the face


@dataclass(frozen=True, eq=False)
class Detail:
    """What a source says of a view."""

    bump: np.ndarray  # (S, S) float32 mm, positive = deeper, holes filled as the pipeline fills
    mask: np.ndarray | None  # (S, S) bool, the pixel shows the face; None: it cannot tell


OpenNetwork = Callable[..., Any]  # as `extreme3d_fast.photo_network.OpenNetwork`
Source = Callable[[FaceView], Detail]
MaskSource = Callable[[FaceView], np.ndarray]


def load_sources(open_network: OpenNetwork) -> tuple[dict[str, Source], dict[str, str]]:
    """The sources by title, and why those that are missing could not be had."""
    makers: dict[str, Callable[[OpenNetwork], Source]] = {
        FOUNDATION: _foundation,
        RULE: _rule,
        SHADING: _shading,
        NETWORK: _network,
    }
    return _made(makers, open_network)


def load_masks(open_network: OpenNetwork) -> tuple[dict[str, MaskSource], dict[str, str]]:
    """What tells which pixels show the face, by title, and why others are missing."""
    makers: dict[str, Callable[[OpenNetwork], MaskSource]] = {
        "no mask": lambda _: lambda view: np.ones(view.weight.shape, bool),
        "colour rule": lambda _: _colour_mask,
        NETWORK: _network_mask,
    }
    return _made(makers, open_network)


def _made(
    makers: dict[str, Callable[[OpenNetwork], Any]], open_network: OpenNetwork
) -> tuple[dict[str, Any], dict[str, str]]:
    made, missing = {}, {}
    for title, make in makers.items():
        try:
            made[title] = make(open_network)
        except (ImportError, FileNotFoundError, ValueError) as error:
            missing[title] = str(error)
    return made, missing


def _foundation(_: OpenNetwork) -> Source:
    return lambda view: Detail(np.zeros_like(view.weight), None)


def _rule(_: OpenNetwork) -> Source:
    def estimate(view: FaceView) -> Detail:
        mask = _colour_mask(view)
        return Detail(_filled(view, shading_rule.estimate_bump(*_maps(view), mask), mask), mask)

    return estimate


def _shading(open_network: OpenNetwork) -> Source:
    from extreme3d_fast.shading import shape_from_shading

    network = _load_network(open_network)

    def estimate(view: FaceView) -> Detail:
        mask = _shown(view, network.estimate(*_maps(view)).face_probability)
        return Detail(_filled(view, shape_from_shading(*_maps(view), mask), mask), mask)

    return estimate


def _network(open_network: OpenNetwork) -> Source:
    network = _load_network(open_network)

    def estimate(view: FaceView) -> Detail:
        bump, probability = network.estimate(*_maps(view))
        mask = _shown(view, probability)
        return Detail(_filled(view, bump, mask), mask)

    return estimate


def _colour_mask(view: FaceView) -> np.ndarray:
    return colour_mask.estimate_face_mask(*_maps(view)) & view.in_photo


def _network_mask(open_network: OpenNetwork) -> MaskSource:
    network = _load_network(open_network)
    return lambda view: _shown(view, network.estimate(*_maps(view)).face_probability)


def _load_network(open_network: OpenNetwork) -> Any:
    from extreme3d_fast.bump_network import BumpNetwork

    return BumpNetwork(open_network=open_network)


def _maps(view: FaceView) -> tuple[Any, ...]:
    return view.image, view.weight, view.depth, view.camera


def _shown(view: FaceView, probability: np.ndarray) -> np.ndarray:
    return (probability > FACE_SHOWN) & view.in_photo


def _filled(view: FaceView, bump: np.ndarray, mask: np.ndarray) -> np.ndarray:
    from extreme3d_fast.occlusion import fill_bump, find_holes

    hole = find_holes(mask, view.weight).hole
    return fill_bump(bump, view.weight, hole)
