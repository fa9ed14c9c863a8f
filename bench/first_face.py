"""A user's process: `python -m bench.first_face DEVICE THREADS PHOTO...`.

Prints a line of JSON as soon as it is done with the first photo, and one after the last. It imports
nothing else of the bench, which would swell its memory, and nothing before the package that the
package would have to import, lest that go uncounted.
"""

import sys
import time


def main() -> None:
    device, threads, first, *others = sys.argv[1:]
    times, peaks = [time.perf_counter()], []

    def done() -> None:
        times.append(time.perf_counter())
        peaks.append(_peak_memory_mb())

    import extreme3d_fast

    done()
    reconstructor = extreme3d_fast.Reconstructor(device=device, threads=int(threads))  # type: ignore[arg-type]
    done()

    def reconstruct(photo: str) -> None:
        try:
            reconstructor.reconstruct(photo)
        except extreme3d_fast.NoFaceFound:
            return  # memory was needed to find none, too

    reconstruct(first)
    done()

    import json

    ms = [1e3 * (times[i + 1] - times[i]) for i in range(len(peaks))]
    print(json.dumps({"ms": ms, "peak_memory_mb": peaks}), flush=True)
    for photo in others:
        reconstruct(photo)
    print(json.dumps({"peak_memory_mb": _peak_memory_mb()}))


def _peak_memory_mb() -> float | None:
    """As `machine.peak_memory_mb`, without what importing that would add."""
    try:
        with open("/proc/self/status") as status:
            return next(
                round(int(x.split()[1]) / 1024, 1) for x in status if x.startswith("VmHWM:")
            )
    except (OSError, StopIteration):
        return None


if __name__ == "__main__":
    main()
