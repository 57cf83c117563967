// Tensors of the device, seen from the CPU: another tensor and storage over the same memory.
//
// Tensors of one storage stay of one storage on the other side, so that views written in place by
// a kernel are views still.

#include "aliases.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

namespace emulated {
namespace {

// Keeps a storage for as long as another one shows its memory.
c10::DataPtr memory_of(const c10::Storage& storage) {
  auto* kept = new c10::Storage(storage);
  const auto release = [](void* context) { delete static_cast<c10::Storage*>(context); };
  return {storage.mutable_data(), kept, release, c10::Device(c10::kCPU)};
}

c10::Storage storage_over(c10::DataPtr data, size_t bytes, c10::Allocator* allocator) {
  const bool resizable = true;
  return c10::Storage(
      c10::Storage::use_byte_size_t(), bytes, std::move(data), allocator, resizable);
}

at::Tensor tensor_like(const at::Tensor& tensor, c10::Storage storage, c10::DispatchKey key) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(key), tensor.dtype());
  auto* inside = made.unsafeGetTensorImpl();
  inside->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    inside->set_wrapped_number(true);
  }
  made._set_conj(tensor.is_conj());
  return made;
}

}  // namespace

void Aliases::prefer(c10::DeviceIndex index) {
  index_ = index;
}

at::Tensor Aliases::on_host(const at::Tensor& tensor) {
  for (const auto& [original, alias] : pairs_) {
    if (original.is_same(tensor)) {
      return alias;
    }
  }
  index_ = tensor.device().index();
  const auto storage = tensor.storage();
  auto& twin = host_of_device_[storage.unsafeGetStorageImpl()];
  if (!twin.unsafeGetStorageImpl()) {
    twin = storage_over(memory_of(storage), storage.nbytes(), c10::GetCPUAllocator());
    device_of_host_[twin.unsafeGetStorageImpl()] = storage;
  }
  auto alias = tensor_like(tensor, twin, c10::DispatchKey::CPU);
  pairs_.push_back({tensor, alias});
  return alias;
}

at::Tensor Aliases::on_device(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cpu()) {
    return tensor;
  }
  for (const auto& [original, alias] : pairs_) {
    if (alias.is_same(tensor)) {
      return original;
    }
  }
  const auto storage = tensor.storage();
  auto& twin = device_of_host_[storage.unsafeGetStorageImpl()];
  if (!twin.unsafeGetStorageImpl()) {
    const auto bytes = storage.nbytes();
    auto data = as_device_memory(memory_of(storage), bytes, or_current(index_));
    twin = storage_over(std::move(data), bytes, device_allocator());
  }
  return tensor_like(tensor, twin, c10::DispatchKey::CUDA);
}

void Aliases::settle() {
  for (const auto& [original, alias] : pairs_) {
    const auto theirs = original.storage();
    const auto made = alias.storage();
    if (theirs.data() != made.data()) {
      const auto bytes = made.nbytes();
      theirs.set_data_ptr_noswap(
          as_device_memory(memory_of(made), bytes, original.device().index()));
      theirs.set_nbytes(bytes);
    }
    if (original.sizes() != alias.sizes() || original.strides() != alias.strides() ||
        original.storage_offset() != alias.storage_offset()) {
      original.unsafeGetTensorImpl()->set_sizes_and_strides(
          alias.sizes(), alias.strides(), alias.storage_offset());
    }
  }
}

at::Tensor on_host(const at::Tensor& tensor) {
  return tensor.device().type() == CUDA ? Aliases().on_host(tensor) : tensor;
}

at::Tensor on_device(const at::Tensor& tensor) {
  return Aliases().on_device(tensor);
}

}  // namespace emulated
