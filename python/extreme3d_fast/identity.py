"""Who a face is: a descriptor that lies near those of other photos of the same person.

The network is dlib's face recognition network (Davis King, 2017), converted by
train/convert_dlib.py. The search for a reference face compares its descriptors (paper §4.2).
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import numpy.typing as npt

from extreme3d_fast._arrays import Float32, UInt8, float_array
from extreme3d_fast.camera import similarity_transform
from extreme3d_fast.crop import check_image, magnification, warp_similarity
from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.photo_network import ASSETS, OpenNetwork, PhotoSession
from extreme3d_fast.pose import network_size

__all__ = ["DESCRIPTOR_SIZE", "IdentityNetwork", "chip_from_image", "face_chip"]

#: Values of a descriptor.
DESCRIPTOR_SIZE = 128

PADDING = 0.25  # round the average face, in its widths
# The average face of dlib's get_face_chip_details (dlib/image_transforms/interpolation.h, Boost
# Software License 1.0) without brows and lower lip, in a unit square: points 27-54 and 60-64 of 68.
CHIP_POINTS = [*range(27, 55), *range(60, 65)]
CHIP_X = [
    *[0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217, 0.613373],
    *[0.121737, 0.187122, 0.265825, 0.334606, 0.260918, 0.182743],
    *[0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335],
    *[0.254149, 0.340985, 0.428858, 0.490127, 0.551395, 0.639268, 0.726104],
    *[0.290379, 0.428096, 0.490127, 0.552157, 0.689874],
]
CHIP_Y = [
    *[0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326],
    *[0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077],
    *[0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099],
    *[0.780233, 0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233],
    *[0.784792, 0.778746, 0.785343, 0.778746, 0.784792],
]
MIN_CHIP = 1.0  # px of the photo across a chip: from less nobody can be told
MAX_CHIP = 16.0  # larger sides of the photo: more of a chip would lie beyond it than anyone needs


class IdentityNetwork:
    """Describes who a face is; keeps the network loaded.

    Args:
        path: ONNX file; None is the built-in network. It takes `image` (N, S, S, 3) float32 RGB in
            [0, 255], chips as `face_chip` cuts them, and gives `descriptor` (N, 128).
        threads: at least 1.
        open_network: opens the file; None is `PhotoSession` with these threads.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModelFile: the file is damaged or another network.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        open_network: OpenNetwork | None = None,
    ) -> None:
        open_network = open_network or partial(PhotoSession, threads=threads)
        self._session = open_network(ASSETS / "identity.onnx" if path is None else os.fspath(path))
        #: Side of a chip, px.
        self.size = network_size(self._session)
        self._session.expect(
            inputs={"image": (None, self.size, self.size, 3)},
            outputs={"descriptor": (None, DESCRIPTOR_SIZE)},
        )

    def describe(self, image: UInt8, landmarks68: npt.ArrayLike) -> Float32:
        """Descriptor of one face.

        Args:
            image: (H, W, 3) uint8 RGB, a photo or a crop of it.
            landmarks68: (68, 2) px of it, in the order of 300-W; jaw, brows and lower lip are not
                used.

        Returns:
            (128,) float32 of length 1. The cosine between two descriptors is their dot product.

        Raises:
            InvalidImage: wrong dtype or shape of the image.
            TypeError, ValueError: the landmarks have the wrong dtype or shape, are not finite, do
                not lie like a face's or beside the image.
            InvalidModelFile: the network fails, or its answer has no direction.
        """
        matrix = _checked_chip(image, landmarks68, self.size)
        answer = self._session.look(image, [matrix], self.size)["descriptor"].astype(np.float64)
        length = float(np.linalg.norm(answer))
        if answer.shape != (1, DESCRIPTOR_SIZE) or not (np.isfinite(length) and length > 0):
            raise InvalidModelFile(
                f"path: {self._session.path}: expected one descriptor, it answers with shape "
                f"{answer.shape} and length {length:g}"
            )
        return np.asarray(answer[0] / length, np.float32)


def face_chip(image: UInt8, landmarks68: npt.ArrayLike, size: int) -> UInt8:
    """The part of a photo that the network looks at.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks68: (68, 2) px.
        size: side of the chip, px.

    Returns:
        (size, size, 3) uint8, black where the photo ends.

    Raises:
        InvalidImage, TypeError, ValueError: as `IdentityNetwork.describe`.
    """
    return warp_similarity(image, _checked_chip(image, landmarks68, size), size)


def _checked_chip(image: UInt8, landmarks68: npt.ArrayLike, size: int) -> npt.NDArray[np.float64]:
    """`chip_from_image` of a face that lies in the image."""
    check_image(image)
    matrix = chip_from_image(landmarks68, size)
    side = size / magnification(matrix)
    height, width = image.shape[:2]
    if side > MAX_CHIP * max(height, width):
        raise ValueError(
            f"`landmarks68` should fit the image of {width} x {height} px, a chip of them is "
            f"{side:.3g} px wide"
        )
    points = np.asarray(landmarks68, np.float64)[CHIP_POINTS]
    if (points.max(0) < 0).any() or (points.min(0) > [width, height]).any():
        raise ValueError(
            f"`landmarks68` should lie in the image of {width} x {height} px, they lie beside it"
        )
    return matrix


def chip_from_image(landmarks68: npt.ArrayLike, size: int) -> npt.NDArray[np.float64]:
    """(3, 3) similarity from px of a photo to px of dlib's face chip; pixel centres at + 0.5.

    As dlib does, least squares are taken in the photo: of the chip's points laid onto the photo's.
    dlib's chips lie half a pixel up and left of its template; so do these (measured).

    Args:
        landmarks68: (68, 2) px.
        size: side of the chip, px.

    Raises:
        TypeError, ValueError: the landmarks have the wrong dtype or shape, are not finite, or do
            not lie like a face's.
    """
    points = float_array("landmarks68", landmarks68, (68, 2)).astype(np.float64)
    if not np.isfinite(points).all():
        raise ValueError("`landmarks68` should be finite, holds NaN or infinity")
    template = (np.stack([CHIP_X, CHIP_Y], 1) + PADDING) / (1 + 2 * PADDING) * size
    image_from_chip = similarity_transform(template, points[CHIP_POINTS])
    side = float(np.hypot(*image_from_chip[:2, 0])) * size  # px of the photo
    if side < MIN_CHIP:
        raise ValueError(
            f"`landmarks68` should lie like those of a face, a chip of them is {side:.3g} px wide"
        )
    return np.asarray(np.linalg.inv(image_from_chip), np.float64)
