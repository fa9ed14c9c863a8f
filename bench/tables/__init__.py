"""The tables of `python -m bench quality`, one module each.

A table has NAME, HELP, measure(context) -> report for the JSON file, and lines(report) -> lines of
text. To add one, write its module and name it in `quality.TABLES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.columns import Column
from bench.details import Source, load_sources


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
    recogniser: Path | None = None
    references: Path | None = None  # None: the built-in set
    scans: Path | None = None  # None: those of the research data
    unit: str = "auto"  # of the files there
    runtime: str | None = None  # of the networks; None: the faster one that is installed

    @property
    def has_data(self) -> bool:
        """Whether the research data is there."""
        return has_data(self.data)

    @property
    def model(self) -> Any:
        return self.reconstructor.head_model

    @property
    def reconstructor(self) -> Any:
        """That of the first column, ours: its foundations are what detail is put on."""
        return next(iter(self.columns.values())).reconstructor

    @cached_property
    def sources(self) -> tuple[dict[str, Source], dict[str, str]]:
        """Sources of detail by title, and why others are missing."""
        return load_sources(self.open_network)

    @cached_property
    def open_network(self) -> Any:
        """Opens a network with the threads and on the runtime of the columns."""
        from extreme3d_fast.photo_network import HostNetworks

        threads = self.reconstructor.threads
        return HostNetworks(threads=threads, runtime=self.runtime).open  # type: ignore[arg-type]


def has_data(folder: Path) -> bool:
    """Whether the research data is there."""
    return (folder / "photos" / "face_labels.npz").exists()


def is_measured(table: Mapping[str, Any]) -> bool:
    """Whether a table holds more than why it could not be made."""
    return "why" not in table and not isinstance(table.get("skipped"), str)


def cell(value: float | None, digits: int = 2, width: int = 9) -> str:
    """A number, or a dash where there is none."""
    return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"


def between(
    found: Mapping[str, Any], digits: int, *, scale: float = 1.0, sign: str = "", to: str = "-"
) -> str:
    """An interval in words; one value, or values of one person or scan, have none."""
    if found["low"] is None or found["high"] is None:
        return "no interval"
    return to.join(f"{scale * found[end]:{sign}.{digits}f}" for end in ("low", "high"))


def missing_lines(report: Mapping[str, Any]) -> list[str]:
    """Which columns a table lacks, and why."""
    return [f"without {title}: {why}" for title, why in report["missing"].items()]


def lower(value: float, reference: float) -> float:
    """By how many % a value lies below another."""
    return 100 * (1 - value / reference) if reference else float("nan")
