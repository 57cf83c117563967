// NCCL: gloo over the memory of the device, done when the call returns.
//
// After c10d's Backend. Tensors of the host are refused, as NCCL refuses them. It cannot show ranks
// that call in different orders on different streams.

#include "emulated.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <utility>
#include <vector>

namespace emulated {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Work = c10::intrusive_ptr<c10d::Work>;

struct Done final : c10d::Work {
  explicit Done(Tensors results)
      : Work(0, c10d::OpType::UNKNOWN),
        results_(std::move(results)),
        future_(c10::make_intrusive<c10::ivalue::Future>(
            c10::ListType::create(c10::TensorType::get()),
            std::vector<c10::Device>{c10::Device(CUDA, current_device())})) {
    future_->markCompleted(c10::IValue(results_));
    finish();
  }
  bool wait(std::chrono::milliseconds) override { return true; }
  void synchronize() override {}
  Tensors result() override { return results_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  Tensors results_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

Tensor checked(const Tensor& tensor) {
  TORCH_CHECK(
      tensor.device().type() == CUDA,
      "No backend type associated with device type ", tensor.device().type());
  TORCH_CHECK(tensor.is_non_overlapping_and_dense(), "Tensors must be contiguous");
  return on_host(tensor);
}

Tensors checked(const Tensors& tensors) {
  Tensors aliases;
  for (const auto& tensor : tensors) {
    aliases.push_back(checked(tensor));
  }
  return aliases;
}

std::vector<Tensors> checked(const std::vector<Tensors>& lists) {
  std::vector<Tensors> aliases;
  for (const auto& list : lists) {
    aliases.push_back(checked(list));
  }
  return aliases;
}

Work done(const Work& work, Tensors results) {
  work->wait();
  return c10::make_intrusive<Done>(std::move(results));
}

struct Nccl final : c10d::Backend {
  explicit Nccl(c10::intrusive_ptr<Backend> gloo)
      : Backend(gloo->getRank(), gloo->getSize()), gloo_(std::move(gloo)) {}

  const std::string getBackendName() const override { return "nccl"; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return gloo_->getBackendOptions(); }
  void setTimeout(std::chrono::milliseconds timeout) override { gloo_->setTimeout(timeout); }
  void setSequenceNumberForGroup() override { gloo_->setSequenceNumberForGroup(); }
  uint64_t getSequenceNumberForGroup() override { return gloo_->getSequenceNumberForGroup(); }

  Work barrier(const c10d::BarrierOptions& options) override {
    auto on_cpu = options;
    on_cpu.device_ids.clear();
    on_cpu.device.reset();
    return done(gloo_->barrier(on_cpu), {});
  }

  Work broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    auto aliases = checked(tensors);
    return done(gloo_->broadcast(aliases, options), tensors);
  }

  Work allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    auto aliases = checked(tensors);
    auto sum = options;
    const auto factor = as_sum(sum.reduceOp);
    return scaled(gloo_->allreduce(aliases, sum), factor, aliases, tensors);
  }

  Work allgather(
      std::vector<Tensors>& outputs,
      Tensors& inputs,
      const c10d::AllgatherOptions& options) override {
    auto into = checked(outputs);
    auto from = checked(inputs);
    return done(gloo_->allgather(into, from, options), outputs.front());
  }

  Work _allgather_base(
      Tensor& output, Tensor& input, const c10d::AllgatherOptions& options) override {
    auto into = checked(output);
    auto from = checked(input);
    return done(gloo_->_allgather_base(into, from, options), {output});
  }

  Work _reduce_scatter_base(
      Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& options) override {
    auto into = checked(output);
    auto from = checked(input).clone();  // gloo reduces in its input
    auto sum = options;
    const auto factor = as_sum(sum.reduceOp);
    return scaled(gloo_->_reduce_scatter_base(into, from, sum), factor, {into}, {output});
  }

  Work alltoall_base(
      Tensor& output,
      Tensor& input,
      std::vector<int64_t>& output_splits,
      std::vector<int64_t>& input_splits,
      const c10d::AllToAllOptions& options) override {
    auto into = checked(output);
    auto from = checked(input);
    return done(gloo_->alltoall_base(into, from, output_splits, input_splits, options), {output});
  }

 private:
  // Gloo has no means and no factors: sums are scaled. Returns by what.
  double as_sum(c10d::ReduceOp& op) const {
    double factor = 1;
    if (op == c10d::ReduceOp::AVG) {
      factor = 1.0 / getSize();
    } else if (op == c10d::ReduceOp::PREMUL_SUM) {
      auto* given = static_cast<c10d::NCCLPreMulSumSupplement*>(op.supplement_.get());
      factor = given->double_factor;
    } else {
      return factor;
    }
    op = c10d::ReduceOp::SUM;
    return factor;
  }

  static Work scaled(const Work& work, double factor, const Tensors& aliases, Tensors results) {
    work->wait();
    if (factor != 1) {
      for (auto alias : aliases) {
        alias.mul_(factor);
      }
    }
    return c10::make_intrusive<Done>(std::move(results));
  }

  c10::intrusive_ptr<Backend> gloo_;
};

}  // namespace

c10::intrusive_ptr<c10d::Backend> nccl_over(c10::intrusive_ptr<c10d::Backend> gloo) {
  return c10::make_intrusive<Nccl>(std::move(gloo));
}

}  // namespace emulated
