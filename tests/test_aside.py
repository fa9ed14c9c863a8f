"""Stages run beside others."""

from __future__ import annotations

import threading

import pytest

from extreme3d_fast.aside import Aside


def test_calls_run_beside_each_other() -> None:
    met = threading.Barrier(2, timeout=20)
    with Aside(2) as aside:
        waiting = aside.start(met.wait)
        met.wait()  # passes only if both are there
    assert waiting.done()


def test_one_thread_calls_at_once() -> None:
    with Aside(1) as aside:
        assert aside.start(threading.get_ident).result() == threading.get_ident()


@pytest.mark.parametrize("threads", [1, 2])
def test_error_waits_for_who_asks(threads: int) -> None:
    with Aside(threads) as aside:
        failed = aside.start(int, "seven")
    with pytest.raises(ValueError, match="seven"):
        failed.result()


def test_nothing_runs_on_after_the_block() -> None:
    before = threading.active_count()
    go_on = threading.Event()

    def block() -> None:
        with Aside(2) as aside:
            aside.start(go_on.wait, 0.05)
            raise KeyError("meanwhile")

    with pytest.raises(KeyError):
        block()
    assert threading.active_count() == before
