"""Quality on held-out photos and real scans, beside MediaPipe's points fitted by our own fit.

Needs the research data (see EXTREME3D_DATA in CONTRIBUTING.md) and scipy.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from bench import machine
from bench.columns import load_columns
from bench.tables import (
    Context,
    authors,
    bump_verification,
    holes,
    mask,
    occlusion,
    pose,
    relief,
    scan_relief,
    scans,
    timing,
    verification,
)

NAME = "quality"
HELP = "tables of quality on held-out photos and scans, beside MediaPipe"

# In the order they are printed.
TABLES = {
    table.NAME: table
    for table in (
        occlusion,
        pose,
        scans,
        verification,
        relief,
        scan_relief,
        authors,
        mask,
        holes,
        bump_verification,
        timing,
    )
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("EXTREME3D_DATA", machine.REPOSITORY.parent / "shared" / "data")
    described = "; ".join(f"{name}: {table.HELP}" for name, table in TABLES.items())
    parser.add_argument(
        "--tables",
        type=_tables,
        default=tuple(TABLES),
        metavar="A,B",
        help=f"default: all. {described}",
    )
    parser.add_argument(
        "--data", type=Path, default=Path(default), metavar="DIR", help="research data"
    )
    parser.add_argument(
        "--synthetic",
        type=Path,
        metavar="DIR",
        help="rendered training sets, for pose, and relief_bench.npz, for relief",
    )
    parser.add_argument("--lfw", type=Path, metavar="DIR", help="NAME/NAME_0001.jpg, ...")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="default: pairs.txt of --lfw")
    parser.add_argument(
        "--recogniser",
        type=Path,
        metavar="FILE",
        help="network of train/train_recognition.py, for bump_verification",
    )
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="reference set; default: the built-in one"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--quick", action="store_true", help="a few photos, to see that it runs")
    parser.add_argument(
        "-o", "--json", type=Path, metavar="FILE", help="also write everything there"
    )


def run(options: argparse.Namespace) -> int:
    """Measure the tables one by one, printing each as it is done."""
    if not options.data.is_dir():
        raise SystemExit(f"no research data at {options.data} (--data, or set EXTREME3D_DATA)")
    if options.pairs and not options.lfw:
        raise SystemExit("--pairs needs --lfw, the folder of its photos")
    columns, missing = load_columns(options.threads, options.references)
    if not columns:
        raise SystemExit("; ".join(f"{title}: {why}" for title, why in missing.items()))
    context = Context(
        data=options.data,
        columns=columns,
        seed=options.seed,
        quick=options.quick,
        synthetic=options.synthetic,
        lfw=options.lfw,
        pairs=options.pairs,
        recogniser=options.recogniser,
        references=options.references,
    )
    report: dict[str, Any] = {
        "command": NAME,
        "machine": machine.describe(),
        "threads": options.threads,
        "seed": options.seed,
        "quick": options.quick,
        "missing": missing,
        "tables": {},
    }
    for title, why in missing.items():
        print(f"without {title}: {why}")
    for name in options.tables:
        started = time.perf_counter()
        table = TABLES[name].measure(context)
        report["tables"][name] = table
        print("\n".join(["", f"== {name}: {TABLES[name].HELP}", *TABLES[name].lines(table)]))
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
        if options.json:  # after each table: the whole takes minutes
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _tables(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}"
        )
    return names
