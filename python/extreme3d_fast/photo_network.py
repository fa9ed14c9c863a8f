"""Networks that look at squares of a photo: where cutting, preparing and running meet.

What looks is a `PhotoNetwork`; `PhotoSession` does it on the host, `device_network` on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extreme3d_fast.crop import letterbox, warp_similarity
from extreme3d_fast.session import Runtime, Session

__all__ = ["ASSETS", "HostNetworks", "OpenNetwork", "PhotoNetwork", "PhotoSession", "normalised"]

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

ASSETS = Path(__file__).parent / "assets"
# Their answers are places in a photo, which bfloat16 moves by half a pixel.
_FULL_PRECISION = ("face_detection.onnx", "face_landmarks.onnx")


class PhotoNetwork(Protocol):
    """A network with one input `image`, (N, S, S, 3) float32, and its contract; see `Session`."""

    path: Path
    metadata: dict[str, str]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]

    @property
    def runtime(self) -> str:
        """What runs it, for reports."""

    def expect(
        self,
        *,
        inputs: Mapping[str, tuple[int | None, ...]],
        outputs: Mapping[str, tuple[int | None, ...]],
    ) -> None:
        """Checks the names and shapes of what goes in and out."""

    def run(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        """Runs the network on arrays of the host."""

    def look(
        self, photo: UInt8, out_from_photo: Sequence[NDArray[np.float64]], size: int
    ) -> dict[str, Float32]:
        """Runs the network on squares of a photo.

        Args:
            photo: (H, W, 3) uint8 RGB.
            out_from_photo: (3, 3) similarity of px for each square.
            size: side of a square, px.

        Returns:
            float32 array per output name, a row for each square.
        """

    def letterboxed(self, photo: UInt8, size: int) -> dict[str, Float32]:
        """Runs the network on a whole photo in the middle of a square; see `crop.letterbox`.

        Args:
            photo: (H, W, 3) uint8 RGB.
            size: side of the square, px.

        Returns:
            float32 array per output name, one row each.
        """


OpenNetwork = Callable[[str | Path], PhotoNetwork]
"""Opens the ONNX file of a network."""


class PhotoSession(Session):
    """A `PhotoNetwork` on the host."""

    def look(
        self, photo: UInt8, out_from_photo: Sequence[NDArray[np.float64]], size: int
    ) -> dict[str, Float32]:
        """See `PhotoNetwork.look`."""
        squares = np.stack([warp_similarity(photo, matrix, size) for matrix in out_from_photo])
        return self.run({"image": normalised(squares, self.metadata)})

    def letterboxed(self, photo: UInt8, size: int) -> dict[str, Float32]:
        """See `PhotoNetwork.letterboxed`."""
        return self.run({"image": normalised(letterbox(photo, size)[None], self.metadata)})


class HostNetworks:
    """Opens the networks of a pipeline on the CPU.

    Args:
        threads: threads inside one run.
        runtime: what runs them, those apart that need full precision; see `Session`. None takes
            other files than the built-in ones to need it.
    """

    def __init__(self, *, threads: int = 1, runtime: Runtime | None = None) -> None:
        self._threads, self._wanted = threads, runtime
        self._runtimes: dict[str, None] = {}

    def open(self, path: str | Path) -> PhotoSession:
        """An `OpenNetwork`."""
        built_in = Path(path).resolve().parent == ASSETS.resolve()
        exact = built_in and Path(path).name in _FULL_PRECISION
        # how others bear bfloat16 was not measured: only who asks for it gets it
        exact |= not built_in and self._wanted is None
        runtime = "onnxruntime" if exact else self._wanted
        session = PhotoSession(path, threads=self._threads, runtime=runtime)
        self._runtimes[session.runtime] = None
        return session

    @property
    def runtime(self) -> str:
        """What runs those opened so far, for reports."""
        return ", ".join(sorted(self._runtimes, reverse=True))


def normalised(images: NDArray[Any], metadata: Mapping[str, str]) -> Float32:
    """(image - mean) / std, as the metadata of a network want it."""
    mean, std = float(metadata["mean"]), float(metadata["std"])
    scaled: Float32 = (images.astype(np.float32) - np.float32(mean)) * np.float32(1 / std)
    return scaled
