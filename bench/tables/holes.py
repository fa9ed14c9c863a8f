"""Whether what fills a hole is what it hides: covered photos beside the same photos uncovered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from bench import fills, mask_labels
from bench.authors_maps import correlation
from bench.bands import band_pass
from bench.pasting import KINDS, Occluders
from bench.photos import Photo, held_out_photos
from bench.stats import quartiles, summary
from bench.tables import Context, between, cell
from bench.timing import spread

NAME = "holes"
HELP = "filled holes against the bump of the same photo uncovered"

PHOTOS = 60
FOLDERS = ("celebamask", "utkface")
MAX_HIDDEN = 0.02  # share of the face: more, and a photo is not clean
SHARES = (15, 30, 45)  # % of the face, by hands
WORN = ("glasses", "masks")
CONDITIONS = (*(f"hands {share} %" for share in SHARES), *WORN)
YAWS = (10.0, 20.0, 90.0)  # degrees, upper limits of bins, from each of which a photo in turn
LEAST = 500  # px: smaller holes tell nothing
# Waves of relief in mm that are compared, as with the authors' maps, and all that bump maps hold.
FINE, WHOLE = (2.0, 15.0), (0.0, 64.0)
TARGET = 0.15  # what the first must gain over smooth filling in correlation

MEASURES = ("rms", "fine", "whole", "strength", "seam")
# What pictures and references are like, in words.
ABOUT = {
    "pasted": "pasted, of the face",
    "hole": "hole, of the face",
    "missed": "in no hole, of what is pasted",
    "true_seam": "the truth's own change of slope",
    "pose_distance": "viewpoint of the reference off, degrees",
    "similarity": "similarity",
}


def measure(context: Context) -> dict[str, Any]:
    from extreme3d_fast.bump_network import BumpNetwork

    network = BumpNetwork(open_network=context.open_network)
    occluders = Occluders(context.data / "occluders", held_out=True)
    lenders, references, missing = load_lenders(context)
    rows: list[dict[str, Any]] = []
    seen_clean = 0
    for photo, clean in clean_photos(context, network):
        seen_clean += 1
        rng = np.random.default_rng([context.seed, photo.key])
        for name, image, pasted in pictures(clean, occluders, rng):
            covered = fills.look(network, clean.target, image)
            judged = covered.hole & ~clean.hole & clean.target.view.face
            if judged.sum() < LEAST:
                continue
            about = of_covered(photo, clean, covered, pasted, judged) | {"condition": name}
            if references:
                (found,) = references.search(covered)
                about |= {"pose_distance": found.pose_distance, "similarity": found.similarity}
            for title, lend in lenders.items():
                bump = lend(covered)
                rows.append({**about, "fill": title, **scores(bump, clean, covered, judged)})
    return {
        "photos": seen_clean,
        "references": len(references.set) if references else 0,
        "missing": missing,
        "records": rows,
        "conditions": {
            name: of_rows([r for r in rows if r["condition"] == name], lenders)
            for name in CONDITIONS
        }
        | {"all": of_rows(rows, lenders)},
        "splits": {
            name: of_rows([r for r in rows if chosen(r)], lenders)
            for name, chosen in splits().items()
        },
        "about": {
            key: quartiles([r.get(key) for r in rows if r["fill"] == fills.SMOOTH]) for key in ABOUT
        },
    }


def load_lenders(
    context: Context,
) -> tuple[dict[str, Callable[[fills.Seen], np.ndarray]], fills.References | None, dict[str, str]]:
    """Ways of filling by title, the reference set, and why others are missing."""
    rng = np.random.default_rng(context.seed)

    def blended(lend: fills.Lender) -> Callable[[fills.Seen], np.ndarray]:
        return lambda seen: fills.filled(seen, lend(seen))

    lenders: dict[str, Callable[[fills.Seen], np.ndarray]] = {}
    references, missing = None, {}
    try:
        references = fills.References(context.references, context.model, context.open_network)
    except (FileNotFoundError, ValueError) as error:
        missing["references"] = str(error)
    if references:
        r = references
        lenders |= {
            fills.PRODUCT: blended(r.several),
            fills.SURFACE: blended(lambda seen: r.by_surface(seen, r.search(seen))),
            fills.SIMILARITY: blended(lambda seen: r.by_similarity(seen, r.search(seen))),
            fills.ANYBODY: blended(lambda seen: r.by_surface(seen, r.search_anybody(seen, rng))),
            fills.MEAN: blended(r.mean_face()),
        }
    lenders |= {
        fills.MIRRORED: blended(fills.mirrored_half),
        fills.SMOOTH: blended(lambda _: None),
        fills.NONE: lambda seen: seen.bump,
    }
    return {t: lenders[t] for t in fills.TITLES if t in lenders}, references, missing


def clean_photos(context: Context, network: Any) -> Iterator[tuple[Photo, fills.Seen]]:
    """Held-out photos on which nothing covers the face, as many from each folder."""
    held_out = held_out_photos(context.data)
    count = 2 if context.quick else PHOTOS
    rng = np.random.default_rng(context.seed)
    for i, folder in enumerate(FOLDERS):
        among = [p for p in held_out if p.folder == folder]
        wanted = count // len(FOLDERS) + (i < count % len(FOLDERS))
        for photo in in_turn([among[row] for row in rng.permutation(len(among))]):
            if not wanted:
                break
            image = photo.read()
            target = fills.target_of(context.reconstructor, image)
            if target is None or not labelled_clean(photo, image, target, context):
                continue
            clean = fills.look(network, target, target.view.image)
            if clean.hidden < MAX_HIDDEN:
                wanted -= 1
                yield photo, clean


def in_turn(photos: Sequence[Photo]) -> list[Photo]:
    """The photos, those of each bin of yaw in their order, a bin in turn while it lasts."""
    from extreme3d_fast.camera import angles_from_rotation

    yaws = [abs(angles_from_rotation(photo.whenet)[0]) for photo in photos]
    seen = [0] * len(YAWS)
    ranks = []
    for yaw in yaws:
        k = min(int(np.searchsorted(YAWS, yaw, side="right")), len(YAWS) - 1)
        ranks.append((seen[k], k))
        seen[k] += 1
    return [photos[i] for i in sorted(range(len(photos)), key=ranks.__getitem__)]


def labelled_clean(photo: Photo, image: np.ndarray, target: fills.Target, context: Context) -> bool:
    """Whether the labels, where a photo has them, say that nothing covers the face."""
    if photo.folder != "celebamask":
        return True
    path = context.data / "photos" / "celebamask_parsing" / f"{photo.path.stem}.png"
    parsing = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if (parsing == mask_labels.GLASSES).any():
        return False
    face = mask_labels.celebamask_labels(target.view, parsing, image.shape).face
    return hidden_share(face, target.view.weight) < MAX_HIDDEN


def hidden_share(face: np.ndarray, weight: np.ndarray) -> float:
    return float(weight[~face].sum() / weight.sum()) if weight.any() else 1.0


def pictures(
    clean: fills.Seen, occluders: Occluders, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Conditions: name, the crop with something pasted, and (S, S) bool where that is."""
    target = clean.target
    face = target.view.face
    hands = {kind: float(kind == "hands") for kind in KINDS}
    for share in SHARES:
        image, by = occluders.paste(
            clean.image, target.box, share / 100, rng, kinds=hands, face=face
        )
        yield f"hands {share} %", image, by > 0
    for kind in WORN:
        yield kind, *occluders.wear(clean.image, target.box, kind, rng)


def of_covered(
    photo: Photo, clean: fills.Seen, covered: fills.Seen, pasted: np.ndarray, judged: np.ndarray
) -> dict[str, Any]:
    """What is known of a covered photo: shares of the face, and its yaw in degrees."""
    from extreme3d_fast.camera import angles_from_rotation

    face = clean.target.view.face
    under = pasted & face
    return {
        "photo": photo.name,
        "yaw": round(float(angles_from_rotation(clean.target.view.camera_from_head[:3, :3])[0]), 1),
        "pasted": share_of(under, face),
        "hole": share_of(covered.hole, face),
        "missed": share_of(~covered.hole, under),  # of what is pasted
        "judged_px": int(judged.sum()),
    }


def share_of(part: np.ndarray, whole: np.ndarray) -> float:
    return round(float(part[whole].mean()), 4) if whole.any() else 0.0


def scores(
    bump: np.ndarray, clean: fills.Seen, covered: fills.Seen, judged: np.ndarray
) -> dict[str, float]:
    """How near a filled map is to that of the uncovered photo, where it is judged."""
    view = clean.target.view
    mm = view.mm_per_pixel
    usable = view.face & ~clean.hole
    fold, true_fold = (folds(m, covered.hole, usable, mm) for m in (bump, clean.bump))
    found = {
        "rms": float(np.sqrt(np.mean((bump - clean.bump)[judged] ** 2))),
        "fine": correlation(bump, clean.bump, judged, mm, *FINE),
        "whole": correlation(bump, clean.bump, judged, mm, *WHOLE),
        "strength": strength(bump, judged, mm) / max(strength(clean.bump, judged, mm), 1e-6),
        "seam": fold - true_fold,
        "true_seam": true_fold,
    }
    return {key: round(value, 4) for key, value in found.items()}


def strength(bump: np.ndarray, judged: np.ndarray, mm_per_pixel: float) -> float:
    """RMS of the fine waves, mm."""
    return float(np.sqrt(np.mean(band_pass(bump, judged, mm_per_pixel, *FINE)[judged] ** 2)))


def folds(bump: np.ndarray, hole: np.ndarray, usable: np.ndarray, mm_per_pixel: float) -> float:
    """RMS change of slope (mm a mm) from pixel to pixel across the borders of holes.

    It is that between three pixels in a row or column, all usable, of which some lie in a hole and
    some do not: it sees folds as well as steps. 0 where there is no border.
    """
    changes = []
    for m, h, u in ((bump, hole, usable), (bump.T, hole.T, usable.T)):
        change = (m[:, 2:] - 2 * m[:, 1:-1] + m[:, :-2]) / mm_per_pixel
        inside = h[:, 2:].astype(int) + h[:, 1:-1] + h[:, :-2]
        all_usable = u[:, 2:] & u[:, 1:-1] & u[:, :-2]
        changes.append(change[all_usable & (inside > 0) & (inside < 3)])
    found = np.concatenate(changes)
    return float(np.sqrt(np.mean(found.astype(np.float64) ** 2))) if len(found) else 0.0


def splits() -> dict[str, Callable[[Mapping[str, Any]], bool]]:
    """Other ways to part the records: by yaw, by folder."""
    out: dict[str, Callable[[Mapping[str, Any]], bool]] = {}
    for low, high in zip((0.0, *YAWS), YAWS, strict=False):
        name = f"yaw {low:.0f}-{high:.0f}"
        out[name] = lambda r, low=low, high=high: low <= abs(r["yaw"]) < high  # type: ignore[misc]
    for folder in FOLDERS:
        out[folder] = lambda r, folder=folder: r["photo"].startswith(folder)  # type: ignore[misc]
    return out


def of_rows(rows: Sequence[Mapping[str, Any]], titles: Any) -> dict[str, dict[str, Any]]:
    """Of each fill: each measure, and its gain over smooth filling on the same pictures.

    The pictures of a photo count as one, their mean: they are no independent samples.
    """
    out: dict[str, dict[str, Any]] = {}
    for title in titles:
        out[title] = {}
        for key in MEASURES:
            own, smooth = (of_photos(rows, fill, key) for fill in (title, fills.SMOOTH))
            out[title][key] = summary(own)
            out[title][f"{key}_gain"] = summary(own - smooth)
    return out


def of_photos(rows: Sequence[Mapping[str, Any]], fill: str, key: str) -> np.ndarray:
    """A measure of a fill, a mean for each photo."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["fill"] == fill:
            values.setdefault(row["photo"], []).append(row[key])
    return np.array([np.mean(v) for v in values.values()])


def lines(report: Mapping[str, Any]) -> list[str]:
    out = [
        f"{report['photos']} held-out photos on which nothing covers the face, "
        f"{report['references']} references; holes as the network's mask of the covered crop makes "
        "them, judged where the uncovered photo shows the face",
        "RMS error in mm and correlation, of waves of "
        f"{FINE[0]:.0f}-{FINE[1]:.0f} mm, of up to {WHOLE[1]:.0f} mm, with the bump of the "
        "uncovered photo; strength: RMS of fine waves, of the truth's; seam: RMS change of slope "
        "from pixel to pixel at the border of holes more than the truth's; mean "
        "(95 % interval) median over photos",
        "median (quartiles): "
        + "; ".join(f"{text} {spread(report['about'][key], '.3g')}" for key, text in ABOUT.items()),
        f"{'':<14}{'':<24}{'n':>4}{'RMS, mm':>26}{'- smooth':>24}"
        f"{'correlation':>27}{'- smooth':>24}{'up to 64 mm':>13}{'strength':>10}"
        f"{'seam':>9}",
    ]
    for name, fills_of in (*report["conditions"].items(), *report["splits"].items()):
        for title, c in fills_of.items():
            if not c["rms"]["n"]:
                continue
            out.append(
                f"{name:<14}{title:<24}{c['rms']['n']:>4}{_cell(c['rms'], 3):>26}"
                f"{_gain(c['rms_gain']):>24}{_cell(c['fine'], 2):>27}{_gain(c['fine_gain']):>24}"
                f"{cell(c['whole']['mean'], 2, 13)}{cell(c['strength']['mean'], 2, 10)}"
                f"{cell(c['seam']['mean'], 4)}"
            )
    out.append(
        f"  target: {fills.PRODUCT} gains >= {TARGET} in correlation over smooth, <= 0 mm in RMS"
    )
    return out + [f"without {title}: {why}" for title, why in report["missing"].items()]


def _cell(s: Mapping[str, Any], digits: int) -> str:
    return f"{s['mean']:.{digits}f} ({between(s, digits)}) {s['median']:.{digits}f}"


def _gain(s: Mapping[str, Any]) -> str:
    return f"{s['mean']:+.3f} ({between(s, 3, sign='+', to=' ')})"
