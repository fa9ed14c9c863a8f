"""Stages that keep one core busy, run beside others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

__all__ = ["Aside"]

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """A second thread for a while: what it was given is done when the `with` block ends.

    The thread lives for the block, so that nothing breaks after a fork.

    Args:
        threads: that may be used; with one, calls are made where they are given.

    Example:
        >>> with Aside(threads=2) as aside:
        ...     answer = aside.start(sum, [1, 2, 3])
        >>> answer.result()
        6
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(1) if threads > 1 else None

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Starts a call; the future's `result` waits for its answer, or raises what it raised."""
        if self._executor is not None:
            return self._executor.submit(function, *args, **kwargs)
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def __enter__(self) -> Aside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown()
