// Tensors of the device, seen from the CPU, and back. See aliases.cpp.
#pragma once

#include "emulated.h"

#include <c10/core/Storage.h>

#include <unordered_map>
#include <utility>
#include <vector>

namespace emulated {

// The tensors of one operator, which may share storage with each other.
class Aliases {
 public:
  // The same memory as a tensor of the CPU.
  at::Tensor on_host(const at::Tensor& tensor);
  // What a CPU kernel returned as a tensor of the device: its argument, a view, or new memory.
  at::Tensor on_device(const at::Tensor& tensor);
  // Give the originals the sizes and memory that a kernel gave their aliases.
  void settle();
  // Where new memory is counted, if no argument tells.
  void prefer(c10::DeviceIndex index);

 private:
  struct Pair {
    at::Tensor original;
    at::Tensor alias;
  };
  using Twins = std::unordered_map<c10::StorageImpl*, c10::Storage>;

  std::vector<Pair> pairs_;
  Twins host_of_device_;
  Twins device_of_host_;
  c10::DeviceIndex index_ = -1;
};

}  // namespace emulated
