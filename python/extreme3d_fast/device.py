"""Where device arrays live: an NVIDIA GPU, or its twin on the host, which runs the same operations.

The twin exists for tests on machines without a GPU: every kernel as a loop over its threads.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from extreme3d_fast.errors import DeviceUnavailable

__all__ = ["RECORDING", "Device", "DeviceArray", "DeviceKind", "Gpu", "gpus"]

DeviceKind = Literal["cuda", "host"]
DeviceArray = Any
"""An array in device memory, of any library that speaks DLPack; `Device.empty` makes its own."""

RECORDING = threading.RLock()
"""Held while a stream is recorded, and by what waits for the whole GPU, as a network's runtime does
when it starts: either spoils the other, whatever threads and streams they are on."""


class Gpu(NamedTuple):
    """One NVIDIA GPU."""

    number: int  #: as CUDA counts them
    name: str  #: as the driver calls it
    compute_capability: int  #: ten times the major number plus the minor one: 86, 90, 120
    memory: int  #: bytes


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine.

    Raises:
        DeviceUnavailable: the package was built without its module for GPUs.
    """
    return _gpus(_operations("cuda"))


class Device:
    """A stream of a device with its operations.

    Args:
        kind: "cuda" is an NVIDIA GPU, "host" the twin.
        number: of the GPU, as CUDA counts them. It becomes the current one of this thread.

    Raises:
        DeviceUnavailable: the package was built without this module, or there is no usable GPU.

    Attributes:
        ops: module of the operations, `_cuda` or `_cuda_host`.
        stream: handle that operations take as `stream`; work on it runs in order.
    """

    def __init__(self, kind: DeviceKind = "cuda", number: int = 0) -> None:
        self.kind: DeviceKind = kind
        self.number = number
        self.ops: Any = _operations(kind)
        try:
            self.use()
            self.stream: int = self.ops.create_stream()
        except RuntimeError as error:
            raise DeviceUnavailable(f"device={kind!r}: {error}") from error

    def __del__(self) -> None:
        if getattr(self, "stream", 0):
            self.ops.destroy_stream(self.stream)

    def use(self) -> None:
        """Makes its GPU the current one of this thread; new threads start with the first one."""
        self.ops.set_device(self.number)

    @property
    def gpu(self) -> Gpu:
        """What it is a stream of; the twin is of none."""
        return _gpus(self.ops)[self.number]

    def empty(self, shape: int | tuple[int, ...], dtype: str = "float32") -> DeviceArray:
        """A new array, not initialised; float32, float64, int32 or uint8."""
        return self.ops.empty([shape] if isinstance(shape, int) else list(shape), dtype)

    def put(self, array: npt.ArrayLike) -> DeviceArray:
        """A copy of an array in device memory; bool becomes uint8."""
        values = np.ascontiguousarray(array)
        if values.dtype == np.bool_:
            values = values.view(np.uint8)
        target = self.empty(values.shape, values.dtype.name)
        self.ops.upload(values, target, self.stream)
        self.wait()  # the source may be a temporary
        return target

    def get(self, array: DeviceArray, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """A copy of a device array of that dtype on the host."""
        target = np.empty(self.ops.shape(array), dtype)
        self.ops.download(
            array, target.view(np.uint8) if dtype == np.bool_ else target, self.stream
        )
        self.wait()
        return target

    def wait(self) -> None:
        """Returns when all work of the stream is done."""
        self.ops.wait(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Work on the stream as one call that runs it again with the same arrays.

        The work is not run by this. It must not wait for the stream nor allocate. On the twin it is
        the work itself.
        """
        if not self.ops.ON_DEVICE:
            return work
        with RECORDING:
            collects = gc.isenabled()
            gc.disable()  # what it frees on the device would spoil the recording
            try:
                self.ops.begin_capture(self.stream)
                try:
                    work()
                finally:
                    graph = self.ops.end_capture(self.stream)
            finally:
                if collects:
                    gc.enable()
        return lambda: graph.launch(self.stream)


def _gpus(ops: Any) -> list[Gpu]:
    return [
        Gpu(number, name, 10 * major + minor, memory)
        for number, (name, major, minor, memory) in enumerate(ops.devices())
    ]


def _operations(kind: DeviceKind) -> Any:
    name = {"cuda": "_cuda", "host": "_cuda_host"}[kind]
    try:
        return import_module(f"extreme3d_fast.{name}")
    except ModuleNotFoundError as error:
        option = {"cuda": "EXTREME3D_CUDA", "host": "EXTREME3D_CUDA_HOST"}[kind]
        raise DeviceUnavailable(
            f"device={kind!r}: this build of extreme3d_fast has no module {name}; install it where "
            f"nvcc 12.4 or later is found, with `pip install . -C cmake.define.{option}=ON`"
        ) from error
    except ImportError as error:  # a library that it needs
        raise DeviceUnavailable(f"device={kind!r}: {name} cannot be loaded: {error}") from error
