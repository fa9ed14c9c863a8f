"""Runs one network on a GPU, on arrays that live there: TensorRT, else ONNX Runtime with CUDA.

Launching a network's hundred small kernels one by one takes longer than they do, so each run is
recorded as a CUDA graph and launched as one. ONNX Runtime can do that by itself, but its way
forbids every other thread to allocate on the GPU meanwhile, so all runtimes are recorded from
outside, for this thread alone.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from extreme3d_fast.device import RECORDING, Device, Gpu
from extreme3d_fast.engines import (
    PACKAGES,
    PRECISIONS,
    EngineCache,
    EngineKey,
    Precision,
    cached_engine,
    check_target,
    logger,
    prepared,
    tensorrt,
)
from extreme3d_fast.errors import DeviceUnavailable, Extreme3DError, InvalidModelFile, UnsafeCache
from extreme3d_fast.session import Network

__all__ = ["RUNTIMES", "DeviceSession", "DeviceTensor", "available_runtime"]

#: What can run a network on a GPU, best first.
RUNTIMES = (*PACKAGES, "onnxruntime")
_PACKAGES = {**PACKAGES, "onnxruntime": "onnxruntime-gpu"}
_PROVIDER = "CUDAExecutionProvider"
# Sets of buffers that are kept ready per session: a pipeline that keeps its buffers uses a few; one
# that doesn't would fill the memory with graphs that are never launched again.
_MOST_READY = 16
# Times that a run is recorded in vain before it is left at plain runs.
_TRIES = 2

Shape = tuple[int, ...]


class DeviceTensor(NamedTuple):
    """A float32 array on the GPU, dense and in C order."""

    pointer: int  #: address on the device
    shape: Shape


class _Bound(NamedTuple):
    """Runs of a network on certain buffers."""

    run: Callable[[], None]  #: enqueues one
    recordable: Callable[[], bool]  #: once it has run


class _Ready(NamedTuple):
    """What the later runs on certain buffers do."""

    run: Callable[[], None]  #: kernel by kernel
    launch: Callable[[], None]  #: at once, if it could be recorded


class DeviceSession(Network):
    """A network loaded from an ONNX file, on an NVIDIA GPU.

    TensorRT runs it if it is installed, from an engine that is built on first use and then comes
    from the cache (`engines.py`), else ONNX Runtime's CUDA provider. The contract is checked as for
    `Session`. One session serves the stream of its device: `fork` makes more of them, which share
    the weights (ONNX Runtime: the file).

    The first run on a set of buffers makes it ready, which takes long, and records it as a CUDA
    graph; later ones launch that, and neither allocate nor wait. So keep buffers. A caller who
    records a graph of its own runs each set once before.

    Args:
        path: the ONNX file.
        device: the GPU and the stream. The GPU becomes the current one of each thread that calls
            this session.
        precision: `fp16`, `tf32` or `fp32`, of the inner layers; arrays are float32 in each.
        runtime: one of `RUNTIMES`; None is the best that works here.
        graphs: whether to record CUDA graphs.
        cache: where engines are kept; None is the user's cache.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModelFile: the file is not an ONNX network, or its metadata lacks an entry.
        DeviceUnavailable: nothing runs networks on this GPU; the message names the packages to
            install.
        UnsafeCache: somebody else may write to the cache.
    """

    def __init__(
        self,
        path: str | Path,
        device: Device,
        *,
        precision: Precision = "fp16",
        runtime: str | None = None,
        graphs: bool = True,
        cache: EngineCache | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
        if runtime is not None and runtime not in RUNTIMES:
            raise ValueError(f"runtime: expected one of {RUNTIMES}, got {runtime!r}")
        options = onnxruntime.SessionOptions()  # for reading the contract: nothing is run on it
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._open(path, options)
        self._device, self._gpu = device, device.gpu
        self._ready: OrderedDict[tuple[Any, ...], _Ready] = OrderedDict()
        self._recording = graphs
        self._precision = precision
        device.use()
        reasons = []
        for name in (runtime,) if runtime else RUNTIMES:
            try:
                with RECORDING:
                    self._backend = self._load(name, cache)
                return
            except UnsafeCache:
                raise
            except Extreme3DError as error:
                reasons.append(str(error))
        packages = " or ".join(f"pip install {_PACKAGES[n]}" for n in RUNTIMES)
        raise DeviceUnavailable(
            f"device: nothing runs {self.path.name} on {self._gpu.name} (compute capability "
            f"{self._gpu.compute_capability / 10}): {'; '.join(reasons)}. Try {packages}"
        )

    def _load(self, name: str, cache: EngineCache | None) -> _Engine | _OnnxRuntime:
        available_runtime(name, self._gpu)
        if name == "onnxruntime":
            return _OnnxRuntime(self.path, self._device, self._precision)
        return _Engine.load(
            self.path, self._device, self._precision, tensorrt(name), cache or EngineCache()
        )

    @property
    def runtime(self) -> str:
        """What runs the network, for reports: `tensorrt 11.4.0 fp16 on NVIDIA H200`."""
        return f"{self._backend.name} {self._precision} on {self._gpu.name}"

    def fork(self, device: Device) -> DeviceSession:
        """The same network for another stream of the same GPU; only weights are shared."""
        other = DeviceSession.__new__(DeviceSession)
        other.__dict__.update(self.__dict__)
        other._device = device
        device.use()
        with RECORDING:
            other._backend = self._backend.fork(device)
        other._ready = OrderedDict()
        return other

    def output_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The outputs' shapes, to allocate them.

        Args:
            shapes: shape per input name.

        Raises:
            ValueError: a name or shape differs from the network's, or from what the engine takes.
        """
        self._check_names(shapes)
        for name, shape in shapes.items():
            if not self._fits(name, tuple(shape)):
                raise ValueError(
                    f"feeds[{name!r}]: expected shape {self.inputs[name]}, got {tuple(shape)}"
                )
        self._device.use()
        with RECORDING:
            return self._backend.output_shapes({name: tuple(s) for name, s in shapes.items()})

    def run(self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        """Enqueues one run of the network on the device's stream, and returns.

        Args:
            feeds: float32 array on the device per input name, of the shapes in `inputs`.
            outputs: where to write, per output name, of the shapes that `output_shapes` says. All
                buffers must stay until the stream has come past this run.

        Raises:
            ValueError: a name or shape differs from the network's.
            InvalidModelFile: the network cannot be run.
            DeviceUnavailable: the runtime cannot start.
        """
        self._device.use()
        key = (tuple(sorted(feeds.items())), tuple(sorted(outputs.items())))
        ready = self._ready.get(key)
        if ready is None:  # its names and shapes have not been checked yet
            self._check(feeds, outputs)
            with RECORDING:
                self._ready[key] = self._first_run(feeds, outputs)
                if len(self._ready) > _MOST_READY:
                    self._ready.popitem(last=False)
            return
        self._ready.move_to_end(key)
        # A graph cannot be launched into another one that is being recorded.
        (ready.run if self._is_capturing() else ready.launch)()

    def _is_capturing(self) -> bool:
        return bool(self._device.ops.is_capturing(self._device.stream))

    def _first_run(
        self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]
    ) -> _Ready:
        """Runs it, and records it if that can be done."""
        run, recordable = self._backend.bind(feeds, outputs)
        for _ in range(self._backend.warm_ups):
            run()
        if self._recording and not self._is_capturing() and recordable():
            for _ in range(_TRIES):
                try:
                    return _Ready(run, self._device.record(run))
                except (RuntimeError, Extreme3DError):  # of the driver, of the runtime
                    run()  # which loads or allocates what was not allowed to be meanwhile
        return _Ready(run, run)

    def _check(
        self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]
    ) -> None:
        shapes = self.output_shapes({name: tensor.shape for name, tensor in feeds.items()})
        given = {name: tuple(tensor.shape) for name, tensor in outputs.items()}
        if given != shapes:
            raise ValueError(f"outputs: expected {shapes}, got {given}")
        for kind, tensors in (("feeds", feeds), ("outputs", outputs)):
            for name, tensor in tensors.items():
                if not tensor.pointer:
                    raise ValueError(f"{kind}[{name!r}]: expected an address on the GPU, got 0")


def available_runtime(name: str, gpu: Gpu) -> str:
    """A runtime with its version, if it runs networks on this GPU: `tensorrt 11.4.0`.

    Args:
        name: one of `RUNTIMES`.
        gpu: where it should run.

    Raises:
        DeviceUnavailable: it is not installed, or not for this GPU.
    """
    if name == "onnxruntime":
        if _PROVIDER not in onnxruntime.get_available_providers():
            raise DeviceUnavailable(f"onnxruntime {onnxruntime.__version__} is without CUDA")
        return f"onnxruntime {onnxruntime.__version__} CUDA"
    trt = tensorrt(name)
    check_target(trt, gpu)
    return f"{name} {trt.__version__}"


class _Engine:
    """A TensorRT engine, with contexts and working memory for one stream."""

    warm_ups = 1  # compiles and loads what the graph will hold

    def __init__(self, shared: _Shared, device: Device) -> None:
        self.name = shared.name
        self._shared, self._device = shared, device
        self._size = shared.engine.device_memory_size_v2
        self._memory = device.empty(max(1, self._size), "uint8")
        # Per input shapes: a context keeps numbers of its shapes where a recorded graph reads them.
        self._contexts: dict[tuple[tuple[str, Shape], ...], Any] = {}
        self._compiled: set[Any] = set()

    @classmethod
    def load(
        cls, path: Path, device: Device, precision: Precision, trt: Any, cache: EngineCache
    ) -> _Engine:
        gpu = device.gpu
        key, data = cached_engine(path, precision=precision, target=gpu, runtime=trt, cache=cache)
        log = logger(trt)
        log.errors.clear()
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            reasons = "; ".join(log.errors)
            raise DeviceUnavailable(f"{key.runtime} cannot load its engine: {reasons}")
        return cls(_Shared(trt, runtime, engine, _Kernels(cache, key, gpu, path.stem)), device)

    def fork(self, device: Device) -> _Engine:
        return _Engine(self._shared, device)

    def output_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        context = self._context(shapes)
        return {name: tuple(context.get_tensor_shape(name)) for name in self._shared.outputs}

    def _context(self, shapes: Mapping[str, Shape]) -> Any:
        key = tuple(sorted(shapes.items()))
        if key not in self._contexts:
            context = self._shared.context()
            for name, shape in shapes.items():
                if not context.set_input_shape(name, shape):
                    least, _, most = self._shared.engine.get_tensor_profile_shape(name, 0)
                    raise ValueError(
                        f"feeds[{name!r}]: expected {tuple(least)} to {tuple(most)}, got {shape}"
                    )
            context.set_device_memory(self._device.ops.pointer(self._memory), self._size)
            self._contexts[key] = context
        return self._contexts[key]

    def bind(
        self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]
    ) -> _Bound:
        context = self._context({name: tensor.shape for name, tensor in feeds.items()})
        stream = self._device.stream

        def run() -> None:
            for name, tensor in (*feeds.items(), *outputs.items()):
                if not context.set_tensor_address(name, tensor.pointer):
                    raise ValueError(
                        f"{name!r}: {self.name} refuses the address {tensor.pointer:#x}"
                    )
            self._shared.log.errors.clear()
            if not context.execute_async_v3(stream):
                reasons = "; ".join(self._shared.log.errors)
                raise InvalidModelFile(f"path: {self.name} fails to run it: {reasons}")
            if context not in self._compiled:
                self._compiled.add(context)
                self._shared.keep_kernels()

        def recordable() -> bool:
            asks = getattr(context, "is_stream_capturable", None)
            return asks is None or bool(asks(stream))

        return _Bound(run, recordable)


class _Kernels(NamedTuple):
    """Where kernels go that TensorRT for RTX compiles when an engine first runs on a GPU."""

    cache: EngineCache
    engine: EngineKey
    device: Gpu
    network: str  #: its name

    @property
    def key(self) -> EngineKey:
        return replace(self.engine, content="kernels", gpu=f"{self.engine.gpu} {self.device.name}")

    def load(self) -> bytes:
        return self.cache.load(self.key) or b""

    def store(self, kernels: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk: they are compiled again next time
            self.cache.store(self.key, kernels, name=self.network)


class _Shared:
    """What the contexts of an engine share: the engine, and kernels that were compiled for it."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, kernels: _Kernels) -> None:
        self.name = kernels.engine.runtime
        self.engine, self.log = engine, logger(trt)
        self._runtime = runtime  # an engine needs the one that it came from
        ends = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        output = trt.TensorIOMode.OUTPUT
        self.outputs = [name for name in ends if engine.get_tensor_mode(name) == output]
        # Contexts of one stream take turns in the same memory.
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._store, self._kept = kernels, b""
        self._config = self._compiled = None
        if hasattr(trt, "IRuntimeCache"):
            self._config = engine.create_runtime_config()
            self._config.set_execution_context_allocation_strategy(self._strategy)
            # Kernels for a shape are compiled when it is first run, not some time later: results
            # do not change from run to run, and a recorded graph holds the final ones.
            self._config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            self._compiled = self._config.create_runtime_cache()
            self._kept = kernels.load()
            if self._kept:  # those of another driver are not taken, and replaced
                self._compiled.deserialize(self._kept)
            self._config.set_runtime_cache(self._compiled)

    def context(self) -> Any:
        self.log.errors.clear()
        context = self.engine.create_execution_context(
            self._strategy if self._config is None else self._config
        )
        if context is None:
            raise DeviceUnavailable(f"{self.name} has no context: {'; '.join(self.log.errors)}")
        return context

    def keep_kernels(self) -> None:
        """Stores newly compiled kernels, which spares the next process to compile them."""
        if self._compiled is None:
            return
        blob = self._compiled.serialize()
        kernels = b"" if blob is None else bytes(blob)
        if kernels and kernels != self._kept:
            self._store.store(kernels)
            self._kept = kernels


class _OnnxRuntime:
    """ONNX Runtime's CUDA provider: needs no engine, and is slower.

    Each set of buffers has a session of its own, in which the sizes of all axes are fixed. So what
    it computes from shapes, on the host and between the kernels, is folded away; its convolutions,
    which make their plan anew whenever the size differs from that of the last run, keep it; and
    nothing else uses the memory that its graph does. The price is the weights once more, 5 to 14 MB
    in these networks.
    """

    # The first run finds out how much memory each layer takes, the second allocates it as one
    # block; allocating is not allowed while a graph is recorded.
    warm_ups = 2

    def __init__(self, path: Path, device: Device, precision: Precision) -> None:
        if preload := getattr(onnxruntime, "preload_dlls", None):
            preload()  # CUDA and cuDNN from their Python packages
        self.name = available_runtime("onnxruntime", device.gpu)
        self._model = prepared(path, precision=precision)
        self._device, self._precision = device, precision
        probe = self._session({})  # shows that one can be made, and knows the axes' names
        self._inputs = {value.name: tuple(value.shape) for value in probe.get_inputs()}
        self._outputs = {value.name: tuple(value.shape) for value in probe.get_outputs()}

    def _session(self, sizes: Mapping[str, int], **more: str) -> Any:
        """A session on the device's stream.

        Args:
            sizes: of open axes, by name.
            more: options of the provider.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal: errors are raised
        options.intra_op_num_threads = 1  # there are many sessions, and the GPU does the work
        for axis, size in sizes.items():
            options.add_free_dimension_override_by_name(axis, size)
        provider = {
            "cudnn_conv_algo_search": "HEURISTIC",  # trying all takes seconds for each input size
            "use_tf32": "0" if self._precision == "fp32" else "1",
            "user_compute_stream": str(self._device.stream),
            **more,
        }
        if self._device.number:  # where it is named, a warning says that no plugin has that GPU
            provider["device_id"] = str(self._device.number)
        try:
            session = onnxruntime.InferenceSession(
                self._model, options, providers=[(_PROVIDER, provider)], enable_fallback=0
            )
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise DeviceUnavailable(f"{self.name} cannot load it: {error}") from error
        if _PROVIDER not in session.get_providers():  # it goes on with the CPU by itself
            raise DeviceUnavailable(
                f"{self.name} cannot start: CUDA 12 or 13 or cuDNN 9 is missing"
            )
        return session

    def fork(self, device: Device) -> _OnnxRuntime:
        other = _OnnxRuntime.__new__(_OnnxRuntime)
        other.__dict__.update(self.__dict__)
        other._device = device
        return other

    def _sizes(self, shapes: Mapping[str, Shape]) -> dict[str, int]:
        """Sizes of the open axes, by name."""
        return {
            axis: size
            for name, axes in self._inputs.items()
            for axis, size in zip(axes, shapes[name], strict=True)
            if isinstance(axis, str)
        }

    def output_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        sizes = self._sizes(shapes)
        axes = {axis for shape in self._outputs.values() for axis in shape}
        unknown = {axis for axis in axes if not isinstance(axis, int)} - sizes.keys()
        if unknown:
            raise InvalidModelFile(
                f"path: outputs have axes {sorted(map(str, unknown))} that are no input's, so that "
                f"{self.name} cannot tell their sizes"
            )
        return {
            name: tuple(axis if isinstance(axis, int) else sizes[axis] for axis in shape)
            for name, shape in self._outputs.items()
        }

    def bind(
        self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]
    ) -> _Bound:
        sizes = self._sizes({name: tensor.shape for name, tensor in feeds.items()})
        recordable = True
        try:
            # It is not to record graphs by itself (-1 below); but made for them, it refuses a
            # network that runs in part on the CPU, and one with copies from memory on the host that
            # does not last fails to be recorded.
            session = self._session(sizes, enable_cuda_graph="1")
        except DeviceUnavailable:
            recordable, session = False, self._session(sizes)
        binding = session.io_binding()
        for bind, tensors in ((binding.bind_input, feeds), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                shape = list(tensor.shape)
                bind(name, "cuda", self._device.number, np.float32, shape, tensor.pointer)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        options.add_run_config_entry("gpu_graph_id", "-1")

        def run() -> None:
            try:
                session.run_with_iobinding(binding, options)
            except Exception as error:  # see above
                raise InvalidModelFile(f"path: {self.name} fails to run it: {error}") from error

        return _Bound(run, lambda: recordable)
