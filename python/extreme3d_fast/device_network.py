"""Networks that look at photos in device memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extreme3d_fast.device import Device, DeviceArray
from extreme3d_fast.device_session import DeviceSession, DeviceTensor
from extreme3d_fast.session import Session

__all__ = ["LARGEST_LOOK", "MAX_SQUARES", "DeviceNetwork", "NetworkRunner", "PhotosOnDevice"]

#: Squares of a photo that are looked at in one run, and their largest side, px.
MAX_SQUARES, LARGEST_LOOK = 16, 256

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]


class PhotosOnDevice:
    """The photo at hand, and what was cut from it, on a device; known by their host arrays.

    Args:
        device: where they live.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._known: list[tuple[UInt8, DeviceArray]] = []
        self._room: DeviceArray = device.empty(0, "uint8")  # of the photo; grows
        self._in_room: DeviceArray = None

    def forget(self) -> None:
        """Before another photo: a caller may write the next one into the same array."""
        self._known.clear()

    def know(self, photo: UInt8, on_device: DeviceArray) -> None:
        """Notes that an image of the host is also on the device."""
        self._known.append((photo, on_device))

    def get(self, photo: UInt8) -> DeviceArray:
        """(H, W, 3) uint8 on the device; uploaded unless it is known."""
        for known, on_device in self._known:
            if known is photo:
                return on_device
        ops, stream = self._device.ops, self._device.stream
        if ops.shape(self._room)[0] < photo.size:
            self._room = self._device.empty(photo.size, "uint8")
        on_device = ops.slice(self._room, 0, photo.size, list(photo.shape))
        ops.upload(np.ascontiguousarray(photo), on_device, stream)
        # one photo at a time lives in the room
        self._known = [k for k in self._known if k[1] is not self._in_room]
        self._in_room = on_device
        self._known.append((photo, on_device))
        return on_device


class NetworkRunner:
    """A network on a device, with the buffers of its shapes.

    Args:
        device: a GPU, or the twin on the host, where ONNX Runtime runs it.
        session: the network; on a GPU one of its own for this stream.
    """

    def __init__(self, device: Device, session: DeviceSession | Session) -> None:
        self._device, self.session = device, session
        self._buffers: dict[tuple[tuple[int, ...], ...], tuple[Any, Any]] = {}

    def buffers(
        self, shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[dict[str, DeviceArray], dict[str, DeviceArray]]:
        """Inputs to fill and outputs to read for input shapes; the same ones each time."""
        key = tuple(tuple(shape) for shape in shapes.values())
        if key not in self._buffers:
            feeds = {name: self._device.empty(tuple(shape)) for name, shape in shapes.items()}
            if isinstance(self.session, DeviceSession):
                made = self.session.output_shapes(shapes)
            else:  # found out by a run
                zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
                made = {name: answer.shape for name, answer in self.session.run(zeros).items()}
            outputs = {name: self._device.empty(shape) for name, shape in made.items()}
            self._buffers[key] = feeds, outputs
        return self._buffers[key]

    def run(self, feeds: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Enqueues one run on arrays of `buffers`."""
        device = self._device
        if isinstance(self.session, DeviceSession):
            self.session.run(_tensors(device, feeds), _tensors(device, outputs))
            return
        answers = self.session.run({name: device.get(array) for name, array in feeds.items()})
        for name, array in outputs.items():
            device.ops.upload(answers[name], array, device.stream)


class DeviceNetwork:
    """A `PhotoNetwork` on a device.

    Args:
        device: where it runs.
        photos: the photo at hand.
        warper: `ops.Warper` that cuts squares.
        session: the network.

    Attributes:
        runner: runs it on device arrays.
    """

    def __init__(
        self,
        device: Device,
        photos: PhotosOnDevice,
        warper: Any,
        session: DeviceSession | Session,
    ) -> None:
        self._device, self._photos, self._warper = device, photos, warper
        self.runner = NetworkRunner(device, session)
        self._matrices = device.empty((MAX_SQUARES, 3, 3), "float64")
        self.path: Path = session.path
        self.metadata: dict[str, str] = session.metadata
        self.inputs: dict[str, tuple[int | None, ...]] = session.inputs
        self.outputs: dict[str, tuple[int | None, ...]] = session.outputs
        self.runtime: str = session.runtime
        self.expect: Callable[..., None] = session.expect

    def run(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        """Runs the network on arrays of the host; see `Session.run`."""
        inputs, outputs = self._buffers({name: a.shape for name, a in feeds.items()})
        for name, array in feeds.items():
            self._device.ops.upload(np.ascontiguousarray(array), inputs[name], self._device.stream)
        self.runner.run(inputs, outputs)
        return self._answers(outputs, len(next(iter(feeds.values()))))

    def look(
        self, photo: UInt8, out_from_photo: Sequence[Float64], size: int
    ) -> dict[str, Float32]:
        """See `PhotoNetwork.look`."""
        count = len(out_from_photo)
        inputs, outputs = self._buffers({"image": (count, size, size, 3)})
        ops = self._device.ops
        on_device = ops.slice(self._matrices, 0, count)
        ops.upload(np.stack(out_from_photo), on_device, self._device.stream)
        self._warper.warp(
            self._photos.get(photo),
            on_device,
            size,
            inputs=ops.slice(inputs["image"], 0, count),
            mean=float(self.metadata["mean"]),
            std=float(self.metadata["std"]),
            stream=self._device.stream,
        )
        self.runner.run(inputs, outputs)
        return self._answers(outputs, count)

    def _buffers(
        self, shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[dict[str, DeviceArray], dict[str, DeviceArray]]:
        """Buffers for at least as many images: a power of two, so that few sizes are made ready."""
        return self.runner.buffers(
            {
                name: (shape[0] if self.inputs[name][0] else _power_of_two(shape[0]), *shape[1:])
                for name, shape in shapes.items()
            }
        )

    def _answers(self, outputs: Mapping[str, DeviceArray], count: int) -> dict[str, Float32]:
        """The first rows: what the network says of images that were not given is not read."""
        device = self._device
        return {name: device.get(device.ops.slice(a, 0, count)) for name, a in outputs.items()}


def _power_of_two(count: int) -> int:
    """The least that is not below `count`, at least 1."""
    return 1 << max(0, count - 1).bit_length()


def _tensors(device: Device, arrays: Mapping[str, DeviceArray]) -> dict[str, DeviceTensor]:
    ops = device.ops
    return {name: DeviceTensor(ops.pointer(a), ops.shape(a)) for name, a in arrays.items()}
