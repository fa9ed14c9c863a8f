"""Runs in MediaPipe's own environment: a line of JSON in is a photo to look at, a line out is the
answer and the ms that it took. Imports nothing of this repository.
"""

import json
import os
import sys
import time

# Whatever MediaPipe prints would break the protocol.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
os.environ.setdefault("GLOG_minloglevel", "3")


def main() -> None:
    import numpy as np
    from mediapipe.python.solutions.face_mesh import FaceMesh

    # every photo is looked at afresh, detection included
    meshes = {
        refined: FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=refined)
        for refined in (False, True)
    }
    photos: dict = {}
    say({"ready": True})
    for line in sys.stdin:
        wanted = json.loads(line)
        path = wanted["photo"]
        if path not in photos:
            photos[path] = np.load(path)
        image = photos[path]
        started = time.perf_counter()
        found = meshes[wanted["refined"]].process(image).multi_face_landmarks
        ms = 1e3 * (time.perf_counter() - started)
        points = None
        if found:
            height, width = image.shape[:2]
            points = [[p.x * width, p.y * height] for p in found[0].landmark]
        say({"ms": ms, "points": points})


def say(answer: dict) -> None:
    answers.write(json.dumps(answer) + "\n")


main()
