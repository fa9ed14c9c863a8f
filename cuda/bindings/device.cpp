// device.cpp — Python view of device memory, streams, events and recorded graphs.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "extreme3d/cuda/memory.h"

namespace e3d::cuda::bind {
namespace {

using AnyArray = nb::ndarray<nb::c_contig, Device>;
using AnyHostArray = nb::ndarray<nb::c_contig, nb::device::cpu>;
using SourceArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using NewArray = nb::ndarray<nb::array_api, Device>;

nb::dlpack::dtype dtype_of(const std::string& name) {
  if (name == "float32") return nb::dtype<float>();
  if (name == "float64") return nb::dtype<double>();
  if (name == "int32") return nb::dtype<std::int32_t>();
  if (name == "uint8") return nb::dtype<std::uint8_t>();
  throw std::invalid_argument("dtype should be float32, float64, int32 or uint8, is " + name);
}

std::size_t bytes_of(const std::vector<std::size_t>& shape, nb::dlpack::dtype dtype) {
  std::size_t bytes = dtype.bits / 8;
  for (const std::size_t n : shape) bytes *= n;
  return bytes;
}

int current_device() {
  int device = 0;
#if defined(E3D_CUDA)
  check(cudaGetDevice(&device), "no usable NVIDIA GPU");
#endif
  return device;
}

NewArray wrap(void* data, const std::vector<std::size_t>& shape, nb::dlpack::dtype dtype,
              nb::handle owner) {
  return NewArray(data, shape.size(), shape.data(), owner, nullptr, dtype, Device::value,
                  current_device());
}

NewArray empty(const std::vector<std::size_t>& shape, const std::string& name) {
  const nb::dlpack::dtype dtype = dtype_of(name);
  current_device();
  void* data = allocate(bytes_of(shape, dtype));
  return wrap(data, shape, dtype, nb::capsule(data, [](void* p) noexcept { release(p); }));
}

// Page-locked host memory, which copies to and from the device without a detour.
nb::object pinned(const std::vector<std::size_t>& shape, const std::string& name) {
  const nb::dlpack::dtype dtype = dtype_of(name);
  const std::size_t bytes = bytes_of(shape, dtype);
#if defined(E3D_CUDA)
  void* data = nullptr;
  check(cudaHostAlloc(&data, bytes ? bytes : 1, cudaHostAllocDefault), "page-locked memory");
  nb::capsule owner(data, [](void* p) noexcept { cudaFreeHost(p); });
#else
  void* data = allocate(bytes);
  nb::capsule owner(data, [](void* p) noexcept { release(p); });
#endif
  return nb::cast(nb::ndarray<nb::numpy>(data, shape.size(), shape.data(), owner, nullptr, dtype));
}

// Rows [begin, end) of the first axis, seen under another shape if one is given.
NewArray slice(nb::handle array, std::size_t begin, std::size_t end,
               const std::vector<std::size_t>& shape) {
  const auto a = nb::cast<AnyArray>(array);
  if (a.ndim() < 1 || begin > end || end > a.shape(0))
    throw std::invalid_argument("slice: rows outside the array");
  std::size_t row = a.itemsize();
  std::vector<std::size_t> own{end - begin};
  for (std::size_t d = 1; d < a.ndim(); ++d) {
    row *= a.shape(d);
    own.push_back(a.shape(d));
  }
  const auto& wanted = shape.empty() ? own : shape;
  if (bytes_of(wanted, a.dtype()) != row * (end - begin))
    throw std::invalid_argument("slice: the shape has another number of elements");
  auto* data = static_cast<std::uint8_t*>(const_cast<void*>(a.data())) + begin * row;
  return wrap(data, wanted, a.dtype(), array);
}

void require_fit(std::size_t to, std::size_t from) {
  if (to < from) throw std::invalid_argument("copy: the target is smaller than the source");
}

struct Graph {
#if defined(E3D_CUDA)
  cudaGraphExec_t exec = nullptr;
  ~Graph() {
    if (exec) cudaGraphExecDestroy(exec);
  }
#endif
};

}  // namespace

void bind_device(nb::module_& m) {
  m.attr("ON_DEVICE") = kOnDevice;
  m.def("empty", &empty, "shape"_a, "dtype"_a = "float32");
  m.def("pinned", &pinned, "shape"_a, "dtype"_a = "float32");
  m.def("slice", &slice, "array"_array, "begin"_a, "end"_a, "shape"_a = std::vector<std::size_t>{});
  m.def(
      "shape",
      [](const AnyArray& a) {
        nb::list out;
        for (std::size_t d = 0; d < a.ndim(); ++d) out.append(a.shape(d));
        return nb::tuple(out);
      },
      "array"_array);
  m.def(
      "pointer", [](const AnyArray& a) { return reinterpret_cast<std::uintptr_t>(a.data()); },
      "array"_array);
  m.def(
      "upload",
      [](const SourceArray& from, const AnyArray& to, std::uintptr_t s) {
        require_fit(to.nbytes(), from.nbytes());
        const nb::gil_scoped_release release;
        copy_to_device(const_cast<void*>(to.data()), from.data(), from.nbytes(), stream(s));
      },
      "source"_array, "target"_array, "stream"_a = 0);
  m.def(
      "download",
      [](const AnyArray& from, const AnyHostArray& to, std::uintptr_t s) {
        const std::size_t bytes = to.nbytes();
        require_fit(from.nbytes(), bytes);
        const nb::gil_scoped_release release;
        copy_to_host(const_cast<void*>(to.data()), from.data(), bytes, stream(s));
      },
      "source"_array, "target"_array, "stream"_a = 0);
  m.def(
      "copy",
      [](const AnyArray& from, const AnyArray& to, std::uintptr_t s) {
        require_fit(to.nbytes(), from.nbytes());
        const nb::gil_scoped_release release;
        copy_on_device(const_cast<void*>(to.data()), from.data(), from.nbytes(), stream(s));
      },
      "source"_array, "target"_array, "stream"_a = 0);
  m.def(
      "fill_bytes",
      [](const AnyArray& a, int byte, std::uintptr_t s) {
        fill_bytes(View<std::uint8_t>{static_cast<std::uint8_t*>(const_cast<void*>(a.data())),
                                      static_cast<int>(a.nbytes())},
                   byte, stream(s));
      },
      "array"_array, "byte"_a, "stream"_a = 0);

  m.def("create_stream", [] {
    std::uintptr_t handle = 0;
#if defined(E3D_CUDA)
    cudaStream_t s = nullptr;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "no usable NVIDIA GPU");
    handle = reinterpret_cast<std::uintptr_t>(s);
#endif
    return handle;
  });
  m.def(
      "destroy_stream",
      [](std::uintptr_t s) {
#if defined(E3D_CUDA)
        cudaStreamDestroy(stream(s));
#else
        (void)s;
#endif
      },
      "stream"_a);
  m.def(
      "wait",
      [](std::uintptr_t s) {
        const nb::gil_scoped_release release;
        wait(stream(s));
      },
      "stream"_a);

  nb::class_<Graph>(m, "Graph").def("launch", [](const Graph& graph, std::uintptr_t s) {
#if defined(E3D_CUDA)
    check(cudaGraphLaunch(graph.exec, stream(s)), "launch of a recorded graph");
#else
             (void)graph;
             (void)s;
#endif
  });
  // Between the two calls, operations that this thread puts on the stream are recorded, not run;
  // other threads may allocate meanwhile, but not wait for the whole GPU.
  m.def(
      "begin_capture",
      [](std::uintptr_t s) {
#if defined(E3D_CUDA)
        check(cudaStreamBeginCapture(stream(s), cudaStreamCaptureModeThreadLocal), "recording");
#else
        (void)s;
#endif
      },
      "stream"_a);
  m.def(
      "end_capture",
      [](std::uintptr_t s) {
        auto* recorded = new Graph;
        nb::object owner = nb::cast(recorded, nb::rv_policy::take_ownership);
#if defined(E3D_CUDA)
        cudaGraph_t graph = nullptr;
        check(cudaStreamEndCapture(stream(s), &graph), "recording");
        const cudaError_t status = cudaGraphInstantiate(&recorded->exec, graph, 0);
        cudaGraphDestroy(graph);
        check(status, "recording");
#else
        (void)s;
#endif
        return owner;
      },
      "stream"_a);

  m.def(
      "is_capturing",
      [](std::uintptr_t s) {
#if defined(E3D_CUDA)
        cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        check(cudaStreamIsCapturing(stream(s), &status), "is the stream recorded");
        return status != cudaStreamCaptureStatusNone;
#else
        (void)s;
        return false;
#endif
      },
      "stream"_a);

  // Makes a GPU the current one of this thread.
  m.def(
      "set_device",
      [](int device) {
#if defined(E3D_CUDA)
        check(cudaSetDevice(device), "no usable NVIDIA GPU");
#else
        (void)device;
#endif
      },
      "device"_a);
  m.def("devices", [] {
    nb::list names;
#if defined(E3D_CUDA)
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) return names;  // no driver, no GPU
    for (int d = 0; d < count; ++d) {
      cudaDeviceProp properties;
      check(cudaGetDeviceProperties(&properties, d), "cudaGetDeviceProperties");
      names.append(nb::make_tuple(std::string(properties.name), properties.major, properties.minor,
                                  properties.totalGlobalMem));
    }
#endif
    return names;
  });
  m.def("memory", [] {  // bytes free and in all
    std::size_t free = 0, total = 0;
#if defined(E3D_CUDA)
    check(cudaMemGetInfo(&free, &total), "no usable NVIDIA GPU");
#endif
    return nb::make_tuple(free, total);
  });
  m.def("set_grid_blocks", [](int n) { grid_blocks = n; }, "n"_a);  // see launch.h
#if !defined(E3D_CUDA)
  m.def("run_reversed", [](bool reversed) { host_reversed = reversed; }, "reversed"_a);
#endif
}

}  // namespace e3d::cuda::bind
