"""The few calls of NVIDIA's driver that running networks takes: GPU, memory, CUDA graphs.

The driver comes with every GPU, and its streams and pointers are those of the CUDA runtime, so
nothing has to be installed for this. Nothing is loaded before it is asked for.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any, NamedTuple

from extreme3d_fast.errors import DeviceUnavailable

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_THREAD_LOCAL = 1  # CUstreamCaptureMode: what other threads do meanwhile does not spoil a capture
_NOT_CAPTURING = 0  # CUstreamCaptureStatus


class Gpu(NamedTuple):
    """One NVIDIA GPU."""

    number: int  #: as CUDA counts them
    name: str  #: as the driver calls it
    compute_capability: int  #: ten times the major number plus the minor one: 86, 90, 120


def gpu(number: int) -> Gpu:
    """The GPU of this number.

    Raises:
        DeviceUnavailable: there is none.
    """
    driver = _driver()
    count = ctypes.c_int()
    _call(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if not 0 <= number < count.value:
        raise DeviceUnavailable(
            f"device: {count.value} NVIDIA GPUs are here, none of number {number}"
        )
    device = _device(number)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    versions = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call(
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device),
            "cuDeviceGetAttribute",
        )
        versions.append(value.value)
    return Gpu(number, name.value.decode(), 10 * versions[0] + versions[1])


def use(number: int) -> None:
    """Makes a GPU the current one of this thread, as cudaSetDevice does.

    Raises:
        DeviceUnavailable: the driver refuses.
    """
    _call(_driver().cuCtxSetCurrent(_context(number)), "cuCtxSetCurrent")


def is_capturing(stream: int) -> bool:
    """Whether the caller is recording this stream into a graph of its own."""
    status = ctypes.c_int()
    error = _driver().cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
    _call(error, "cuStreamIsCapturing")
    return status.value != _NOT_CAPTURING


class Graph:
    """What was enqueued on a stream between `begin` and `end`, to be launched again as one."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._driver = _driver()
        self._executable = executable

    @staticmethod
    def begin(stream: int) -> None:
        """From here on what this thread enqueues on the stream is recorded, and does not run.

        Raises:
            DeviceUnavailable: the driver refuses; the legacy default stream cannot be recorded.
        """
        error = _driver().cuStreamBeginCapture_v2(ctypes.c_void_p(stream), _THREAD_LOCAL)
        _call(error, "cuStreamBeginCapture")

    @classmethod
    def end(cls, stream: int) -> Graph:
        """Stops recording; the stream is usable again even where this raises.

        Raises:
            DeviceUnavailable: something was enqueued that cannot be recorded.
        """
        driver = _driver()
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        error = driver.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        _call(error, "cuStreamEndCapture")
        error = driver.cuGraphInstantiateWithFlags(
            ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
        )
        driver.cuGraphDestroy(graph)
        _call(error, "cuGraphInstantiate")
        return cls(executable)

    def launch(self, stream: int) -> None:
        """Enqueues all of it on a stream."""
        error = _driver().cuGraphLaunch(self._executable, ctypes.c_void_p(stream))
        _call(error, "cuGraphLaunch")

    def __del__(self) -> None:  # one in flight is freed when it is done
        self._driver.cuGraphExecDestroy(self._executable)


class Memory:
    """Memory on the current GPU, until this object goes.

    Args:
        size: bytes.

    Raises:
        DeviceUnavailable: there is not as much.
    """

    def __init__(self, size: int) -> None:
        self._driver = _driver()
        self._address = ctypes.c_uint64()
        error = self._driver.cuMemAlloc_v2(
            ctypes.byref(self._address), ctypes.c_size_t(max(size, 1))
        )
        _call(error, f"cuMemAlloc of {size} bytes")
        self.size = size

    @property
    def pointer(self) -> int:
        """Address on the device."""
        return self._address.value

    def __del__(self) -> None:
        if self._address.value:
            self._driver.cuMemFree_v2(self._address)


@functools.cache
def _driver() -> Any:
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise DeviceUnavailable(
            f"device: no NVIDIA GPU here, or no driver for it ({error})"
        ) from error
    _call(driver.cuInit(ctypes.c_uint(0)), "cuInit", driver)
    return driver


@functools.cache
def _device(number: int) -> ctypes.c_int:
    device = ctypes.c_int()
    _call(_driver().cuDeviceGet(ctypes.byref(device), number), "cuDeviceGet")
    return device


@functools.cache
def _context(number: int) -> ctypes.c_void_p:
    """The primary context, which the CUDA runtime uses as well; kept for the process's life."""
    context = ctypes.c_void_p()
    error = _driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), _device(number))
    _call(error, "cuDevicePrimaryCtxRetain")
    return context


def _call(error: int, name: str, driver: Any = None) -> None:
    if error:
        text = ctypes.c_char_p()
        (driver or _driver()).cuGetErrorString(error, ctypes.byref(text))
        said = (text.value or b"unknown").decode()
        raise DeviceUnavailable(f"device: {name} failed with error {error}: {said}")
