"""One revision's process in `python -m bench compare`: reconstructs what it is told to.

Started as `python -S -m bench.compare_worker '{"pipe": ..., ...}'` with the revision's package on
PYTHONPATH. Each message is (name of a method, arguments); the answer is (True, result) or
(False, why not).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from bench import machine

QUIET_MS = 1.0  # nap after which threads that used less than a tenth of it are asleep
MOST_NAPS = 50


class Worker:
    """What can be asked for. Only the package's public interface is used, so that old revisions
    can be measured by new benches."""

    def __init__(self, threads: int, device: str) -> None:
        import extreme3d_fast

        self.package = extreme3d_fast
        options = {} if device == "cpu" else {"device": device}
        self.reconstructor = extreme3d_fast.Reconstructor(threads=threads, **options)
        self.operations: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        """Which package this is, and what runs its networks: old revisions do not say."""
        return {
            "file": str(self.package.__file__),
            "version": self.package.__version__,
            "runtime": getattr(self.reconstructor, "runtime", None),
        }

    def reconstruct(self, photo: str, with_answer: bool = False) -> dict[str, Any]:
        """ms of a photo, of each stage and in all; with what came out, if asked for."""
        source = _source(photo)
        started = time.perf_counter()
        face = self.reconstructor.reconstruct(source)
        total = 1e3 * (time.perf_counter() - started)
        done: dict[str, Any] = {"ms": {**face.timings, "total": total}}
        if with_answer:
            done |= {"vertices": face.vertices, "faces": face.faces, "warnings": face.warnings}
        return done

    def record(self, photo: str) -> dict[str, Any]:
        """Prepares the core operations on a photo: their names, and why others are missing."""
        from bench.workloads import capture, make_workloads

        made, missing = make_workloads(capture(_source(photo), owner=self.reconstructor))
        self.operations = {workload.name: workload.call for workload in made}
        return {"names": list(self.operations), "missing": missing}

    def operation(self, name: str, loops: int) -> float:
        """ms of a call, the mean of so many."""
        from bench.timing import milliseconds

        return milliseconds(self.operations[name], loops)

    def memory(self) -> float:
        """Peak of this process so far, MB."""
        return machine.peak_memory_mb()


def _source(photo: str) -> Any:
    """A path; the astronaut for none, as in `stages.find_photos`."""
    return photo or machine.astronaut()


def settle() -> None:
    """Waits until no thread of this process is busy: one that spins would slow the other worker."""
    for _ in range(MOST_NAPS):
        before = time.process_time()
        time.sleep(1e-3 * QUIET_MS)
        if time.process_time() - before < 1e-4 * QUIET_MS:
            return


def main() -> None:
    told = json.loads(sys.argv[1])
    # before any library starts threads, which stay on the cores that they are started on
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, told["cores"])
    pipe = Connection(told["pipe"])
    worker = None
    try:
        while True:
            name, arguments = pipe.recv()
            try:
                if name == "open":
                    worker = Worker(*arguments)
                    answer: Any = worker.about()
                else:
                    answer = getattr(worker, name)(*arguments)
            except Exception as error:
                traceback.print_exc()  # to the log
                pipe.send((False, f"{type(error).__name__}: {error}"))
                continue
            settle()
            pipe.send((True, answer))
    except EOFError:  # the other end is gone
        pass


if __name__ == "__main__":
    main()
