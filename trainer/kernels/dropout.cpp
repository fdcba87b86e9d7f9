#include "trainer/kernels/dropout.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <utility>

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/cpu/rows.h"

namespace dtrain {
namespace {

constexpr std::uint32_t kAll = 65536;
constexpr std::int64_t kGrain = 16384;  // elements; about 10 microseconds of one core

std::atomic<DeviceDropout>& cuda_dropout() {
  static std::atomic<DeviceDropout> function{nullptr};
  return function;
}

cpu::Type type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return cpu::Type::kFloat;
    case at::kBFloat16:
      return cpu::Type::kBfloat16;
    case at::kHalf:
      return cpu::Type::kHalf;
    default:
      break;
  }
  DTRAIN_CHECK(false, "dropout of a tensor of type {}", c10::toString(tensor.scalar_type()));
  return cpu::Type::kFloat;
}

DropoutSpec make_spec(const at::Tensor& x, std::uint32_t threshold, const DropoutKeys& keys, std::uint32_t site) {
  DTRAIN_CHECK(x.dim() >= 2 && x.dim() <= 4, "dropout of a tensor with {} dimensions", x.dim());
  DropoutSpec spec;
  if (keys.layout != nullptr && x.dim() == 2) {
    DTRAIN_CHECK(x.size(0) == keys.layout->rows, "dropout of {} rows for {} tokens", x.size(0), keys.layout->rows);
    spec.batch = keys.layout->batch;
    spec.groups = 1;
    spec.rows = keys.layout->length;  // of no meaning when packed, which the CPU alone is
  } else {
    spec.batch = x.size(0);
    spec.groups = x.dim() == 4 ? x.size(1) : 1;
    spec.rows = x.dim() >= 3 ? x.size(-2) : 1;
  }
  spec.columns = x.size(-1);
  const at::Tensor& slots = keys.slots;
  DTRAIN_CHECK(slots.dim() == 1 && slots.size(0) == spec.batch && slots.scalar_type() == at::kLong &&
                   slots.device() == x.device() && slots.is_contiguous(),
               "dropout needs one slot for each of the {} examples", spec.batch);
  DTRAIN_CHECK(spec.rows < (1 << 20) && spec.groups < (1 << 12), "dropout of {} x {} rows", spec.groups, spec.rows);
  spec.slots = slots.const_data_ptr<std::int64_t>();
  spec.key = keys.key.philox();
  spec.site = site;
  spec.threshold = threshold;
  spec.scale = static_cast<float>(kAll) / static_cast<float>(kAll - threshold);
  return spec;
}

void run_on_cpu(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output, const DropoutSpec& spec,
                const TokenLayout* layout) {
  const auto kernel = cpu::row_kernels().dropout[static_cast<int>(type_of(input))][static_cast<int>(type_of(output))];
  const auto* in = static_cast<const char*>(input.const_data_ptr());
  const auto* added = residual.defined() ? static_cast<const char*>(residual.const_data_ptr()) : nullptr;
  auto* out = static_cast<char*>(output.mutable_data_ptr());
  const auto in_stride = spec.columns * static_cast<std::int64_t>(input.element_size());
  const auto out_stride = spec.columns * static_cast<std::int64_t>(output.element_size());
  const std::int64_t rows = layout != nullptr ? layout->rows : spec.batch * spec.groups * spec.rows;
  cpu::parallel_for(rows, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, spec.columns)),
                    [&](std::int64_t begin, std::int64_t end) {
                      cpu::RowDraw draw{{spec.key[0], spec.key[1]}, 0, 0, spec.site, spec.threshold, spec.scale};
                      for (std::int64_t i = begin; i < end; ++i) {
                        if (layout != nullptr) {
                          draw.row = layout->position[static_cast<std::size_t>(i)];
                          draw.slot =
                              static_cast<std::uint32_t>(spec.slots[layout->example[static_cast<std::size_t>(i)]]);
                        } else {
                          const std::int64_t group = i / spec.rows;
                          draw.row = static_cast<std::uint32_t>(((group % spec.groups) << 20) + i % spec.rows);
                          draw.slot = static_cast<std::uint32_t>(spec.slots[group / spec.groups]);
                        }
                        kernel(draw, in + i * in_stride, added == nullptr ? nullptr : added + i * out_stride,
                               out + i * out_stride, spec.columns);
                      }
                    });
}

// `residual` may be undefined; else it has the type of the result.
at::Tensor masked(const at::Tensor& x, const at::Tensor& residual, at::ScalarType result_type, std::uint32_t threshold,
                  const DropoutKeys& keys, std::uint32_t site) {
  if (threshold == kAll) return residual.defined() ? residual.clone() : at::zeros_like(x, result_type);
  const at::Tensor input = x.contiguous();
  const at::Tensor added = residual.defined() ? residual.contiguous() : residual;
  at::Tensor output = at::empty_like(input, input.options().dtype(result_type));
  const DropoutSpec spec = make_spec(input, threshold, keys, site);
  if (input.is_cpu()) {
    run_on_cpu(input, added, output, spec, input.dim() == 2 ? keys.layout.get() : nullptr);
  } else {
    const DeviceDropout function = input.is_cuda() ? cuda_dropout().load() : nullptr;
    DTRAIN_CHECK(function != nullptr, "no dropout kernel is registered for device {}", input.device().str());
    function(input, added, output, spec);
  }
  return output;
}

// DropoutKeys as autograd's saved values take them.
struct SavedKeys : public torch::CustomClassHolder {
  explicit SavedKeys(DropoutKeys value) : keys(std::move(value)) {}
  DropoutKeys keys;
};

// forward(x, residual or undefined): see masked(). The gradient of the residual is the incoming gradient itself.
class CounterDropout : public torch::autograd::Function<CounterDropout> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& residual, std::int64_t threshold,
                            const c10::intrusive_ptr<SavedKeys>& saved, std::int64_t site) {
    ctx->saved_data["threshold"] = threshold;
    ctx->saved_data["site"] = site;
    ctx->saved_data["keys"] = at::IValue::make_capsule(saved);
    ctx->saved_data["type"] = static_cast<std::int64_t>(x.scalar_type());
    ctx->saved_data["adds"] = residual.has_value();
    return masked(x, residual.value_or(at::Tensor()), residual.has_value() ? residual->scalar_type() : x.scalar_type(),
                  static_cast<std::uint32_t>(threshold), saved->keys, static_cast<std::uint32_t>(site));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    auto& saved = ctx->saved_data;
    const auto keys = c10::static_intrusive_pointer_cast<SavedKeys>(saved["keys"].toCapsule());
    at::Tensor gradient;
    if (ctx->needs_input_grad(0)) {
      gradient = masked(gradients[0], {}, static_cast<at::ScalarType>(saved["type"].toInt()),
                        static_cast<std::uint32_t>(saved["threshold"].toInt()), keys->keys,
                        static_cast<std::uint32_t>(saved["site"].toInt()));
    }
    const at::Tensor of_residual = saved["adds"].toBool() ? gradients[0] : at::Tensor();
    return {gradient, of_residual, {}, {}, {}};
  }
};

at::Tensor apply(const at::Tensor& x, const std::optional<at::Tensor>& residual, std::uint32_t threshold,
                 const DropoutKeys& keys, std::uint32_t site) {
  return CounterDropout::apply(x, residual, static_cast<std::int64_t>(threshold), c10::make_intrusive<SavedKeys>(keys),
                               static_cast<std::int64_t>(site));
}

}  // namespace

std::uint32_t dropout_threshold(double probability) {
  DTRAIN_CHECK(probability >= 0 && probability <= 1, "dropout probability {}", probability);
  return static_cast<std::uint32_t>(std::lround(probability * kAll));
}

at::Tensor counter_dropout(const at::Tensor& x, double probability, const DropoutKeys& keys, std::uint32_t site) {
  const std::uint32_t threshold = dropout_threshold(probability);
  if (!keys.active() || threshold == 0) return x;
  return apply(x, std::nullopt, threshold, keys, site);
}

at::Tensor counter_dropout_add(const at::Tensor& x, const at::Tensor& residual, double probability,
                               const DropoutKeys& keys, std::uint32_t site) {
  const std::uint32_t threshold = dropout_threshold(probability);
  DTRAIN_CHECK(x.sizes() == residual.sizes(), "dropout of one shape is added to another");
  if (!keys.active() || threshold == 0) return residual.add(x);
  return apply(x, residual, threshold, keys, site);
}

void set_cuda_dropout(DeviceDropout function) { cuda_dropout().store(function); }

}  // namespace dtrain
