"""The foundation network: identity α and expression η of the face in a crop (paper §3, Eq. 1-2)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.crop import HeadSquare, check_image
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.photo_network import ASSETS, OpenNetwork, PhotoSession
from extreme3d_fast.pose import network_size

__all__ = ["Coefficients", "FoundationNetwork"]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


class Coefficients(NamedTuple):
    """Where a face lies in the head model."""

    identity: Float32  #: (K,) α in standard deviations
    expression: Float32  #: (E,) η in [0, 1]


class FoundationNetwork:
    """Reads identity and expression from a crop.

    Args:
        path: ONNX file; None is the built-in network, which speaks of the built-in head model.
        threads: at least 1.
        open_network: opens the file; None is `PhotoSession` with these threads.

    Raises:
        InvalidModelFile: the file is damaged or another network.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        threads: int = 1,
        open_network: OpenNetwork | None = None,
    ) -> None:
        open_network = open_network or partial(PhotoSession, threads=threads)
        self._session = open_network(path or ASSETS / "foundation.onnx")
        self.size = network_size(self._session)
        counts = {
            name: (self._session.outputs.get(name) or (0,))[-1]
            for name in ("identity", "expression")
        }
        self._session.expect(
            inputs={"image": (None, self.size, self.size, 3)},
            outputs={name: (None, count) for name, count in counts.items()},
        )
        #: How many coefficients there are.
        self.n_identity, self.n_expression = counts["identity"], counts["expression"]
        #: What tells the head model that the coefficients belong to; `HeadModel.fingerprint`.
        self.head_model = self._session.metadata.get("head_model", "")

    def estimate(self, photo: UInt8, square: HeadSquare) -> Coefficients:
        """Identity and expression of the face in a square of a photo.

        Args:
            photo: (H, W, 3) uint8 RGB.
            square: the square of the face's pose.

        Raises:
            InvalidImage: wrong dtype or shape of the photo.
            InvalidModelFile: the network's answer is NaN or infinite.
        """
        check_image(photo)
        out = self._session.look(photo, [square.square_from_image(self.size)], self.size)
        identity, expression = out["identity"][0], out["expression"][0]
        if not (np.isfinite(identity).all() and np.isfinite(expression).all()):
            raise InvalidModelFile(f"path: {self._session.path} answers with NaN or infinity")
        return Coefficients(identity, np.clip(expression, 0, 1))
