"""Quality on held-out photos and real scans, beside MediaPipe's points fitted by our own fit.

Needs scipy, and the research data (see EXTREME3D_DATA in CONTRIBUTING.md); your own scans and LFW
(--scans, --lfw) need no other data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import util
from pathlib import Path
from typing import Any

from bench import machine, page, pictures
from bench.columns import load_columns
from bench.options import add_runtime, positive
from bench.pictures import Picture
from bench.scan_files import UNITS
from bench.tables import (
    Context,
    authors,
    bump_verification,
    completion,
    has_data,
    holes,
    is_measured,
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
        completion,
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
    described = "; ".join(f"{name}: {table.HELP}" for name, table in TABLES.items())
    parser.add_argument(
        "--tables",
        type=_tables,
        default=tuple(TABLES),
        metavar="A,B",
        help=f"default: all. {described}",
    )
    parser.add_argument(
        "--data", type=Path, default=machine.data_folder(), metavar="DIR", help="research data"
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
        "--scans",
        type=Path,
        metavar="DIR",
        help="for scans: textured meshes of heads, .glb, .obj or .ply, in place of our three",
    )
    parser.add_argument(
        "--unit",
        choices=("auto", *UNITS),
        default="auto",
        help="of --scans; default: the one that suits the size of the face",
    )
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
    parser.add_argument(
        "--threads", type=positive, default=2, metavar="N", help="and cores (default: 2)"
    )
    add_runtime(parser)
    parser.add_argument("--quick", action="store_true", help="a few photos, to see that it runs")
    parser.add_argument(
        "-o", "--json", type=Path, metavar="FILE", help="also write everything there"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with plots and pictures"
    )
    parser.add_argument(
        "--from-json",
        type=Path,
        metavar="FILE",
        help="measure nothing: make the page of --html from what --json wrote, without pictures",
    )


def run(options: argparse.Namespace) -> int:
    """Measure the tables one by one, printing each as it is done."""
    if options.from_json:
        return from_json(options)
    if not util.find_spec("scipy"):
        raise SystemExit("quality needs scipy: pip install .[bench]")
    if options.pairs and not options.lfw:
        raise SystemExit("--pairs needs --lfw, the folder of its photos")
    for name in ("lfw", "scans"):
        folder = getattr(options, name)
        if folder and not folder.is_dir():
            raise SystemExit(f"--{name}: no folder {folder}")
    own_data = {scans.NAME: options.scans, verification.NAME: options.lfw}
    if not has_data(options.data) and not any(own_data.get(name) for name in options.tables):
        raise SystemExit(f"no research data at {options.data} (--data, or set EXTREME3D_DATA)")
    about = machine.describe()  # of all its cores
    pinned = machine.pin(options.threads)  # before the networks start threads
    columns, missing = load_columns(options.threads, options.references, options.runtime)
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
        scans=options.scans,
        unit=options.unit,
        runtime=options.runtime,
    )
    report: dict[str, Any] = {
        "command": NAME,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": about,
        "pinned": pinned,
        "threads": options.threads,
        "runtime": context.reconstructor.runtime,
        "seed": options.seed,
        "quick": options.quick,
        "missing": missing,
        "tables": {},
    }
    for title, why in missing.items():
        print(f"without {title}: {why}")
    with machine.Watch() as watch:
        for name in options.tables:
            print(f"\n== {name}: {TABLES[name].HELP}")
            if not has_data(options.data) and not own_data.get(name):
                print(f"skipped: no research data at {options.data}")
                continue
            started = time.perf_counter()
            with machine.Watch() as own:
                table = TABLES[name].measure(context)
            report["tables"][name] = {"seed": options.seed, **table, "watch": own.report}
            print("\n".join(TABLES[name].lines(table)))
            print(f"({time.perf_counter() - started:.0f} s)", flush=True)
            machine.write(report, options.json)  # after each table: the whole takes minutes
    report["watch"] = watch.report
    machine.write(report, options.json)
    if timing.NAME in report["tables"]:
        watched = report["tables"][timing.NAME]["watch"]
        print(machine.headline("times are of this machine", watched))
    if options.html:
        write_page(report, options.html, pictures.of_report(context, report))
    return 0 if any(map(is_measured, report["tables"].values())) else 1


def write_page(report: dict[str, Any], path: Path, shown: Sequence[Picture]) -> None:
    texts = {name: TABLES[name].lines(table) for name, table in report["tables"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.page(report, texts, shown), encoding="utf-8")
    print(f"wrote {path}")


def from_json(options: argparse.Namespace) -> int:
    """The page of an earlier run."""
    if not options.html:
        raise SystemExit("--from-json makes a page: --html FILE says where")
    try:
        report = json.loads(options.from_json.read_text())
        write_page(report, options.html, ())
    except (OSError, ValueError) as error:
        raise SystemExit(f"--from-json {options.from_json}: {error}") from None
    except (KeyError, TypeError) as error:
        raise SystemExit(
            f"{options.from_json} is no report of this version's quality: {error!r}"
        ) from None
    return 0


def _tables(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}"
        )
    return names
