"""What every training run must do: end the same whether it was stopped on the way or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


def assert_resumed_is_whole(
    whole: Callable[[Path], Any],
    stopped: Callable[[Path], Any],
    resumed: Callable[[Path], Any],
    folder: Path,
    steps: int,
) -> dict[str, Any]:
    """Runs all three, the second into the third step and the third on from there, and compares the
    checkpoints that they return; gives the last line of the log."""
    want = whole(folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        stopped(folder / "parts")
    broken_off = torch.load(folder / "parts" / "checkpoint.pt", weights_only=True)
    assert broken_off["state"]["step"] == 2
    got = resumed(folder / "parts")
    assert got["state"]["step"] == want["state"]["step"] == steps
    moved = 0.0
    for kind in ("network", "average"):
        for name, value in want[kind].items():
            torch.testing.assert_close(got[kind][name], value, rtol=0, atol=0, msg=name)
            moved += float((value - broken_off[kind][name]).abs().sum())
    assert moved > 0
    logs = [(folder / run / "log.jsonl").read_text() for run in ("whole", "parts")]
    last = [json.loads(log.splitlines()[-1]) | {"seconds": 0} for log in logs]
    assert last[0] == last[1]
    return last[0]
