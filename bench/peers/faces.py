"""Faces and their landmarks in photos: ours, and MediaPipe's Face Mesh in its own environment.

The networks are the same (ours are converted from MediaPipe's), what runs them and what happens
around them are not.
"""

from __future__ import annotations

import atexit
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.contest import Agreement, Contender, Contest, OwnClock, each_in_turn, gather
from bench.peers.environments import check_mediapipe
from bench.peers.settings import Settings, scratch, source

NAME = "faces"
HELP = "a face found, with its landmarks: MediaPipe 0.10.21"
THREADS = "both"
PACKAGES = ()

LANDMARKS, FOUNDATION = "ours, landmarks", "ours, foundation"
POINTS = 468
# Both look twice for the face, but not at quite the same squares.
TOLERANCE = 0.03  # of the face's size, mean over its points, median over the photos


def contest(settings: Settings) -> Contest:
    from extreme3d_fast import NoFaceFound, Reconstructor
    from extreme3d_fast.detect import FaceDetector
    from extreme3d_fast.image_io import load_image

    images = [load_image(source(photo)) for photo in settings.photos]
    detector = FaceDetector(threads=settings.threads)
    reconstructor = Reconstructor(threads=settings.threads)

    def landmarks(image: np.ndarray) -> np.ndarray | None:
        faces = detector.detect(image)
        return detector.landmarks(image, faces[0]).points if faces else None

    def foundation(image: np.ndarray) -> Any:
        try:
            return reconstructor.estimate_foundation(image)
        except NoFaceFound:
            return None

    ours = [landmarks(image) for image in images]
    counts = {
        LANDMARKS: _found(ours),
        FOUNDATION: _found([foundation(image) for image in images]),
    }
    peers, missing = gather(
        {"MediaPipe": lambda: _mediapipe(settings, images, ours, counts)},
    )
    return Contest(
        given=f"{len(images)} photos, decoded, one a round",
        ours=[
            Contender(
                LANDMARKS,
                each_in_turn(images, landmarks),
                "face found in the whole photo (in its parts too, where that leaves doubt), its "
                f"{POINTS} points placed in two passes",
            ),
            Contender(
                FOUNDATION,
                each_in_turn(images, foundation),
                "the same and pose, identity, expression, camera: more than MediaPipe does",
            ),
        ],
        peers=peers,
        missing=missing,
        every=len(images),
        counts=counts,
    )


def _found(answers: list[Any]) -> str:
    n = sum(answer is not None for answer in answers)
    return f"found a face in {n} photos, none in {len(answers) - n}"


class Worker:
    """MediaPipe in another process.

    Raises:
        RuntimeError: it ends before it answers.
    """

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("mediapipe_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self.close)
        self._read()

    def look(self, photo: Path, *, refined: bool) -> tuple[float, np.ndarray | None]:
        """ms that it took there, and (N, 2) points in px or None."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"photo": str(photo), "refined": refined}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        points = answer["points"]
        return answer["ms"], None if points is None else np.array(points)

    def close(self) -> None:
        """Ends it, and waits, so that its time counts as ours and not as the machine's load."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"MediaPipe ended with status {self._process.wait()}")
        return dict(json.loads(line))


def _mediapipe(
    settings: Settings,
    images: list[np.ndarray],
    ours: list[np.ndarray | None],
    counts: dict[str, str],
) -> list[Contender]:
    worker = Worker(check_mediapipe(settings.mediapipe))
    folder = scratch()
    paths = [folder / f"{i}.npy" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        np.save(path, image)
    made = []
    for refined in (False, True):
        name = "MediaPipe FaceMesh" + (", attention" if refined else "")
        theirs = [worker.look(path, refined=refined)[1] for path in paths]
        counts[name] = _found(theirs)
        clock = OwnClock()

        def look(path: Path, refined: bool = refined, clock: OwnClock = clock) -> None:
            clock.add(worker.look(path, refined=refined)[0])

        made.append(
            Contender(
                name,
                each_in_turn(paths, look),
                "face found, its points placed"
                + (", those of eyes and lips refined, and the irises" if refined else "")
                + "; by its own clock, without the pipe to its process; it chooses its threads",
                LANDMARKS,
                lambda _, theirs=theirs: distance(ours, theirs),  # type: ignore[misc]
                clock,
            )
        )
    return made


def distance(ours: list[np.ndarray | None], theirs: list[np.ndarray | None]) -> Agreement:
    """Mean distance of the points, of the face's size, median over the photos both found."""
    errors = []
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:
            continue
        size = float(np.ptp(a[:, :2], axis=0).max())
        errors.append(float(np.linalg.norm(a[:, :2] - b[:POINTS], axis=1).mean()) / size)
    return Agreement(
        float(np.median(errors)) if errors else float("nan"),
        TOLERANCE,
        "of the face's size, mean over points, median over photos",
        f"{len(errors)} of {len(ours)} photos in which both found a face",
    )
