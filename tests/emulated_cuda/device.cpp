// What torch asks of a kind of device: which one is current, streams, events and generators.
//
// The work of a stream is done when it is queued, so events have always happened. After the
// interfaces c10::impl::DeviceGuardImplInterface and at::CUDAHooksInterface, and torch's example
// of a device without hardware (test/cpp_extensions/open_registration_extension/torch_openreg).

#include "emulated.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <map>
#include <vector>

namespace emulated {
namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;

constexpr DeviceIndex MOST_DEVICES = 16;

DeviceIndex device_count = 1;
thread_local DeviceIndex current = 0;
thread_local std::map<DeviceIndex, c10::StreamId> streams;
std::atomic<c10::StreamId> next_stream{1};

DeviceIndex exchange_device(DeviceIndex index) {
  const auto was = current;
  set_current_device(index);
  return was;
}

Stream stream_of(Device device, c10::StreamId id) {
  return Stream(Stream::UNSAFE, Device(CUDA, or_current(device.index())), id);
}

// Draws what the CPU's generator of the same seed draws.
struct Generator final : c10::GeneratorImpl {
  explicit Generator(DeviceIndex index)
      : GeneratorImpl(Device(CUDA, index), c10::DispatchKeySet(c10::DispatchKey::CUDA)),
        cpu(at::detail::createCPUGenerator()) {}

  void set_current_seed(uint64_t seed) override { cpu.set_current_seed(seed); }
  uint64_t current_seed() const override { return cpu.current_seed(); }
  uint64_t seed() override { return cpu.seed(); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  void set_state(const c10::TensorImpl& state) override {
    cpu.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return cpu.unsafeGetGeneratorImpl()->get_state();
  }
  Generator* clone_impl() const override {
    auto* copy = new Generator(device().index());
    copy->cpu = cpu.clone();
    return copy;
  }

  at::Generator cpu;
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}

  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return device_count; }
  DeviceIndex deviceCount() const override { return device_count; }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex index) const override { set_current_device(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return exchange_device(index); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return exchange_device(index);
  }
  void deviceSynchronize(DeviceIndex) const override { wait_for_device("device"); }
  Device getDeviceFromPtr(void*) const override { return Device(CUDA, current); }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  c10::Allocator* getCUDADeviceAllocator() const override { return device_allocator(); }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override {
    return default_generator(index);
  }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    return at::make_generator<Generator>(or_current(index));
  }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return CUDA; }
  Device exchangeDevice(Device device) const override {
    return Device(CUDA, exchange_device(device.index()));
  }
  Device getDevice() const override { return Device(CUDA, current); }
  void setDevice(Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override {
    current = or_current(device.index());
  }
  DeviceIndex deviceCount() const noexcept override { return device_count; }
  void synchronizeDevice(DeviceIndex) const override { wait_for_device("device"); }

  Stream getStream(Device device) const override {
    return stream_of(device, streams[or_current(device.index())]);
  }
  Stream getDefaultStream(Device device) const override { return stream_of(device, 0); }
  Stream getNewStream(Device device, int) const override {
    return stream_of(device, next_stream++);
  }
  Stream getStreamFromGlobalPool(Device device, bool) const override {
    return getNewStream(device, 0);
  }
  Stream exchangeStream(Stream stream) const override {
    const auto was = getStream(stream.device());
    streams[stream.device_index()] = stream.id();
    return was;
  }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { wait_for_device("stream"); }

  void record(void** event, const Stream&, DeviceIndex, c10::EventFlag) const override {
    if (!*event) {
      *event = new char;
    }
  }
  void destroyEvent(void* event, DeviceIndex) const noexcept override {
    delete static_cast<char*>(event);
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { wait_for_device("event"); }
};

}  // namespace

void set_device_count(DeviceIndex count) {
  TORCH_CHECK(count <= MOST_DEVICES, "at most ", MOST_DEVICES, " devices");
  device_count = count;
}

DeviceIndex current_device() {
  return current;
}

void set_current_device(DeviceIndex index) {
  TORCH_CHECK(index < device_count, "CUDA error: invalid device ordinal");
  current = or_current(index);
}

DeviceIndex or_current(DeviceIndex index) {
  return index < 0 ? current : index;
}

const at::Generator& default_generator(DeviceIndex index) {
  static const auto all = [] {
    std::vector<at::Generator> made;
    for (DeviceIndex device = 0; device < MOST_DEVICES; ++device) {
      made.push_back(at::make_generator<Generator>(device));
    }
    return made;
  }();
  return all.at(or_current(index));
}

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace emulated

namespace at {
using emulated::Hooks;
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", Hooks)
}  // namespace at
