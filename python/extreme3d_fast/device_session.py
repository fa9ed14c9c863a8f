"""Runs one network on a GPU, on arrays that live there: TensorRT, else ONNX Runtime with CUDA."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from extreme3d_fast.cuda_driver import Gpu, Graph, Memory, gpu, is_capturing, use
from extreme3d_fast.engines import (
    PACKAGES,
    PRECISIONS,
    EngineCache,
    EngineKey,
    Precision,
    cached_engine,
    logger,
    prepared,
    tensorrt,
)
from extreme3d_fast.errors import DeviceUnavailable, Extreme3DError, InvalidModelFile, UnsafeCache
from extreme3d_fast.session import Network

__all__ = ["RUNTIMES", "DeviceSession", "DeviceTensor"]

#: What can run a network on a GPU, best first.
RUNTIMES = (*PACKAGES, "onnxruntime")
_PACKAGES = {**PACKAGES, "onnxruntime": "onnxruntime-gpu"}
_PROVIDER = "CUDAExecutionProvider"
# Graphs kept per session: a pipeline that keeps its buffers uses one or two input sizes; one that
# doesn't would fill the memory with graphs that are never launched again.
_MOST_GRAPHS = 16
_LEGACY_STREAMS = (0, 1)  # the default stream, which cannot be recorded

Shape = tuple[int, ...]


class DeviceTensor(NamedTuple):
    """A float32 array on the GPU, dense and in C order."""

    pointer: int  #: address on the device
    shape: Shape


class DeviceSession(Network):
    """A network loaded from an ONNX file, on an NVIDIA GPU.

    TensorRT runs it if it is installed, from an engine that is built on first use and then comes
    from the cache (`engines.py`), else ONNX Runtime's CUDA provider. The contract is checked as for
    `Session`. One session serves one stream at a time: `fork` makes more of them, which share the
    weights.

    The second run on the same buffers is recorded as a CUDA graph, and later ones launch it; so
    keep buffers. A run never synchronises. Nothing is allocated once each shape has been seen (ONNX
    Runtime: from its own arena). A caller who records a graph of its own runs each shape once
    before: kernels are loaded, or compiled, when they are first used.

    Args:
        path: the ONNX file.
        device: number of the GPU, as CUDA counts them. It becomes the current one of each thread
            that calls this session.
        precision: `fp16`, `tf32` or `fp32`, of the inner layers; arrays are float32 in each.
        runtime: one of `RUNTIMES`; None is the best that works here.
        graphs: whether to record CUDA graphs.
        cache: where engines are kept; None is the user's cache.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModelFile: the file is not an ONNX network, or its metadata lacks an entry.
        DeviceUnavailable: no such GPU, or nothing runs networks on it; the message names the
            packages to install.
        UnsafeCache: somebody else may write to the cache.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: int = 0,
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
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._open(path, options)
        self._gpu = gpu(device)
        self._graphs: OrderedDict[tuple[Any, ...], Graph | None] = OrderedDict()
        self._recording = graphs
        self._precision = precision
        use(device)
        reasons = []
        for name in (runtime,) if runtime else RUNTIMES:
            try:
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
        if name == "onnxruntime":
            return _OnnxRuntime(self.path, self._gpu, self._precision)
        return _Engine.load(
            self.path, self._gpu, self._precision, tensorrt(name), cache or EngineCache()
        )

    @property
    def runtime(self) -> str:
        """What runs the network, for reports: `tensorrt 11.4.0 fp16 on NVIDIA H200`."""
        return f"{self._backend.name} {self._precision} on {self._gpu.name}"

    def fork(self) -> DeviceSession:
        """The same network for another stream: weights are shared, working memory is not."""
        use(self._gpu.number)
        other = DeviceSession.__new__(DeviceSession)
        other.__dict__.update(self.__dict__)
        other._backend = self._backend.fork()
        other._graphs = OrderedDict()
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
        use(self._gpu.number)
        return self._backend.output_shapes({name: tuple(s) for name, s in shapes.items()})

    def run(
        self,
        feeds: Mapping[str, DeviceTensor],
        outputs: Mapping[str, DeviceTensor],
        *,
        stream: int,
    ) -> None:
        """Enqueues one run of the network on a stream, and returns.

        Args:
            feeds: float32 array on the device per input name, of the shapes in `inputs`.
            outputs: where to write, per output name, of the shapes that `output_shapes` says. All
                buffers must stay until the stream has come past this run.
            stream: handle of a CUDA stream (cudaStream_t, as an integer). Not the default one, if
                graphs are to be used.

        Raises:
            ValueError: a name or shape differs from the network's.
            InvalidModelFile: the network cannot be run.
            DeviceUnavailable: the driver refuses.
        """
        use(self._gpu.number)
        key = (tuple(sorted(feeds.items())), tuple(sorted(outputs.items())))
        if key not in self._graphs:  # its names and shapes have not been checked yet
            self._check(feeds, outputs)
            self._backend.run(feeds, outputs, stream)
            self._graphs[key] = None
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
            return
        self._graphs.move_to_end(key)
        graph = self._graphs[key]
        if self._recording and stream not in _LEGACY_STREAMS and not is_capturing(stream):
            if graph is None:
                graph = self._graphs[key] = self._recorded(feeds, outputs, stream)
            if graph is not None:
                graph.launch(stream)
                return
        self._backend.run(feeds, outputs, stream)

    def _recorded(
        self,
        feeds: Mapping[str, DeviceTensor],
        outputs: Mapping[str, DeviceTensor],
        stream: int,
    ) -> Graph | None:
        """A graph of one run; None, and no further try, where it cannot be recorded."""
        try:
            if not self._backend.recordable(feeds, stream):
                raise DeviceUnavailable("device: this runtime cannot be recorded")
            Graph.begin(stream)
            try:
                self._backend.run(feeds, outputs, stream)
            finally:
                graph = Graph.end(stream)
        except Extreme3DError:
            self._recording = False
            return None
        return graph

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


class _Engine:
    """A TensorRT engine, with contexts and working memory for one stream."""

    def __init__(self, shared: _Shared) -> None:
        self.name = shared.name
        self._shared = shared
        self._memory = Memory(shared.engine.device_memory_size_v2)
        # Per input shapes: a context keeps numbers of its shapes where a recorded graph reads them.
        self._contexts: dict[tuple[tuple[str, Shape], ...], Any] = {}
        self._compiled: set[Any] = set()

    @classmethod
    def load(
        cls, path: Path, device: Gpu, precision: Precision, trt: Any, cache: EngineCache
    ) -> _Engine:
        key, data = cached_engine(
            path, precision=precision, target=device, runtime=trt, cache=cache
        )
        log = logger(trt)
        log.errors.clear()
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            reasons = "; ".join(log.errors)
            raise DeviceUnavailable(f"{key.runtime} cannot load its engine: {reasons}")
        return cls(_Shared(trt, runtime, engine, _Kernels(cache, key, device, path.stem)))

    def fork(self) -> _Engine:
        return _Engine(self._shared)

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
            context.set_device_memory(self._memory.pointer, self._memory.size)
            self._contexts[key] = context
        return self._contexts[key]

    def run(
        self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor], stream: int
    ) -> None:
        context = self._context({name: tensor.shape for name, tensor in feeds.items()})
        for name, tensor in (*feeds.items(), *outputs.items()):
            if not context.set_tensor_address(name, tensor.pointer):
                raise ValueError(f"{name!r}: {self.name} refuses the address {tensor.pointer:#x}")
        self._shared.log.errors.clear()
        if not context.execute_async_v3(stream):
            reasons = "; ".join(self._shared.log.errors)
            raise InvalidModelFile(f"path: {self.name} fails to run it: {reasons}")
        if context not in self._compiled:
            self._compiled.add(context)
            self._shared.keep_kernels()

    def recordable(self, feeds: Mapping[str, DeviceTensor], stream: int) -> bool:
        context = self._context({name: tensor.shape for name, tensor in feeds.items()})
        asks = getattr(context, "is_stream_capturable", None)
        return asks is None or bool(asks(stream))


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
    """ONNX Runtime's CUDA provider: needs no engine, and is slower."""

    def __init__(self, path: Path, device: Gpu, precision: Precision) -> None:
        if _PROVIDER not in onnxruntime.get_available_providers():
            raise DeviceUnavailable(f"onnxruntime {onnxruntime.__version__} is without CUDA")
        if preload := getattr(onnxruntime, "preload_dlls", None):
            preload()  # CUDA and cuDNN from their Python packages
        self.name = f"onnxruntime {onnxruntime.__version__} CUDA"
        self._model = prepared(path, precision=precision)
        self._gpu, self._precision = device, precision
        # A session is bound to a stream: this one shows that it can be made, and knows the shapes.
        self._probe = self._session(None)
        self._sessions: dict[int, Any] = {}

    def _session(self, stream: int | None) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        provider = {
            "device_id": str(self._gpu.number),
            "cudnn_conv_algo_search": "HEURISTIC",  # trying all takes seconds for each input size
            "use_tf32": "0" if self._precision == "fp32" else "1",
        }
        if stream is not None:
            provider["user_compute_stream"] = str(stream)
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

    def fork(self) -> _OnnxRuntime:
        return self  # its sessions may be called from several threads, and there is one per stream

    def output_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        sizes: dict[Any, int] = {}
        for value in self._probe.get_inputs():
            sizes |= dict(zip(value.shape, shapes[value.name], strict=True))
        outputs = {value.name: value.shape for value in self._probe.get_outputs()}
        unknown = {a for s in outputs.values() for a in s if isinstance(a, str)} - sizes.keys()
        if unknown:
            raise InvalidModelFile(
                f"path: outputs have axes {sorted(unknown)} that are no input's, so that "
                f"{self.name} cannot tell their sizes"
            )
        return {
            name: tuple(sizes[axis] if isinstance(axis, str) else axis for axis in shape)
            for name, shape in outputs.items()
        }

    def run(
        self, feeds: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor], stream: int
    ) -> None:
        if stream not in self._sessions:
            self._sessions[stream] = self._session(stream)
        session = self._sessions[stream]
        binding = session.io_binding()
        for bind, tensors in ((binding.bind_input, feeds), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                bind(
                    name,
                    "cuda",
                    self._gpu.number,
                    np.float32,
                    list(tensor.shape),
                    tensor.pointer,
                )
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            session.run_with_iobinding(binding, options)
        except Exception as error:  # see above
            raise InvalidModelFile(f"path: {self.name} fails to run it: {error}") from error

    def recordable(self, feeds: Mapping[str, DeviceTensor], stream: int) -> bool:
        del feeds, stream
        return False  # it allocates as it runs
