"""Faces of a reference set that a covered face may borrow relief from (§4.2): who is like it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.estimator import Foundation
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.identity import DESCRIPTOR_SIZE, IdentityNetwork
from extreme3d_fast.photo_network import OpenNetwork
from extreme3d_fast.references import Reference, ReferenceSet
from extreme3d_fast.transfer import REFERENCES, SHORT_LIST

__all__ = ["SimilarFaces"]

# Holes smaller than this share of the face are closed smoothly: a reference would not show.
_SMALL_HOLES = 0.01
# Fewer are worse than none: one person's relief is not another's.
_FEWEST_REFERENCES = 8
# Seen from further round, or less alike, a face is no reference.
_MAX_POSE_DISTANCE = 45.0  # degrees: further, too little of the same skin is seen
_MIN_SIMILARITY = 0.8


class SimilarFaces:
    """Finds references for a face; keeps the set and the identity network.

    Args:
        path: file of the reference set; None is the built-in one.
        model: head model of the faces.
        bump_network: name and version of the network that their relief is from.
        threads: threads inside a network run.
        open_network: opens the identity network's file; None is `PhotoSession`.

    Raises:
        FileNotFoundError, InvalidModelFile: as `ReferenceSet.load`, or the set's identity features
            are not those of the built-in network.

    Attributes:
        references: the set.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        model: HeadModel,
        bump_network: str,
        *,
        threads: int = 1,
        open_network: OpenNetwork | None = None,
    ) -> None:
        self.references = ReferenceSet.load(path)
        length = self.references.descriptors.shape[1]
        if length != DESCRIPTOR_SIZE:
            raise InvalidModelFile(
                f"references: {self.references.path} holds identity features of {length} values, "
                f"expected {DESCRIPTOR_SIZE}"
            )
        self._model, self._bump_network = model, bump_network
        self._identity = IdentityNetwork(threads=threads, open_network=open_network)

    def find(
        self,
        photo: npt.NDArray[np.uint8],
        foundation: Foundation,
        covered: float,
        warnings: list[str],
        timed: Callable[..., Any],
    ) -> list[Reference]:
        """The references to expect hidden relief from, the most similar first.

        Args:
            photo: (S, S, 3) uint8 RGB, the crop.
            foundation: of the face in it.
            covered: share of the weighted face that is to be filled.
            warnings: why there are none is appended.
            timed: wraps a stage to note its time.

        Returns:
            At most `REFERENCES`; none where the holes are small or too few faces are alike.

        Raises:
            InvalidModelFile: the network fails, or the set is damaged.
        """
        if covered < _SMALL_HOLES:
            return []
        if self.references.head_model != self._model.fingerprint:
            warnings.append("the reference set is of another head model: what is hidden is smooth")
            return []
        landmarks68 = foundation.landmarks(self._model)
        try:
            features = timed("identity", self._identity.describe)(photo, landmarks68)
        except InvalidModelFile:
            raise
        except ValueError as error:  # the crop does not show the face's middle
            warnings.append(f"what is hidden is smooth, nobody can be compared: {error}")
            return []
        alike: list[Reference] = timed("search", self.references.search)(
            foundation.camera_from_head,
            features,
            k=SHORT_LIST,
            count=REFERENCES,
            max_pose_distance=_MAX_POSE_DISTANCE,
            min_similarity=_MIN_SIMILARITY,
        )
        persons = len({reference.index for reference in alike})  # mirror images count once
        if persons < _FEWEST_REFERENCES:
            warnings.append(
                f"what is hidden is smooth: only {persons} reference faces are similar enough"
            )
            return []
        if self.references.metadata["bump_network"] != self._bump_network:
            warnings.append("the reference set's relief is from another bump network")
        return alike
