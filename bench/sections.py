"""What the page of `bench quality --html` says of each table: numbers, plots, what to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import details, fills
from bench.svg import Series, line_chart, point_chart
from bench.tables import (
    authors,
    bump_verification,
    completion,
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

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A number with its 95 % interval and what it is of."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    digits: int = 2
    of: int | None = None  # persons or scans that the n are of
    quartiles: bool = False  # low and high are quartiles, no interval


@dataclass(frozen=True)
class Grid:
    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


@dataclass(frozen=True)
class Glance:
    """A line of the summary."""

    text: str
    cell: Cell
    target: str
    met: bool | None  # None: cannot be said
    sure: bool = True  # the ends of the interval say the same


@dataclass(frozen=True)
class Section:
    title: str
    notes: Sequence[str] = ()
    plots: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    glances: Sequence[Glance] = field(default=())


def section(name: str, table: Report) -> Section:
    """What to show of a table; without plots where it says that it could not be measured."""
    title, make = SECTIONS[name]
    if not is_measured(table):
        return Section(title)
    return make(title, table)


# === Cells ===


def mean_cell(s: Report, digits: int = 2, scale: float = 1.0) -> Cell:
    """Of `stats.summary`, or of anything with value, low, high and n."""

    def scaled(key: str) -> float | None:
        return None if s.get(key) is None else scale * s[key]

    value = scaled("mean") if "mean" in s else scaled("value")
    return Cell(value, scaled("low"), scaled("high"), s.get("n"), digits, s.get("groups"))


def percent(s: Report, digits: int = 1) -> Cell:
    return mean_cell(s, digits, 100.0)


def quartile_cell(s: Report, digits: int = 1) -> Cell:
    return Cell(s["median"], s["q1"], s["q3"], s["n"], digits, quartiles=True)


def series(title: str, cells: Sequence[Cell], colour: int, dashed: bool = False) -> Series:
    return Series(
        title,
        [c.value for c in cells],
        [c.low for c in cells],
        [c.high for c in cells],
        colour,
        dashed,
    )


def glance(text: str, cell: Cell, target: str, met: Callable[[float], bool]) -> Glance:
    if cell.value is None:
        return Glance(text, cell, target, None)
    ends = [bool(met(v)) for v in (cell.low, cell.high) if v is not None]
    return Glance(text, cell, target, bool(met(cell.value)), len(set(ends)) < 2)


def lost_rows(rows: Sequence[tuple[str, list[Cell]]]) -> list[tuple[str, list[Cell]]]:
    """Those of them that lost anything; where none did, that says it all."""
    some = [row for row in rows if any(cell.value for cell in row[1])]
    return some or [("lost, % (all methods)", rows[0][1])]


# === Tables ===


def _completion(title: str, table: Report) -> Section:
    groups = table["groups"]
    done, whole = ([percent(g[key]) for g in groups.values()] for key in ("done", "valid"))
    rows = [
        (
            name,
            [
                percent(g["done"]),
                percent(g["valid"]),
                percent(g["warned"]),
                *(
                    percent(g["provenance"][k], 0) if g["provenance"] else Cell(None)
                    for k in ("observed", "filled", "mirrored", "model")
                ),
            ],
        )
        for name, g in groups.items()
    ]
    every = groups["all"]
    notes = [
        "A head is done where the photo gives one and, if the face is labelled, it is the head of "
        "that face. It is whole if it is finite, one piece, manifold, oriented, without degenerate "
        "faces, with one border, on the neck; this is counted with NumPy and SciPy, not by the "
        "package. Intervals (Wilson) take photos for independent; some show the same person."
    ]
    for what, key in (("Errors", "errors"), ("Faults", "faults"), ("Warnings", "warnings")):
        listed = "; ".join(f"{count}× {text}" for text, count in every[key].items())
        notes.append(f"{what}: {listed or 'none'}.")
    return Section(
        title,
        notes,
        [
            point_chart(
                list(groups),
                [series("done", done, 0), series("whole, of these", whole, 2)],
                title="Share of photos that give a head, and of heads that are whole",
                x_label="%",
                high=100.0,
            )
        ],
        [
            Grid(
                "% of photos; of heads; mean share of the vertices",
                ["done", "whole", "warned", "observed", "filled", "mirrored", "model"],
                rows,
            )
        ],
        [
            glance(
                "photos that give a head of their face, %",
                percent(every["done"]),
                "100",
                lambda v: v >= 100,
            ),
            glance("heads that are whole, %", percent(every["valid"]), "100", lambda v: v >= 100),
        ],
    )


def _occlusion(title: str, table: Report) -> Section:
    levels = [str(level) for level in occlusion.LEVELS]
    plots, rows = [], []
    for key, name, unit in (
        ("drift", "landmark drift", "% of the face's size"),
        ("turn", "rotation drift", "degrees"),
    ):
        lines = []
        for k, (column, at) in enumerate(table["columns"].items()):
            cells = [mean_cell(at[level][key]) for level in levels]
            lines.append(series(column, cells, k))
            rows.append((f"{name}, {unit}: {column}", cells))
        plots.append(
            line_chart(
                occlusion.LEVELS,
                lines,
                title=f"{name} over the share of the face that is covered",
                x_label="covered, % of the face's box",
                y_label=f"{name}, {unit}",
                x_names=levels,
                target=occlusion.TARGETS[key],
            )
        )
    rows += lost_rows(
        [
            (f"lost, %: {column}", [percent(at[level]["lost_rate"], 0) for level in levels])
            for column, at in table["columns"].items()
        ]
    )
    ours = next(iter(table["columns"].values()))
    return Section(
        title,
        [
            "Each result is held against the same method's own result on the photo without the "
            "pasted occluders. Means are over the photos that each method kept, which flatters one "
            "that loses the hardest; those lost are below."
        ],
        plots,
        [Grid("mean", [f"{level} % covered" for level in levels], rows)],
        [
            glance(
                f"landmark drift at {level} % covered, % of the face",
                mean_cell(ours[str(level)]["drift"]),
                f"≤ {target}",
                lambda v, target=target: v <= target,  # type: ignore[misc]
            )
            for level, target in zip(occlusion.LEVELS, occlusion.TARGETS["drift"], strict=True)
            if level in (30, 60)
        ],
    )


def _pose(title: str, table: Report) -> Section:
    plots, grids, glances = [], [], []
    names = [f"{low}-{high}" for low, high in zip(pose.BINS, pose.BINS[1:], strict=False)]
    for source, columns in table["sources"].items():
        lines, rows, lost = [], [], []
        for k, (column, bins) in enumerate(columns.items()):
            cells = [Cell(b["mean"], b["low"], b["high"], b["n"], 2, b.get("groups")) for b in bins]
            lines.append(series(column, cells, k))
            rows.append((column, cells))
            lost.append((f"{column}, lost, %", [percent(b["lost_rate"], 0) for b in bins]))
            found = [c for c in cells if c.value is not None]
            if k == 0 and found:
                glances.append(
                    glance(
                        f"pose, worst bin of {source}, degrees",
                        max(found, key=lambda c: c.value or 0.0),
                        f"≤ {pose.TARGET:.0f}",
                        lambda v: v <= pose.TARGET,
                    )
                )
        plots.append(
            line_chart(
                list(range(len(names))),
                lines,
                title=f"Rotation error by yaw: {source}",
                x_label=f"|yaw|, degrees — {source}",
                y_label="mean error, degrees",
                x_names=names,
                target=[pose.TARGET] * len(names),
            )
        )
        grids.append(Grid(f"{source}: mean error, degrees", names, rows + lost_rows(lost)))
    return Section(
        title,
        [
            "Mean absolute error about the head's own axes, after the constant turn between "
            "conventions was taken out (the printed table has it in, too). Photos are judged by "
            "other networks' answers, which differ by 3 to 4 degrees among themselves; of profiles "
            "only the yaw that the person was asked for is known. Intervals are over persons, or "
            "over the few scans."
        ],
        plots,
        grids,
        glances,
    )


def _scans(title: str, table: Report) -> Section:
    keys = [tuple(map(int, key.split("/"))) for key in next(iter(table["columns"].values()))]
    yaws, shares = (sorted({k[i] for k in keys}) for i in (0, 1))
    lines, rows, lost = [], [], []
    for k, (column, at) in enumerate(table["columns"].items()):
        for share in shares:
            cells = [mean_cell(at[f"{yaw}/{share}"]["mean"]) for yaw in yaws]
            name = f"{column}, {share} % covered" if share else column
            lines.append(series(name, cells, k, bool(share)))
            rows.append((name, cells))
            rates = [percent(at[f"{yaw}/{share}"]["lost_rate"], 0) for yaw in yaws]
            lost.append((f"{name}, lost, %", rates))
    rows += lost_rows(lost)
    reference = [v["mean"] for v in table[scans.MEAN_FACE].values()]
    average = sum(reference) / len(reference)
    rows.append(
        (scans.MEAN_FACE, [Cell(round(average, 4), n=len(reference))] * len(yaws)),
    )
    first = next(iter(table["columns"].values()))
    notes = [
        f"Mean distance from a scan's surface within {table['region_mm']:.0f} mm of the tip of its "
        "nose to the foundation, after a similarity. Pictures of a scan are not independent: "
        "intervals are over scans, and with few of them they are too narrow. The mean face, which "
        "looks at nothing, is the number to beat."
    ]
    if table.get("placed"):
        notes.append(
            "The scans are of the given folder; each was brought to the head frame by landmarks "
            "that this package found in pictures of it, then by its surface."
        )
    notes += [f"Left out: {name}: {why}." for name, why in table.get("skipped", {}).items()]
    return Section(
        title,
        notes,
        [
            line_chart(
                yaws,
                [
                    *lines,
                    Series(scans.MEAN_FACE, [average] * len(yaws), colour=6, dashed=True),
                ],
                title="Distance from scans over yaw",
                x_label="yaw of the picture, degrees",
                y_label="mean distance, mm",
                x_names=[str(yaw) for yaw in yaws],
                target=[scans.TARGET] * len(yaws),
            )
        ],
        [Grid("mean distance, mm", [f"yaw {yaw}" for yaw in yaws], rows)],
        [
            glance(
                f"scan error at yaw {yaw}, mm",
                mean_cell(first[f"{yaw}/0"]["mean"]),
                f"≤ {scans.TARGET}",
                lambda v: v <= scans.TARGET,
            )
            for yaw in yaws
        ],
    )


def _verification(title: str, table: Report) -> Section:
    plots, grids, glances, notes = [], [], [], []
    part = table["youtube"]
    if "columns" in part:
        lines, rows = [], []
        for k, (column, conditions) in enumerate(part["columns"].items()):
            for condition, c in conditions.items():
                i = c["intervals"]
                about = {"n": sum(part["pairs"].values()), "groups": part["persons"]}
                dashed = condition != "clean"
                lines.append(Series(f"{column}, {condition}", c["roc"], colour=k, dashed=dashed))
                rows.append(
                    (
                        f"{column}, {condition}",
                        [
                            mean_cell({**i[key], **about}, digits, scale)
                            if key in i
                            else Cell(None)
                            for key, digits, scale in (
                                ("auc", 3, 1),
                                ("auc_other_video", 3, 1),
                                ("one_minus_eer", 1, 100),
                                ("accuracy", 1, 100),
                            )
                        ]
                        + [Cell(c["not_found"], n=part["photos"], digits=0)],
                    )
                )
                if k == 0:
                    target = verification.TARGETS[condition]
                    glances.append(
                        glance(
                            f"verification AUC, {condition}",
                            rows[-1][1][0],
                            f"≥ {target}",
                            lambda v, target=target: v >= target,  # type: ignore[misc]
                        )
                    )
        at = [i / (verification.ROC_POINTS - 1) for i in range(verification.ROC_POINTS)]
        plots.append(
            line_chart(
                at,
                [*lines, Series("chance", at, colour=6, dashed=True)],
                title="ROC: same person or not",
                x_label="different persons taken for the same",
                y_label="same person recognised",
                top=1.0,
                markers=False,
            )
        )
        notes.append(
            f"All {sum(part['pairs'].values())} pairs of {part['photos']} photos of "
            f"{part['persons']} persons whom training left out; intervals are over persons. "
            "Accuracy is at the best threshold, which flatters all alike."
        )
        head = ["AUC", "AUC, other video", "100 % − EER", "accuracy, %", "photos without a face"]
        grids.append(Grid("YouTube Faces", head, rows))
    if "lfw" in table:
        part = table["lfw"]
        rows = [
            (
                f"{column}, {condition}",
                [mean_cell(c[k]) for k in ("one_minus_eer", "accuracy", "auc")],
            )
            for column, conditions in part["columns"].items()
            for condition, c in conditions.items()
        ]
        head = ["100 % − EER", "accuracy, %", "AUC, %"]
        grids.append(Grid(f"LFW's protocol: {part['photos']} photos; n is of folds", head, rows))
    return Section(title, notes, plots, grids, glances)


def _relief(title: str, table: Report) -> Section:
    columns = table["columns"]
    if not columns:
        return Section(title)
    grids = []
    for key, unit in (("angle", "angle to the true normals, degrees"), ("rms_mm", "RMS error, mm")):
        truths = [t for t in relief.TRUTHS if f"{key}/{t}" in next(iter(columns.values()))["all"]]
        rows = [
            (column, [mean_cell(cells["all"][f"{key}/{t}"]["value"]) for t in truths])
            for column, cells in columns.items()
        ]
        grids.append(Grid(f"{unit}, against", truths, rows))
    rows = [(column, [mean_cell(cells["all"]["leak_mm"], 3)]) for column, cells in columns.items()]
    grids.append(Grid("what an albedo pattern changes, RMS", ["mm"], rows))
    gain = columns.get(details.NETWORK, {}).get("all", {}).get(f"angle/{relief.PUT_ON}")
    glances = []
    if gain:
        glances.append(
            glance(
                "normals on heads with known relief, % below the foundation",
                mean_cell(gain["lower"], 0),
                f"≥ {relief.TARGET}",
                lambda v: v >= relief.TARGET,
            )
        )
    return Section(
        title,
        [
            "The heads are rendered: new ones, but their wrinkles and patterns are drawn by what "
            "drew the network's training."
        ],
        [],
        grids,
        glances,
    )


def _scan_relief(title: str, table: Report) -> Section:
    columns = table["columns"]
    if not columns:
        return Section(title)
    groups = list(columns[details.FOUNDATION])
    own = [t for t in columns if not t.startswith("oracle")]
    rows = [
        (column, [mean_cell(cells[g]["angle"]) for g in groups])
        for column, cells in columns.items()
    ]
    glances = []
    unseen = columns.get(details.NETWORK, {}).get(scan_relief.UNSEEN)
    if unseen:
        glances.append(
            glance(
                f"normals of the scan {scan_relief.UNSEEN}, % below the foundation",
                mean_cell(unseen["lower"], 0),
                f"≥ {scan_relief.TARGET}",
                lambda v: v >= scan_relief.TARGET,
            )
        )
    return Section(
        title,
        [
            "Oracles know the true relief up to some wavelength: they say what is left to gain. "
            "Intervals are over scans; one scan has none."
        ],
        [
            point_chart(
                own,
                [series("mean angle", [mean_cell(columns[t]["all"]["angle"]) for t in own], 0)],
                title="Angles between normals of detailed faces and of scans",
                x_label="mean angle, degrees (less is better)",
            )
        ],
        [Grid("mean angle, degrees", groups, rows)],
        glances,
    )


def _authors(title: str, table: Report) -> Section:
    bands = [f"{low:g}-{high:g} mm" for low, high in table["bands_mm"]]
    rows = [
        (column, [mean_cell(c) if "mean" in c else quartile_cell(c, 2) for c in cells])
        for column, cells in table["columns"].items()
    ]
    ours = table["columns"].get(details.NETWORK)
    glances = []
    if ours:
        cell = mean_cell(ours[0]) if "mean" in ours[0] else quartile_cell(ours[0], 2)
        glances.append(
            glance(
                f"correlation with the authors' bump maps, {bands[0]}",
                cell,
                f"≥ {authors.TARGET}",
                lambda v: v >= authors.TARGET,
            )
        )
    return Section(
        title,
        [
            "Agreement with the authors' results, which are no truth: their maps follow the "
            "photo's brightness, as the first row says."
        ],
        [],
        [Grid("mean correlation", bands, rows)],
        glances,
    )


def _mask(title: str, table: Report) -> Section:
    sets, columns = list(mask.TARGETS), table["columns"]
    cells = {column: [mean_cell(at[s]["iou"], 3) for s in sets] for column, at in columns.items()}
    rows = [(f"IoU: {column}", c) for column, c in cells.items()]
    rows += [
        (f"hidden pixels removed, %: {column}", [percent(at[s]["removed_rate"]) for s in sets])
        for column, at in columns.items()
    ]
    lost = [percent(table["lost_rate"][s], 0) for s in sets]
    rows.append(("photos without their face, %", lost))
    ours = cells.get(details.NETWORK)
    return Section(
        title,
        ["Labels are inside the face region of our foundation; intervals are over photos."],
        [
            point_chart(
                sets,
                [series(column, c, k) for k, (column, c) in enumerate(cells.items())],
                title="IoU of the face mask with labels",
                x_label="IoU (more is better)",
                target=list(mask.TARGETS.values()),
                high=1.0,
            )
        ],
        [Grid("face mask", sets, rows)],
        [
            glance(
                f"mask IoU, {s}",
                ours[i],
                f"≥ {mask.TARGETS[s]}",
                lambda v, s=s: v >= mask.TARGETS[s],  # type: ignore[misc]
            )
            for i, s in enumerate(sets)
        ]
        if ours
        else [],
    )


def _holes(title: str, table: Report) -> Section:
    conditions = {
        k: v for k, v in table["conditions"].items() if any(f["rms"]["n"] for f in v.values())
    }
    if not conditions:
        return Section(title)
    titles = list(next(iter(conditions.values())))
    shown = [t for t in titles if t in (fills.PRODUCT, fills.MIRRORED, fills.SMOOTH, fills.NONE)]

    def plot(key: str, name: str, label: str) -> str:
        return point_chart(
            list(conditions),
            [
                series(t, [mean_cell(c[t][key]) for c in conditions.values()], titles.index(t))
                for t in shown
            ],
            title=name,
            x_label=label,
        )

    grids = [
        Grid(
            name,
            list(conditions),
            [(t, [mean_cell(c[t][key], 3) for c in conditions.values()]) for t in titles],
        )
        for key, name in (
            ("rms", "RMS error, mm"),
            ("fine", "correlation of waves of 2-15 mm"),
            ("strength", "strength of fine waves, of the truth's"),
        )
    ]
    product = conditions.get("all", {}).get(fills.PRODUCT)
    glances = []
    if product:
        glances = [
            glance(
                "filled holes, correlation more than smooth filling has",
                mean_cell(product["fine_gain"], 3),
                f"≥ {holes.TARGET}",
                lambda v: v >= holes.TARGET,
            ),
            glance(
                "filled holes, RMS more than smooth filling has, mm",
                mean_cell(product["rms_gain"], 3),
                "≤ 0",
                lambda v: v <= 0,
            ),
        ]
    return Section(
        title,
        [
            f"Held against the bump map of the same photo uncovered, on {table['photos']} photos; "
            "a photo's pictures count as one. That map is the network's, no scan. Filling that "
            "says little has a small RMS too: its strength tells."
        ],
        [
            plot("rms", "RMS error of filled holes", "RMS error, mm (less is better)"),
            plot("fine", "Correlation of filled holes", "correlation, 2-15 mm (more is better)"),
        ],
        grids,
        glances,
    )


def _bump_verification(title: str, table: Report) -> Section:
    n = table["pairs"]["same"] + table["pairs"]["different"]
    about = {"n": n, "groups": table["persons"]}

    def cells(found: Report, scale: float, digits: int) -> list[Cell]:
        return [
            mean_cell({**found[k], **about}, digits, scale) if k in found else Cell(None)
            for k in verification.MEASURES
        ]

    head = ["accuracy", "AUC", "AUC, other video"]
    recovered = table["recovered"]
    ours = recovered.get("one filled, reference", {}).get("accuracy")
    target = 100 * bump_verification.TARGET
    return Section(
        title,
        ["By a network that sees bump maps alone; intervals are over persons."],
        [],
        [
            Grid("share", head, [(t, cells(c, 1, 3)) for t, c in table["conditions"].items()]),
            Grid(
                "of the drop that filling recovers, %",
                head,
                [(t, cells(c, 100, 0)) for t, c in recovered.items()],
            ),
        ],
        [
            glance(
                "drop of recognition that filling recovers, %",
                mean_cell({**ours, **about}, 0, 100),
                f"≥ {target:.0f}",
                lambda v: v >= target,
            )
        ]
        if ours
        else [],
    )


def _time(title: str, table: Report) -> Section:
    grids = [
        Grid(name, ["ms"], [(stage, [quartile_cell(s)]) for stage, s in stages.items()])
        for name, stages in (
            *table["columns"].items(),
            ("sources of detail", table["detail"]),
            (f"occlusion, photos covered by {timing.COVERED:.0%}", table["occlusion"]),
        )
        if stages
    ]
    return Section(
        title,
        [
            f"{table['threads']} threads; median, in brackets quartiles, no interval. These say "
            "where time goes; `bench throughput` and `bench stages` measure it with more care."
        ],
        [],
        grids,
    )


SECTIONS: dict[str, tuple[str, Callable[[str, Report], Section]]] = {
    completion.NAME: ("Completion and whole meshes", _completion),
    occlusion.NAME: ("Occlusion", _occlusion),
    pose.NAME: ("Pose", _pose),
    scans.NAME: ("Distance from scans", _scans),
    verification.NAME: ("Verification", _verification),
    relief.NAME: ("Relief of rendered heads", _relief),
    scan_relief.NAME: ("Relief of scans", _scan_relief),
    authors.NAME: ("The authors' bump maps", _authors),
    mask.NAME: ("Face mask", _mask),
    holes.NAME: ("Filled holes", _holes),
    bump_verification.NAME: ("Recognition from bump maps", _bump_verification),
    timing.NAME: ("Time", _time),
}
