// The emulated device as a module of Python.

#include "emulated.h"

#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace emulated {
namespace {

namespace py = pybind11;

PyObject* wait_function = nullptr;  // never released: threads may outlive the interpreter

void tell_python(const std::string& what) {
  const py::gil_scoped_acquire gil;
  py::reinterpret_borrow<py::object>(wait_function)(what);
}

void on_wait(py::object function) {
  wait_function = function.release().ptr();
  observe_waits(tell_python);
}

// What torch itself does for storages of CUDA where it is built with it.
void resize(py::object storage, int64_t bytes) {
  auto resized = torch::createStorage(storage.ptr());
  auto memory = device_allocator()->allocate(bytes);
  const auto kept = std::min<size_t>(bytes, resized.nbytes());
  std::memcpy(memory.get(), resized.data(), kept);
  resized.set_data_ptr_noswap(std::move(memory));
  resized.set_nbytes(bytes);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  c10::SetAllocator(CUDA, device_allocator());
  module.def("set_device_count", &set_device_count);
  module.def("current_device", &current_device);
  module.def("set_current_device", &set_current_device);
  module.def("default_generator", &default_generator);
  module.def("memory", [] {
    const auto now = memory();
    return std::make_pair(now.used, now.peak);
  });
  module.def("set_memory_limit", &set_memory_limit);
  module.def("reset_peak", &reset_peak);
  module.def("wait", &wait_for_device, py::call_guard<py::gil_scoped_release>());
  module.def("on_wait", &on_wait);
  module.def("on_host", &on_host);
  module.def("on_device", &on_device);
  module.def("resize", &resize);
  module.def("nccl_over", &nccl_over);
}

}  // namespace
}  // namespace emulated
