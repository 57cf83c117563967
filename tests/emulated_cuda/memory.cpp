// Memory of the device and pinned memory of the host: both are the host's, and are counted.
//
// What nobody has written is NaN. A limit makes allocations fail as CUDA's do. It cannot show
// fragmentation, nor what a caching allocator keeps.

#include "emulated.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

namespace emulated {
namespace {

std::mutex memory_lock;
Memory counted;
std::map<const char*, size_t> pinned;  // where each block begins, and its bytes

struct DeviceBlock {
  c10::DataPtr host;
  int64_t bytes;
};

void release_device(void* context) {
  auto* block = static_cast<DeviceBlock*>(context);
  {
    std::lock_guard guard(memory_lock);
    counted.used -= block->bytes;
  }
  delete block;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto host = c10::GetCPUAllocator()->allocate(bytes);
    if (bytes) {
      std::memset(host.get(), 0xff, bytes);  // NaN in every floating-point format
    }
    return as_device_memory(std::move(host), bytes, current_device());
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

struct PinnedBlock {
  c10::DataPtr host;
};

void release_pinned(void* context) {
  auto* block = static_cast<PinnedBlock*>(context);
  {
    std::lock_guard guard(memory_lock);
    pinned.erase(static_cast<const char*>(block->host.get()));
  }
  delete block;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto host = c10::GetCPUAllocator()->allocate(bytes);
    void* address = host.get();
    {
      std::lock_guard guard(memory_lock);
      pinned[static_cast<const char*>(address)] = bytes;
    }
    auto* block = new PinnedBlock{std::move(host)};
    return {address, block, release_pinned, c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

DeviceAllocator of_device;
PinnedAllocator of_host;

}  // namespace

Memory memory() {
  std::lock_guard guard(memory_lock);
  return counted;
}

void set_memory_limit(int64_t bytes) {
  std::lock_guard guard(memory_lock);
  counted.limit = bytes;
}

void reset_peak() {
  std::lock_guard guard(memory_lock);
  counted.peak = counted.used;
}

c10::Allocator* device_allocator() {
  return &of_device;
}

c10::Allocator* pinned_allocator() {
  return &of_host;
}

bool is_pinned(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  std::lock_guard guard(memory_lock);
  auto after = pinned.upper_bound(byte);
  if (after == pinned.begin()) {
    return false;
  }
  const auto& [begin, bytes] = *std::prev(after);
  return byte < begin + std::max<size_t>(bytes, 1);
}

c10::DataPtr as_device_memory(c10::DataPtr host, size_t bytes, c10::DeviceIndex index) {
  {
    std::lock_guard guard(memory_lock);
    const auto used = counted.used + static_cast<int64_t>(bytes);
    TORCH_CHECK_WITH(
        OutOfMemoryError,
        !counted.limit || used <= counted.limit,
        "CUDA out of memory. Tried to allocate ", bytes, " bytes of an emulated device.");
    counted.used = used;
    counted.peak = std::max(counted.peak, used);
  }
  void* address = host.get();
  auto* block = new DeviceBlock{std::move(host), static_cast<int64_t>(bytes)};
  return {address, block, release_device, c10::Device(CUDA, index)};
}

}  // namespace emulated
