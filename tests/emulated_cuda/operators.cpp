// Operators of the device: each runs the kernel of the CPU on aliases of its operands.
//
// What a GPU refuses is refused: operands on different devices, but for the scalars and indices
// that CUDA's kernels take from the host. Operators with results of a shape that depends on values
// make the host wait, as they do there. It cannot show what a CUDA kernel alone does: its speed,
// its rounding, its undefined cases.

#include "aliases.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>

namespace emulated {
namespace {

using at::Tensor;
using Dtype = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using OnDevice = std::optional<at::Device>;

const std::set<std::string> WAITING = {
    "aten::bincount",
    "aten::equal",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::unique_dim"};

const std::set<std::string> INDEXING = {
    "aten::index", "aten::_unsafe_index", "aten::index_put_", "aten::_index_put_impl_"};

bool contains(const std::string& name, std::initializer_list<const char*> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](const char* part) {
    return name.find(part) != std::string::npos;
  });
}

// Random operators of the CPU draw from its one generator: it stands in the state of the device's.
class Drawing {
 public:
  explicit Drawing(at::Generator ours)
      : ours_(std::move(ours)), cpu_(at::detail::getDefaultCPUGenerator()), was_(cpu_.get_state()) {
    cpu_.set_state(ours_.get_state());
  }
  ~Drawing() {
    ours_.set_state(cpu_.get_state());
    cpu_.set_state(was_);
  }

 private:
  at::Generator ours_;
  at::Generator cpu_;
  Tensor was_;
};

// One call of an operator, whose arguments and results are on a stack.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack& stack)
      : op_(op), schema_(op.schema()), name_(schema_.name()), stack_(stack) {}

  void run() {
    take_arguments();
    TORCH_CHECK(
        strangers_.empty(),
        "Expected all tensors to be on the same device, but found at least two devices, cuda:",
        int(device_), " and cpu! (", name_, ":", strangers_, ")");
    if (WAITING.count(name_) && !knows_size_) {
      wait_for_device(name_);
    }
    compute();
    aliases_.settle();
    give_results();
  }

 private:
  void take_arguments() {
    const auto& arguments = schema_.arguments();
    const auto begin = stack_.size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) {
      auto& value = stack_[begin + i];
      take(value, arguments[i]);
      knows_size_ |= arguments[i].name() == "output_size" && !value.isNone();
    }
  }

  void take(c10::IValue& value, const c10::Argument& argument) {
    if (value.isTensor()) {
      value = on_host(value.toTensor(), argument);
    } else if (value.isTensorList()) {
      auto tensors = value.toTensorVector();
      for (auto& tensor : tensors) {
        tensor = on_host(tensor, argument);
      }
      value = std::move(tensors);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> tensors;
      for (std::optional<Tensor> tensor : value.toOptionalTensorList()) {
        tensors.push_back(tensor ? std::optional(on_host(*tensor, argument)) : std::nullopt);
      }
      value = std::move(tensors);
    } else if (value.isDevice()) {
      const auto asked = or_current(value.toDevice().index());
      device_ = device_ < 0 ? asked : device_;
      aliases_.prefer(device_);
      value = c10::Device(c10::kCPU);
    } else if (value.isGenerator()) {
      generator_ = value.toGenerator();
      TORCH_CHECK(
          generator_->device().type() == CUDA,
          "Expected a 'cuda' device type for generator but found 'cpu'");
      value = c10::IValue();
    }
  }

  Tensor on_host(const Tensor& tensor, const c10::Argument& argument) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (tensor.device().type() != CUDA) {
      if (!tensor.is_cpu() || !may_be_on_host(tensor, argument)) {
        strangers_ += " " + argument.name();
      }
      return tensor;
    }
    const auto index = tensor.device().index();
    TORCH_CHECK(
        device_ < 0 || device_ == index,
        "Expected all tensors to be on the same device, but found cuda:", int(device_),
        " and cuda:", int(index), " (", name_, ")");
    device_ = index;
    return aliases_.on_host(tensor);
  }

  // What CUDA's kernels take from the host: numbers, indices, and the rate of fused Adam.
  bool may_be_on_host(const Tensor& tensor, const c10::Argument& argument) const {
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
      return true;
    }
    if (argument.name() == "indices") {
      return INDEXING.count(name_);
    }
    if (argument.name() == "lr") {
      return contains(name_, {"_fused_adam"});
    }
    const bool written = argument.alias_info() && argument.alias_info()->isWrite();
    const bool takes_scalars = op_.hasTag(at::Tag::pointwise) ||
        contains(name_, {"where", "foreach", "index_put", "masked_fill", "index_fill"});
    return tensor.dim() == 0 && takes_scalars && !written;
  }

  void compute() {
    std::optional<Drawing> drawing;
    if (generator_ || op_.hasTag(at::Tag::nondeterministic_seeded) ||
        contains(name_, {"dropout"})) {
      drawing.emplace(generator_ ? *generator_ : default_generator(device_));
    }
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
  }

  void give_results() {
    const auto begin = stack_.size() - schema_.returns().size();
    for (size_t i = begin; i < stack_.size(); ++i) {
      auto& value = stack_[i];
      if (value.isTensor()) {
        value = aliases_.on_device(value.toTensor());
      } else if (value.isTensorList()) {
        auto tensors = value.toTensorVector();
        for (auto& tensor : tensors) {
          tensor = aliases_.on_device(tensor);
        }
        value = std::move(tensors);
      }
    }
  }

  const c10::OperatorHandle& op_;
  const c10::FunctionSchema& schema_;
  const std::string& name_;
  torch::jit::Stack& stack_;
  Aliases aliases_;
  std::optional<at::Generator> generator_;
  c10::DeviceIndex device_ = -1;
  std::string strangers_;  // arguments that are not on the device
  bool knows_size_ = false;
};

void on_cpu(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  Call(op, *stack).run();
}

Tensor empty(
    c10::SymIntArrayRef size,
    Dtype dtype,
    Layout,
    OnDevice device,
    std::optional<bool> pinned,
    std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic_symint(
      size,
      device_allocator(),
      c10::DispatchKeySet(c10::DispatchKey::CUDA),
      c10::dtype_or_default(dtype),
      format);
}

Tensor empty_strided(
    c10::SymIntArrayRef size,
    c10::SymIntArrayRef stride,
    Dtype dtype,
    Layout,
    OnDevice device,
    std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_symint_generic(
      size,
      stride,
      device_allocator(),
      c10::DispatchKeySet(c10::DispatchKey::CUDA),
      c10::dtype_or_default(dtype));
}

at::Scalar item(const Tensor& tensor) {
  wait_for_device("item");
  return emulated::on_host(tensor).item();
}

// That of the CPU knows no integers.
Tensor histc(
    const Tensor& tensor, int64_t bins, const at::Scalar& min, const at::Scalar& max) {
  Aliases aliases;
  const auto values = aliases.on_host(tensor).to(at::kDouble);
  return aliases.on_device(values.histc(bins, min, max).to(tensor.scalar_type()));
}

Tensor& set_storage(
    Tensor& self,
    at::Storage storage,
    int64_t offset,
    at::IntArrayRef size,
    at::IntArrayRef stride) {
  TORCH_CHECK(storage.device().type() == CUDA, "the storage is on another device");
  auto* inside = self.unsafeGetTensorImpl();
  inside->set_storage_keep_dtype(std::move(storage));
  inside->set_storage_offset(offset);
  if (stride.size() == size.size()) {
    inside->set_sizes_and_strides(size, stride);
  } else {
    inside->set_sizes_contiguous(size);
  }
  return self;
}

Tensor& set_whole_storage(Tensor& self, at::Storage storage) {
  const int64_t size = storage.nbytes() / self.itemsize();
  return set_storage(self, std::move(storage), 0, {size}, {});
}

int64_t choose_attention(
    const Tensor&,
    const Tensor&,
    const Tensor&,
    const std::optional<Tensor>&,
    double,
    bool,
    std::optional<double>,
    bool) {
  return 0;  // that of plain operators
}

void record_stream(Tensor&, c10::Stream) {}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("copy_", copy_);
  library.impl("_local_scalar_dense", item);
  library.impl("histc", histc);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("set_.source_Storage", set_whole_storage);
  library.impl("_fused_sdp_choice", choose_attention);
  library.impl("record_stream", record_stream);
}

}  // namespace
}  // namespace emulated
