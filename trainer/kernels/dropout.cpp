#include "trainer/kernels/dropout.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

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

DropoutSpec make_spec(const at::Tensor& x, std::uint32_t threshold, const RandomKey& key, const at::Tensor& slots,
                      std::uint32_t site) {
  DTRAIN_CHECK(x.dim() >= 2 && x.dim() <= 4, "dropout of a tensor with {} dimensions", x.dim());
  DTRAIN_CHECK(slots.dim() == 1 && slots.size(0) == x.size(0) && slots.scalar_type() == at::kLong &&
                   slots.device() == x.device() && slots.is_contiguous(),
               "dropout needs one slot for each of the {} examples", x.size(0));
  DropoutSpec spec;
  spec.batch = x.size(0);
  spec.groups = x.dim() == 4 ? x.size(1) : 1;
  spec.rows = x.dim() >= 3 ? x.size(-2) : 1;
  spec.columns = x.size(-1);
  DTRAIN_CHECK(spec.rows < (1 << 20) && spec.groups < (1 << 12), "dropout of {} x {} rows", spec.groups, spec.rows);
  spec.slots = slots.const_data_ptr<std::int64_t>();
  spec.key = key.philox();
  spec.site = site;
  spec.threshold = threshold;
  spec.scale = static_cast<float>(kAll) / static_cast<float>(kAll - threshold);
  return spec;
}

void run_on_cpu(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output,
                const DropoutSpec& spec) {
  const auto kernel = cpu::row_kernels().dropout[static_cast<int>(type_of(input))][static_cast<int>(type_of(output))];
  const auto* in = static_cast<const char*>(input.const_data_ptr());
  const auto* added = residual.defined() ? static_cast<const char*>(residual.const_data_ptr()) : nullptr;
  auto* out = static_cast<char*>(output.mutable_data_ptr());
  const auto in_stride = spec.columns * static_cast<std::int64_t>(input.element_size());
  const auto out_stride = spec.columns * static_cast<std::int64_t>(output.element_size());
  const std::int64_t rows = spec.batch * spec.groups * spec.rows;
  cpu::parallel_for(rows, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, spec.columns)),
                    [&](std::int64_t begin, std::int64_t end) {
                      cpu::RowDraw draw{{spec.key[0], spec.key[1]}, 0, 0, spec.site, spec.threshold, spec.scale};
                      for (std::int64_t i = begin; i < end; ++i) {
                        const std::int64_t group = i / spec.rows;
                        draw.row = static_cast<std::uint32_t>(((group % spec.groups) << 20) + i % spec.rows);
                        draw.slot = static_cast<std::uint32_t>(spec.slots[group / spec.groups]);
                        kernel(draw, in + i * in_stride, added == nullptr ? nullptr : added + i * out_stride,
                               out + i * out_stride, spec.columns);
                      }
                    });
}

// `residual` may be undefined; else it has the type of the result.
at::Tensor masked(const at::Tensor& x, const at::Tensor& residual, at::ScalarType result_type, std::uint32_t threshold,
                  const RandomKey& key, const at::Tensor& slots, std::uint32_t site) {
  if (threshold == kAll) return residual.defined() ? residual.clone() : at::zeros_like(x, result_type);
  const at::Tensor input = x.contiguous();
  const at::Tensor added = residual.defined() ? residual.contiguous() : residual;
  at::Tensor output = at::empty_like(input, input.options().dtype(result_type));
  const DropoutSpec spec = make_spec(input, threshold, key, slots, site);
  if (input.is_cpu()) {
    run_on_cpu(input, added, output, spec);
  } else {
    const DeviceDropout function = input.is_cuda() ? cuda_dropout().load() : nullptr;
    DTRAIN_CHECK(function != nullptr, "no dropout kernel is registered for device {}", input.device().str());
    function(input, added, output, spec);
  }
  return output;
}

// forward(x, residual or undefined): see masked(). The gradient of the residual is the incoming gradient itself.
class CounterDropout : public torch::autograd::Function<CounterDropout> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& residual, std::int64_t threshold, std::int64_t seed,
                            std::int64_t step, const at::Tensor& slots, std::int64_t site) {
    ctx->saved_data["threshold"] = threshold;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["step"] = step;
    ctx->saved_data["site"] = site;
    ctx->saved_data["slots"] = slots;
    ctx->saved_data["type"] = static_cast<std::int64_t>(x.scalar_type());
    ctx->saved_data["adds"] = residual.has_value();
    return masked(x, residual.value_or(at::Tensor()), residual.has_value() ? residual->scalar_type() : x.scalar_type(),
                  static_cast<std::uint32_t>(threshold),
                  RandomKey{static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(step)}, slots,
                  static_cast<std::uint32_t>(site));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    auto& saved = ctx->saved_data;
    const RandomKey key{static_cast<std::uint64_t>(saved["seed"].toInt()),
                        static_cast<std::uint64_t>(saved["step"].toInt())};
    at::Tensor gradient;
    if (ctx->needs_input_grad(0)) {
      gradient = masked(gradients[0], {}, static_cast<at::ScalarType>(saved["type"].toInt()),
                        static_cast<std::uint32_t>(saved["threshold"].toInt()), key, saved["slots"].toTensor(),
                        static_cast<std::uint32_t>(saved["site"].toInt()));
    }
    const at::Tensor of_residual = saved["adds"].toBool() ? gradients[0] : at::Tensor();
    return {gradient, of_residual, {}, {}, {}, {}, {}};
  }
};

at::Tensor apply(const at::Tensor& x, const std::optional<at::Tensor>& residual, std::uint32_t threshold,
                 const DropoutKeys& keys, std::uint32_t site) {
  return CounterDropout::apply(x, residual, static_cast<std::int64_t>(threshold),
                               static_cast<std::int64_t>(keys.key.seed), static_cast<std::int64_t>(keys.key.step),
                               keys.slots, static_cast<std::int64_t>(site));
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
