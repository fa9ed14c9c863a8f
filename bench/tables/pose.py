"""Error of the rotation by |yaw|: photos with a consensus of teachers, and known poses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.columns import geodesic, turn_between
from bench.photos import Photo, held_out_photos, is_held_out, person_of, read_rgb
from bench.scan_views import load_scans, render
from bench.stats import proportion, summary
from bench.tables import Context, between, cell

NAME = "pose"
HELP = "rotation error by |yaw|"

BINS = (0, 15, 30, 45, 60, 75, 90)
PER_BIN = 60  # of each source
TEACHERS_MEAN_BELOW = 30.0  # degrees: beyond, MediaPipe's yaw is too small and WHENet is taken
DISAGREEMENT = 15.0  # degrees between teachers, below that yaw: the photo is left out
YAWS = range(-90, 91, 15)
PITCHES = (-20, 0, 20)
TARGET = 4.0  # degrees, mean over the three axes
AXES = ("pitch", "yaw", "roll")


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and the rotation that is taken for true."""

    source: str
    convention: str  # samples of one convention of what a frontal head is
    image: Any  # () -> (H, W, 3) uint8
    rotation: np.ndarray
    angles: tuple[int, ...] = (0, 1, 2)  # axes that the truth knows
    whose: str = ""  # person or scan: pictures of one are not independent; "": its own


def measure(context: Context) -> dict[str, Any]:
    samples = [*photo_samples(context), *profile_samples(context), *scan_samples(context)]
    if context.synthetic:
        samples += synthetic_samples(context.synthetic)
    samples = thin(samples, 1 if context.quick else PER_BIN, context.seed)
    answers: dict[str, list[np.ndarray | None]] = {title: [] for title in context.columns}
    for sample in samples:
        image = sample.image()
        for title, column in context.columns.items():
            answer = column(image)
            answers[title].append(None if answer is None else answer.rotation)
    sources = list(dict.fromkeys(s.source for s in samples))
    out: dict[str, Any] = {source: {} for source in sources}
    for title, rotations in answers.items():
        offsets = convention_offsets(samples, rotations)
        for source in sources:
            rows = [i for i, s in enumerate(samples) if s.source == source]
            out[source][title] = of_bins(
                [samples[i] for i in rows], [rotations[i] for i in rows], offsets
            )
    return {"sources": out}


# === Samples ===


def photo_samples(context: Context) -> list[Sample]:
    """Held-out photos against their teachers."""
    out = []
    for photo in held_out_photos(context.data):
        rotation = consensus(photo)
        if rotation is not None:
            out.append(
                Sample(
                    "photos, teachers' consensus",
                    "teachers",
                    photo.read,
                    rotation,
                    whose=photo.person,
                )
            )
    return out


def consensus(photo: Photo) -> np.ndarray | None:
    """Rotation that the teachers agree on; None where they do not."""
    from extreme3d_fast.camera import angles_from_rotation

    if abs(angles_from_rotation(photo.whenet)[0]) >= TEACHERS_MEAN_BELOW:
        return photo.whenet
    if geodesic(photo.whenet, photo.mediapipe) > DISAGREEMENT:
        return None
    u, _, vt = np.linalg.svd(photo.whenet + photo.mediapipe)
    return np.asarray(u @ vt)


def profile_samples(context: Context) -> list[Sample]:
    """Held-out persons of FASSEG, who were asked to look at marks on a wall: yaw alone is known."""
    from extreme3d_fast.camera import rotation_from_angles

    out = []
    for path in sorted((context.data / "photos" / "fasseg_profile").glob("*_yaw*.jpg")):
        if is_held_out(person_of(f"fasseg_profile/{path.name}")):
            # their sign is opposite to ours
            rotation = rotation_from_angles(-float(path.stem.rsplit("yaw", 1)[1]))
            out.append(
                Sample(
                    "profiles, yaw asked for",
                    "fasseg",
                    _reader(path),
                    rotation,
                    angles=(1,),
                    whose=person_of(f"fasseg_profile/{path.name}"),
                )
            )
    return out


def scan_samples(context: Context) -> list[Sample]:
    """The scans on a grid of poses."""
    scans = load_scans(context.data / "scans", context.model)
    backgrounds = [p for p in held_out_photos(context.data) if p.folder == "celebamask"]
    out = []
    for scan in scans[: 1 if context.quick else None]:
        for i, yaw in enumerate(YAWS):
            for j, pitch in enumerate(PITCHES):
                seed = context.seed + 7 * i + 100 * j
                out.append(
                    Sample(
                        "rendered scans",
                        scan.name,
                        lambda scan=scan, yaw=yaw, pitch=pitch, seed=seed: (
                            render(
                                scan,
                                context.model,
                                backgrounds[seed % len(backgrounds)].read(),
                                yaw=yaw,
                                pitch=pitch,
                                distance=(500.0, 800.0, 1500.0)[seed % 3],
                                seed=seed,
                            ).image
                        ),
                        _rotation(yaw, pitch),
                        whose=scan.name,
                    )
                )
    return out


def synthetic_samples(folder: Path) -> list[Sample]:
    """Held-out rows of rendered training sets: NAME.npz with labels beside NAME.npy with photos."""
    out = []
    sets = sorted(folder.glob("synthetic_*.npz"))
    if not sets:
        raise SystemExit(f"no synthetic_*.npz in {folder}")
    for labels in sets:
        rows = np.load(labels)
        pictures = np.load(labels.with_suffix(".npy"), mmap_mode="r")
        for i in np.flatnonzero(rows["val"]):
            rotation = rows["rotation"][i].astype(np.float64)
            out.append(Sample("synthetic", "head model", _row(pictures, int(i)), rotation))
    return out


def _reader(path: Path) -> Any:
    return lambda: read_rgb(path)


def _row(pictures: np.ndarray, i: int) -> Any:
    return lambda: np.ascontiguousarray(pictures[i])


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    from extreme3d_fast.camera import rotation_from_angles

    return rotation_from_angles(yaw, pitch)


def thin(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """At most `count` of each source and bin."""
    rng = np.random.default_rng(seed)
    left: dict[tuple[str, int], int] = {}
    out = []
    for i in rng.permutation(len(samples)):
        key = samples[i].source, bin_of(samples[i].rotation)
        if key[1] >= 0 and left.setdefault(key, count) > 0:
            left[key] -= 1
            out.append(int(i))
    return [samples[i] for i in sorted(out)]


def bin_of(rotation: np.ndarray) -> int:
    """Which bin of |yaw| a rotation falls into; -1 beyond 90 degrees."""
    if (np.diag([1.0, -1.0, -1.0]) @ rotation)[2, 2] < -1e-6:  # the face looks away
        return -1
    from extreme3d_fast.camera import angles_from_rotation

    yaw = abs(angles_from_rotation(rotation)[0])
    return min(int(np.searchsorted(BINS, yaw + 1e-6, side="right")) - 1, len(BINS) - 2)


# === Errors ===


def convention_offsets(
    samples: list[Sample], rotations: Iterable[np.ndarray | None]
) -> dict[str, np.ndarray]:
    """Median turn, in the head frame, between truth and answer on nearly frontal pictures.

    What counts as a frontal head is a convention of each teacher and each scan.
    """
    turns: dict[str, list[np.ndarray]] = {}
    for sample, rotation in zip(samples, rotations, strict=True):
        if rotation is not None and bin_of(sample.rotation) == 0:
            turns.setdefault(sample.convention, []).append(turn_between(sample.rotation, rotation))
    return {name: np.median(values, axis=0) for name, values in turns.items()}


def of_bins(
    samples: list[Sample], rotations: list[np.ndarray | None], offsets: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Per bin: mean absolute error of each axis, degrees, without and with the constant offset."""
    from extreme3d_fast.camera import rotation_from_vector

    out = []
    for b in range(len(BINS) - 1):
        errors, raw, groups, lost = [], [], [], 0
        axes: tuple[int, ...] = (0, 1, 2)
        for i, (sample, rotation) in enumerate(zip(samples, rotations, strict=True)):
            if bin_of(sample.rotation) != b:
                continue
            axes = sample.angles
            if rotation is None:
                lost += 1
                continue
            offset = rotation_from_vector(offsets.get(sample.convention, np.zeros(3)))
            groups.append(sample.whose or str(i))
            raw.append(turn_between(sample.rotation, rotation))
            errors.append(turn_between(sample.rotation, rotation @ offset.T))
        row: dict[str, Any] = {"bin": f"{BINS[b]}-{BINS[b + 1]}", "n": len(errors), "lost": lost}
        row["lost_rate"] = proportion(lost, lost + len(errors))
        for name, values in (("", errors), ("raw_", raw)):
            degrees = np.abs(np.degrees(np.array(values).reshape(-1, 3)))
            known = {AXES[k]: round(float(degrees[:, k].mean()), 3) for k in axes if len(values)}
            row |= {f"{name}{axis}": known.get(axis) for axis in AXES}
            mean = round(float(degrees[:, list(axes)].mean()), 3) if len(values) else None
            row[f"{name}mean"] = mean
            spread = summary(degrees[:, list(axes)].mean(1), groups=groups)
            row |= {f"{name}{end}": spread[end] for end in ("low", "high")}
        row["groups"] = len(set(groups))
        out.append(row)
    return out


def lines(report: Mapping[str, Any]) -> list[str]:
    out = [
        "mean absolute error in degrees about the head's own axes, less the constant turn between",
        "conventions (median of the first bin; raw: the mean error with it); 95 % interval of the "
        "mean over persons or scans, of which there are so many (of)",
    ]
    for source, columns in report["sources"].items():
        out.append(source)
        for title, rows in columns.items():
            out.append(
                f"  {title:<16}{'|yaw|':>8}{'yaw':>9}{'pitch':>9}{'roll':>9}{'mean':>9}"
                f"{'(95 %)':>15}{'raw':>9}{'n':>6}{'of':>6}{'lost':>6}"
            )
            for row in rows:
                if row["n"] + row["lost"] == 0:
                    continue
                values = "".join(cell(row[axis]) for axis in ("yaw", "pitch", "roll", "mean"))
                interval = f"({between(row, 2)})" if row["n"] else "-"
                out.append(
                    f"  {'':<16}{row['bin']:>8}{values}{interval:>15}{cell(row['raw_mean'])}"
                    f"{row['n']:>6}{row['groups']:>6}{row['lost']:>6}"
                )
    out.append(f"  target: mean <= {TARGET:.0f} in every bin")
    return out
