"""Calls in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def fresh(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns in a process of its own: nothing is warm, peak memory is its own.

    Raises:
        BrokenProcessPool: the process died.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(call, *arguments).result()
