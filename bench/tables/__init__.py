"""The tables of `python -m bench quality`, one module each.

A table has NAME, HELP, measure(context) -> report for the JSON file, and lines(report) -> lines of
text. To add one, write its module and name it in `quality.TABLES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.columns import Column


@dataclass(frozen=True)
class Context:
    """What all tables share."""

    data: Path
    columns: Mapping[str, Column]
    seed: int = 0
    quick: bool = False  # a few photos each, to see that it runs
    synthetic: Path | None = None
    lfw: Path | None = None
    pairs: Path | None = None

    @property
    def model(self) -> Any:
        return next(iter(self.columns.values())).model


def cell(value: float | None, digits: int = 2, width: int = 9) -> str:
    """A number, or a dash where there is none."""
    return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"
