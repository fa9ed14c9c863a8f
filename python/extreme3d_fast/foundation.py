"""The foundation network: identity α and expression η of the face in a crop (paper §3, Eq. 1-2)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.detect import ASSETS, UInt8, check_image
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.pose import HeadSquare, network_crop, network_size
from extreme3d_fast.session import Session

__all__ = ["Coefficients", "FoundationNetwork"]

Float32 = npt.NDArray[np.float32]


class Coefficients(NamedTuple):
    """Where a face lies in the head model."""

    identity: Float32  #: (K,) α in standard deviations
    expression: Float32  #: (E,) η in [0, 1]


class FoundationNetwork:
    """Reads identity and expression from a crop.

    Args:
        path: ONNX file; None is the built-in network, which speaks of the built-in head model.
        threads: at least 1.

    Raises:
        InvalidModelFile: the file is damaged or another network.
    """

    def __init__(self, path: str | Path | None = None, *, threads: int = 1) -> None:
        self._session = Session(path or ASSETS / "foundation.onnx", threads=threads)
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
        out = self._session.run({"image": network_crop(photo, square, self.size)[None]})
        identity, expression = out["identity"][0], out["expression"][0]
        if not (np.isfinite(identity).all() and np.isfinite(expression).all()):
            raise InvalidModelFile(f"path: {self._session.path} answers with NaN or infinity")
        return Coefficients(identity, np.clip(expression, 0, 1))
