// Copies between host and device, and when the host waits for them.
//
// As on a GPU, a copy from the device into pinned memory that blocks nobody has not arrived before
// the host waits for the device: until then the memory holds NaN. Pinned memory that is on its way
// to the device must not change meanwhile. All streams are waited for at once, so that a wait for
// the wrong stream passes here.

#include "emulated.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <vector>

namespace emulated {
namespace {

struct Transfer {
  at::Tensor host;    // pinned
  at::Tensor values;  // what the host gets, or what it had when the copy began
};

std::mutex transfers_lock;
std::vector<Transfer> to_host;
std::vector<Transfer> to_device;
std::atomic<WaitObserver> observer{nullptr};

void start_to_host(const at::Tensor& host, const at::Tensor& source) {
  auto values = at::empty_like(host).copy_(source.expand_as(host));
  if (host.is_contiguous()) {
    std::memset(host.data_ptr(), host.scalar_type() == at::kBool ? 0 : 0xff, host.nbytes());
  }
  std::lock_guard guard(transfers_lock);
  to_host.push_back({host, values});
}

void start_to_device(const at::Tensor& host) {
  auto values = host.clone();
  std::lock_guard guard(transfers_lock);
  to_device.push_back({host, values});
}

void arrive() {
  std::vector<Transfer> arriving;
  std::vector<Transfer> left;
  {
    std::lock_guard guard(transfers_lock);
    arriving.swap(to_host);
    left.swap(to_device);
  }
  at::NoGradGuard no_grad;
  for (auto& [host, values] : arriving) {
    host.copy_(values);
  }
  for (auto& [host, values] : left) {
    TORCH_CHECK(
        !host.is_contiguous() ||
            std::memcmp(host.data_ptr(), values.data_ptr(), values.nbytes()) == 0,
        "pinned memory was written before its copy to the device was over");
  }
}

}  // namespace

void observe_waits(WaitObserver told) {
  observer = told;
}

void wait_for_device(const std::string& what) {
  if (WaitObserver told = observer) {
    told(what);
  }
  arrive();
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  if (self.is_same(source)) {
    return self;
  }
  const bool to = self.device().type() == CUDA;
  const bool from = source.device().type() == CUDA;
  TORCH_CHECK(
      (to || self.is_cpu()) && (from || source.is_cpu()),
      "no copy from ", source.device(), " to ", self.device());
  auto target = on_host(self);
  const auto values = on_host(source);
  const auto& host = to ? source : self;
  const bool under_way = non_blocking && is_pinned(host.data_ptr());
  if (to != from && self.numel()) {
    if (from && under_way) {
      start_to_host(target, values);
      return self;
    }
    if (to && under_way) {
      start_to_device(values);
    } else {
      wait_for_device(to ? "copy to the device" : "copy to the host");
    }
  }
  target.copy_(values);
  return self;
}

}  // namespace emulated
