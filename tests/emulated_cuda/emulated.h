// What the parts of the emulated device know of each other. See __init__.py for what it is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <cstdint>
#include <string>

namespace emulated {

constexpr auto CUDA = c10::DeviceType::CUDA;

// device.cpp
void set_device_count(c10::DeviceIndex count);
c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);
c10::DeviceIndex or_current(c10::DeviceIndex index);
const at::Generator& default_generator(c10::DeviceIndex index);

// memory.cpp
struct Memory {
  int64_t used = 0;
  int64_t peak = 0;
  int64_t limit = 0;  // none, if 0
};
Memory memory();
void set_memory_limit(int64_t bytes);
void reset_peak();
c10::Allocator* device_allocator();
c10::Allocator* pinned_allocator();
bool is_pinned(const void* address);
// Memory of the host that counts as the device's from here on, and back when it is released.
c10::DataPtr as_device_memory(c10::DataPtr host, size_t bytes, c10::DeviceIndex index);

// transfers.cpp
using WaitObserver = void (*)(const std::string& what);
void observe_waits(WaitObserver observer);
// The host waits for the device: it is told to the observer, and all that is under way arrives.
void wait_for_device(const std::string& what);
at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking);

// aliases.cpp
at::Tensor on_host(const at::Tensor& tensor);
at::Tensor on_device(const at::Tensor& tensor);

// nccl.cpp
c10::intrusive_ptr<c10d::Backend> nccl_over(c10::intrusive_ptr<c10d::Backend> gloo);

}  // namespace emulated
