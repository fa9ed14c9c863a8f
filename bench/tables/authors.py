"""How far relief agrees with the authors' own bump maps, on their photos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import authors_maps, details
from bench.face_views import view_face
from bench.stats import quartiles, summary
from bench.tables import Context, between, missing_lines
from bench.timing import spread

NAME = "authors"
HELP = "correlation of relief with the authors' bump maps on their 29 photos"

# Waves in mm; the first is what the target is about.
BANDS = ((2.0, 15.0), (1.0, 6.0), (4.0, 20.0), (10.0, 60.0))
TARGET = 0.75


def measure(context: Context) -> dict[str, Any]:
    sources, missing = context.sources
    sources = {t: s for t, s in sources.items() if t != details.FOUNDATION}
    records = []
    for photo in authors_maps.load(
        context.data,
        lambda image: view_face(context.reconstructor, image),
        2 if context.quick else None,
    ):
        view = photo.view
        # their maps follow the photo's brightness; this says how closely
        maps = {"darkness of the photo": 255 - view.image.mean(axis=2)}
        maps |= {title: source(view).bump for title, source in sources.items()}
        for title, bump in maps.items():
            found = [
                authors_maps.correlation(bump, photo.theirs, photo.valid, view.mm_per_pixel, *band)
                for band in BANDS
            ]
            records.append(
                {
                    "photo": photo.name,
                    "column": title,
                    "share": round(float(photo.valid.sum() / view.face.sum()), 4),
                    "correlations": [None if np.isnan(c) else round(c, 4) for c in found],
                }
            )
    return {
        "bands_mm": BANDS,
        "records": records,
        "missing": missing,
        "columns": {
            title: [
                of_photos([r["correlations"][i] for r in records if r["column"] == title])
                for i in range(len(BANDS))
            ]
            for title in dict.fromkeys(r["column"] for r in records)
        },
    }


def of_photos(values: list[float | None]) -> dict[str, float | int | None]:
    """Median and quartiles, and the mean with its 95 % interval, of the values that there are."""
    mean = summary([v for v in values if v is not None and np.isfinite(v)])
    return {**quartiles(values), **{k: mean[k] for k in ("mean", "low", "high")}}


def lines(report: Mapping[str, Any]) -> list[str]:
    share = np.median([r["share"] for r in report["records"]] or [np.nan])
    bands = [f"{low:.0f}-{high:.0f} mm" for low, high in report["bands_mm"]]
    out = [
        "correlation inside face pixels that neither hides nor the authors filled "
        f"({share:.0%} of the face): median (quartiles), mean [95 % interval], n",
        "bands: difference of Gaussians that halve the waves named (sigma 0.187 waves), "
        "normalised by those pixels",
        f"{'':<24}" + "".join(f"{band:>38}" for band in bands),
    ]
    for title, cells in report["columns"].items():
        out.append(f"{title:<24}" + "".join(f"{_cell(c):>38}" for c in cells))
    out.append(f"{'  target':<24}{f'>= {TARGET}':>38}")
    return out + missing_lines(report)


def _cell(c: Mapping[str, Any]) -> str:
    if c["median"] is None:
        return "-"
    return f"{spread(c)}, {c['mean']:.2f} [{between(c, 2)}] {c['n']:>2}"
