"""Networks that look at photos in device memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.device import Device, DeviceArray
from extreme3d_fast.device_session import DeviceSession, DeviceTensor
from extreme3d_fast.errors import InvalidImage
from extreme3d_fast.session import Session

__all__ = [
    "LARGEST_LOOK",
    "MAX_SQUARES",
    "DeviceNetwork",
    "NetworkRunner",
    "PhotosOnDevice",
    "RunBuffers",
]

#: Largest side of a photo, px.
MAX_SIDE = 32768
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
        if max(photo.shape) > MAX_SIDE:
            raise InvalidImage(
                f"image: on a GPU its sides should be at most {MAX_SIDE} px, are {photo.shape[:2]}"
            )
        ops, stream = self._device.ops, self._device.stream
        # one photo at a time lives in the room, and nothing holds it while it grows
        self._known = [k for k in self._known if k[1] is not self._in_room]
        self._in_room = None
        if ops.shape(self._room)[0] < photo.size:
            self._room = self._device.empty(0, "uint8")
            self._room = self._device.empty(photo.size, "uint8")
        self._in_room = on_device = ops.slice(self._room, 0, photo.size, list(photo.shape))
        ops.upload(np.ascontiguousarray(photo), on_device, stream)
        self._known.append((photo, on_device))
        return on_device


class RunBuffers(NamedTuple):
    """What goes into and comes out of a network for inputs of some shapes."""

    inputs: dict[str, DeviceArray]
    outputs: dict[str, DeviceArray]
    input_tensors: dict[str, DeviceTensor]  #: the same ones, as a `DeviceSession` takes them
    output_tensors: dict[str, DeviceTensor]
    answers: dict[str, Float32]  #: page-locked memory of the host for the outputs


class NetworkRunner:
    """A network on a device, with the buffers of its shapes.

    Args:
        device: a GPU, or the twin on the host, where ONNX Runtime runs it.
        session: the network; on a GPU one of its own for this stream.
    """

    def __init__(self, device: Device, session: DeviceSession | Session) -> None:
        self._device, self.session = device, session
        self._buffers: dict[tuple[tuple[int, ...], ...], RunBuffers] = {}

    def buffers(self, shapes: Mapping[str, tuple[int, ...]]) -> RunBuffers:
        """Inputs to fill and outputs to read for input shapes; the same ones each time."""
        key = tuple(shapes.values())
        if key not in self._buffers:
            inputs = {name: self._device.empty(shape) for name, shape in shapes.items()}
            if isinstance(self.session, DeviceSession):
                made = self.session.output_shapes(shapes)
            else:  # found out by a run
                zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
                made = {name: answer.shape for name, answer in self.session.run(zeros).items()}
            outputs = {name: self._device.empty(shape) for name, shape in made.items()}
            self._buffers[key] = RunBuffers(
                inputs,
                outputs,
                _tensors(self._device, inputs),
                _tensors(self._device, outputs),
                {name: self._device.ops.pinned(list(shape)) for name, shape in made.items()},
            )
        return self._buffers[key]

    def run(self, buffers: RunBuffers) -> None:
        """Enqueues one run on what `buffers` gave."""
        device = self._device
        if isinstance(self.session, DeviceSession):
            self.session.run(buffers.input_tensors, buffers.output_tensors)
            return
        feeds = {name: device.get(array) for name, array in buffers.inputs.items()}
        answers = self.session.run(feeds)
        for name, array in buffers.outputs.items():
            device.ops.upload(answers[name], array, device.stream)

    def answers(self, buffers: RunBuffers, count: int) -> dict[str, Float32]:
        """Runs the network, waits, and copies what it says of the first `count` images."""
        ops, stream = self._device.ops, self._device.stream
        self.run(buffers)
        answers = {name: answer[:count] for name, answer in buffers.answers.items()}
        for name, answer in answers.items():
            ops.download(buffers.outputs[name], answer, stream)
        self._device.wait()
        return {name: answer.copy() for name, answer in answers.items()}


class DeviceNetwork:
    """A `PhotoNetwork` on a device.

    Args:
        device: where it runs.
        photos: the photo at hand.
        warper: `ops.Warper` that cuts squares.
        letterbox: `ops.Letterbox` that takes in whole photos.
        session: the network.

    Attributes:
        runner: runs it on device arrays.
    """

    def __init__(
        self,
        device: Device,
        photos: PhotosOnDevice,
        warper: Any,
        letterbox: Any,
        session: DeviceSession | Session,
    ) -> None:
        self._device, self._photos = device, photos
        self._warper, self._letterbox = warper, letterbox
        self.runner = NetworkRunner(device, session)
        matrices = device.empty((MAX_SQUARES, 3, 3), "float64")
        self._matrices_on_host: Float64 = device.ops.pinned([MAX_SQUARES, 3, 3], "float64")
        #: Room for transforms, by their number.
        self._matrices = [device.ops.slice(matrices, 0, n) for n in range(MAX_SQUARES + 1)]
        self.path: Path = session.path
        self.metadata: dict[str, str] = session.metadata
        self.inputs: dict[str, tuple[int | None, ...]] = session.inputs
        self.outputs: dict[str, tuple[int | None, ...]] = session.outputs
        self.runtime: str = session.runtime
        self.expect: Callable[..., None] = session.expect

    def run(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        """Runs the network on arrays of the host; see `Session.run`."""
        buffers = self._buffers({name: a.shape for name, a in feeds.items()})
        for name, array in feeds.items():
            source, target = np.ascontiguousarray(array), buffers.inputs[name]
            self._device.ops.upload(source, target, self._device.stream)
        return self.runner.answers(buffers, len(next(iter(feeds.values()))))

    def look(
        self, photo: UInt8, out_from_photo: Sequence[Float64], size: int
    ) -> dict[str, Float32]:
        """See `PhotoNetwork.look`."""
        count = len(out_from_photo)
        ops, stream = self._device.ops, self._device.stream
        buffers = self._buffers({"image": (count, size, size, 3)})
        source, target = self._matrices_on_host[:count], self._matrices[count]
        source[:] = out_from_photo
        ops.upload(source, target, stream)
        self._warper.warp(
            self._photos.get(photo),
            target,
            size,
            inputs=ops.slice(buffers.inputs["image"], 0, count),
            mean=float(self.metadata["mean"]),
            std=float(self.metadata["std"]),
            stream=stream,
        )
        return self.runner.answers(buffers, count)

    def letterboxed(self, photo: UInt8, size: int) -> dict[str, Float32]:
        """See `PhotoNetwork.letterboxed`."""
        ops, stream = self._device.ops, self._device.stream
        buffers = self._buffers({"image": (1, size, size, 3)})
        square = ops.slice(buffers.inputs["image"], 0, 1, [size, size, 3])
        on_device = self._photos.get(photo)
        self._letterbox.fit(
            on_device,
            square,
            mean=float(self.metadata["mean"]),
            std=float(self.metadata["std"]),
            stream=stream,
        )
        return self.runner.answers(buffers, 1)

    def _buffers(self, shapes: Mapping[str, tuple[int, ...]]) -> RunBuffers:
        """Buffers for at least as many images: a power of two, so that few sizes are made ready."""
        return self.runner.buffers(
            {
                name: (shape[0] if self.inputs[name][0] else _power_of_two(shape[0]), *shape[1:])
                for name, shape in shapes.items()
            }
        )


def _power_of_two(count: int) -> int:
    """The least that is not below `count`, at least 1."""
    return 1 << max(0, count - 1).bit_length()


def _tensors(device: Device, arrays: Mapping[str, DeviceArray]) -> dict[str, DeviceTensor]:
    ops = device.ops
    return {name: DeviceTensor(ops.pointer(a), ops.shape(a)) for name, a in arrays.items()}
