#include "trainer/kernels/dense_bfloat16.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include <ATen/autocast_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <c10/util/BFloat16.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/kernels/cpu/dense.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/cpu/rows.h"
#include "trainer/kernels/dense_shared.h"
#include "trainer/kernels/shortcuts.h"

namespace dtrain {
namespace {

constexpr std::int64_t kGrain = 16384;  // elements; about 10 microseconds of one core

// At most a sixteenth more: few enough shapes, and on average 3 % of the work.
std::int64_t rounded_rows(std::int64_t rows) {
  const auto unit = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(rows))) / 16;
  const std::int64_t step = std::max<std::int64_t>(16, unit);
  return (rows + step - 1) / step * step;
}

// Writes `from`, float32 or bfloat16 with its columns beside each other, into `to`, bfloat16, from that row and column
// on.
void round_rows(const at::Tensor& from, const at::Tensor& to, std::int64_t first_row, std::int64_t first_column) {
  const std::int64_t columns = from.size(1);
  const std::int64_t stride = from.stride(0);
  auto* out = to.mutable_data_ptr<c10::BFloat16>() + first_row * to.stride(0) + first_column;
  const std::int64_t out_stride = to.stride(0);
  const bool wide = from.scalar_type() == at::kFloat;
  const auto* in = static_cast<const char*>(from.const_data_ptr());
  const auto narrow = cpu::row_kernels().narrow;
  cpu::parallel_for(from.size(0), std::max<std::int64_t>(1, kGrain / columns),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t row = begin; row < end; ++row) {
                        c10::BFloat16* target = out + row * out_stride;
                        if (wide) {
                          narrow(reinterpret_cast<const float*>(in) + row * stride, target, columns);
                        } else {
                          std::memcpy(target, reinterpret_cast<const c10::BFloat16*>(in) + row * stride,
                                      static_cast<std::size_t>(columns) * sizeof(c10::BFloat16));
                        }
                      }
                    });
}

void clear_rows_from(const at::Tensor& x, std::int64_t row) {
  if (row < x.size(0)) x.narrow(0, row, x.size(0) - row).zero_();
}

// [rows rounded up, columns] bfloat16: `x` with as many rows more as there are behind it, or a copy with zeros below.
at::Tensor rounded(const at::Tensor& x) {
  const std::int64_t rows = rounded_rows(x.size(0));
  const std::int64_t columns = x.size(1);
  const std::int64_t end = x.storage_offset() + rows * columns;
  if (x.scalar_type() == at::kBFloat16 && x.stride(0) == columns &&
      x.storage().nbytes() >= static_cast<std::size_t>(end) * sizeof(c10::BFloat16)) {
    return x.as_strided({rows, columns}, {columns, 1});
  }
  at::Tensor result = at::empty({rows, columns}, at::kBFloat16);
  round_rows(x, result, 0, 0);
  clear_rows_from(result, x.size(0));
  return result;
}

// The weights of all parts, joined along their outs.
at::Tensor joined_weights(const std::vector<at::Tensor>& weights, WeightOrder order) {
  const bool out_first = order == WeightOrder::kOutIn;
  std::int64_t outs = 0;
  for (const at::Tensor& weight : weights) outs += weight.size(out_first ? 0 : 1);
  const std::int64_t in = weights[0].size(out_first ? 1 : 0);
  at::Tensor result = out_first ? at::empty({outs, in}, at::kBFloat16) : at::empty({in, outs}, at::kBFloat16);
  std::int64_t first = 0;
  for (const at::Tensor& weight : weights) {
    round_rows(weight, result, out_first ? first : 0, out_first ? 0 : first);
    first += weight.size(out_first ? 0 : 1);
  }
  return result;
}

at::Tensor joined_biases(const std::vector<at::Tensor>& biases) {
  std::int64_t outs = 0;
  for (const at::Tensor& bias : biases) outs += bias.size(0);
  at::Tensor result = at::empty({outs}, at::kBFloat16);
  auto* to = result.mutable_data_ptr<c10::BFloat16>();
  for (const at::Tensor& bias : biases) {
    cpu::row_kernels().narrow(bias.const_data_ptr<float>(), to, bias.size(0));
    to += bias.size(0);
  }
  return result;
}

// Three rows of floats for the thread that asks.
struct Floats {
  explicit Floats(std::int64_t columns) {
    static thread_local std::vector<float> space;
    const auto width = static_cast<std::size_t>(columns);
    if (space.size() < 3 * width) space.resize(3 * width);
    for (std::size_t i = 0; i < 3; ++i) row[i] = space.data() + i * width;
  }
  float* row[3];
};

// A row of a float32 or bfloat16 tensor as floats, in `space` unless it already is.
const float* floats_of(const at::Tensor& x, std::int64_t row, float* space) {
  if (x.scalar_type() == at::kFloat) return x.const_data_ptr<float>() + row * x.stride(0);
  cpu::row_kernels().widen(x.const_data_ptr<c10::BFloat16>() + row * x.stride(0), space, x.size(1));
  return space;
}

// The order of the weights, and which GELU is taken of the product, if any.
struct Shape {
  WeightOrder order = WeightOrder::kOutIn;
  std::optional<cpu::Gelu> gelu;
};

class DenseBfloat16 : public torch::autograd::Function<DenseBfloat16> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, at::TensorList weights,
                            at::TensorList biases, const Shape& shape, bool keep) {
    const at::Tensor left = rounded(x);
    const at::Tensor right = joined_weights(weights.vec(), shape.order);
    const at::Tensor bias = joined_biases(biases.vec());
    const at::Tensor product =
        shape.order == WeightOrder::kOutIn ? at::linear(left, right, bias) : at::addmm(bias, left, right);
    const at::Tensor result = shape.gelu ? activated(product, x.size(0), *shape.gelu, keep) : product;
    if (keep) {
      torch::autograd::variable_list saved{left, shape.gelu ? product : at::Tensor(), right};
      saved.insert(saved.end(), weights.begin(), weights.end());
      ctx->save_for_backward(saved);
      ctx->saved_data["rows"] = x.size(0);
      ctx->saved_data["order"] = static_cast<std::int64_t>(shape.order);
      ctx->saved_data["gelu"] = shape.gelu ? static_cast<std::int64_t>(*shape.gelu) : -1;
    }
    return result.narrow(0, 0, x.size(0));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& left = saved[0];
    const std::vector<at::Tensor> weights(saved.begin() + 3, saved.end());
    const auto order = static_cast<WeightOrder>(ctx->saved_data["order"].toInt());
    const std::int64_t rows = ctx->saved_data["rows"].toInt();
    const at::Tensor incoming = gradients[0].contiguous();
    const at::Tensor dy = at::empty({left.size(0), incoming.size(1)}, at::kBFloat16);
    const at::Tensor dbias = product_gradient(incoming, saved[1], ctx->saved_data["gelu"].toInt(), dy);
    clear_rows_from(dy, rows);

    const at::Tensor& right = saved[2];
    torch::autograd::variable_list result = product_gradients(ctx, left, weights, dy, dbias, order, [&] {
      return at::mm(dy, order == WeightOrder::kOutIn ? right : right.t()).narrow(0, 0, rows);
    });
    result.resize(result.size() + 2);  // of `shape` and `keep`
    return result;
  }

 private:
  // gelu(product) of the first `rows` rows; in place unless the product is to be kept.
  static at::Tensor activated(const at::Tensor& product, std::int64_t rows, cpu::Gelu form, bool keep) {
    const std::int64_t columns = product.size(1);
    const at::Tensor result = keep ? bfloat16_rows(rows, columns) : product;
    auto* to = result.mutable_data_ptr<c10::BFloat16>();
    cpu::parallel_for(rows, std::max<std::int64_t>(1, kGrain / columns), [&](std::int64_t begin, std::int64_t end) {
      const Floats floats(columns);
      for (std::int64_t row = begin; row < end; ++row) {
        const float* x = floats_of(product, row, floats.row[0]);
        cpu::dense_kernels()->gelu(form, x, floats.row[1], columns);
        cpu::row_kernels().narrow(floats.row[1], to + row * columns, columns);
      }
    });
    return result;
  }

  // Writes the gradient of the product into the first rows of `dy`; returns the sum of its rows.
  static at::Tensor product_gradient(const at::Tensor& incoming, const at::Tensor& product, std::int64_t gelu,
                                     const at::Tensor& dy) {
    const std::int64_t columns = dy.size(1);
    auto* to = dy.mutable_data_ptr<c10::BFloat16>();
    const cpu::DenseKernels& kernels = *cpu::dense_kernels();
    return sum_rows(kernels, incoming.size(0), columns, [&](std::int64_t row, float* sums) {
      const Floats floats(columns);
      const float* gradient = floats_of(incoming, row, floats.row[0]);
      if (product.defined()) {
        const float* x = floats_of(product, row, floats.row[1]);
        kernels.gelu_backward(static_cast<cpu::Gelu>(gelu), x, gradient, floats.row[2], sums, columns);
        gradient = floats.row[2];
      } else {
        kernels.add_to(sums, gradient, columns);
      }
      cpu::row_kernels().narrow(gradient, to + row * columns, columns);
    });
  }
};

at::Tensor apply(const at::Tensor& x, const std::vector<DensePart>& parts, const Shape& shape) {
  const auto [weights, biases] = DenseTensors(parts);
  return DenseBfloat16::apply(x, at::TensorList(weights), at::TensorList(biases), shape, c10::GradMode::is_enabled());
}

}  // namespace

at::Tensor bfloat16_rows(std::int64_t rows, std::int64_t columns) {
  const at::Tensor all = at::empty({rounded_rows(rows), columns}, at::kBFloat16);
  clear_rows_from(all, rows);
  return all.narrow(0, 0, rows);
}

bool fits_bfloat16(const at::Tensor& x, const std::vector<DensePart>& parts) {
  const auto suits = [](const DensePart& part) {
    return part.weight.scalar_type() == at::kFloat && part.weight.stride(1) == 1 && part.bias.defined() &&
           part.bias.scalar_type() == at::kFloat && part.bias.is_contiguous();
  };
  return x.is_cpu() && at::autocast::is_autocast_enabled(at::kCPU) &&
         at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16 && cpu::dense_kernels() != nullptr &&
         uses(Shortcut::kDense) && x.dim() == 2 && x.size(0) >= kFewestRows && x.stride(1) == 1 &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         std::all_of(parts.begin(), parts.end(), suits);
}

at::Tensor dense_bfloat16(const at::Tensor& x, const std::vector<DensePart>& parts, WeightOrder order) {
  return apply(x, parts, {order, std::nullopt});
}

at::Tensor dense_gelu_bfloat16(const at::Tensor& x, const DensePart& part, WeightOrder order, bool tanh) {
  return apply(x, {part}, {order, tanh ? cpu::Gelu::kTanh : cpu::Gelu::kErf});
}

}  // namespace dtrain
