#include "trainer/kernels/dense.h"

#include <algorithm>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/kernels/cpu/dense.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/dense_bfloat16.h"
#include "trainer/kernels/dense_shared.h"
#include "trainer/kernels/shortcuts.h"

namespace dtrain {
namespace {

// Rows given to a thread at once: few enough that 590 KiB of results (1,536 columns) stay in the cache.
std::int64_t rows_at_once(std::int64_t rows, std::int64_t tile_rows) {
  constexpr std::int64_t kTiles = 16;
  constexpr std::int64_t kPiecesPerThread = 4;
  const std::int64_t fair = rows / (at::get_num_threads() * kPiecesPerThread * tile_rows);
  return tile_rows * std::clamp<std::int64_t>(fair, 1, kTiles);
}

// The weights of all parts as right side of a product, in panels.
class PackedWeights {
 public:
  // For y = x W^T: the parts side by side. Otherwise for dx = dy W: the parts one below the other.
  PackedWeights(const cpu::DenseKernels& kernels, const std::vector<at::Tensor>& weights, WeightOrder order,
                bool forward)
      : kernels_(kernels) {
    struct Part {
      cpu::Matrix matrix;
      std::int64_t columns;
      std::int64_t depth;
    };
    std::vector<Part> parts;
    for (const at::Tensor& weight : weights) {
      const std::int64_t out = order == WeightOrder::kOutIn ? 0 : 1;
      const std::int64_t in = 1 - out;
      const float* data = weight.const_data_ptr<float>();
      if (forward) {
        parts.push_back({{data, weight.stride(in), weight.stride(out)}, weight.size(out), weight.size(in)});
        columns_ += weight.size(out);
        depth_ = weight.size(in);
      } else {
        parts.push_back({{data, weight.stride(out), weight.stride(in)}, weight.size(in), weight.size(out)});
        columns_ = weight.size(in);
        depth_ += weight.size(out);
      }
    }
    panels_ = at::empty({columns_ * depth_}, at::kFloat);
    auto* panels = panels_.mutable_data_ptr<float>();
    std::int64_t column = 0;
    std::int64_t row = 0;
    for (const Part& part : parts) {
      cpu::parallel_for(part.columns / kernels.panel, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const cpu::Matrix from{part.matrix.data + i * kernels.panel * part.matrix.column, part.matrix.row,
                                 part.matrix.column};
          kernels.pack(from, part.depth, panels + (column + i * kernels.panel) * depth_ + row * kernels.panel);
        }
      });
      (forward ? column : row) += forward ? part.columns : part.depth;
    }
  }

  [[nodiscard]] std::int64_t columns() const { return columns_; }

  // [rows, columns]; calls done(first, count) when rows are there.
  template <class Done>
  [[nodiscard]] at::Tensor times(const at::Tensor& left, const float* bias, const Done& done) const {
    const std::int64_t rows = left.size(0);
    at::Tensor result = at::empty({rows, columns_}, at::kFloat);
    const float* from = left.const_data_ptr<float>();
    auto* to = result.mutable_data_ptr<float>();
    const std::int64_t stride = left.stride(0);
    const std::int64_t unit = rows_at_once(rows, kernels_.tile_rows);
    cpu::parallel_tasks((rows + unit - 1) / unit, [&](std::int64_t task) {
      const std::int64_t first = task * unit;
      const std::int64_t count = std::min(unit, rows - first);
      kernels_.multiply({from + first * stride, stride}, count, depth_, panels_.const_data_ptr<float>(), columns_, bias,
                        {to + first * columns_, columns_});
      done(first, count, to + first * columns_);
    });
    return result;
  }
  [[nodiscard]] at::Tensor times(const at::Tensor& left) const {
    return times(left, nullptr, [](std::int64_t, std::int64_t, const float*) {});
  }

 private:
  const cpu::DenseKernels& kernels_;
  at::Tensor panels_;
  std::int64_t columns_ = 0;
  std::int64_t depth_ = 0;
};

std::vector<float> joined(const std::vector<at::Tensor>& biases) {
  std::vector<float> values;
  for (const at::Tensor& bias : biases) {
    values.insert(values.end(), bias.const_data_ptr<float>(), bias.const_data_ptr<float>() + bias.numel());
  }
  return values;
}

// The gradient of x from that of the product.
at::Tensor input_gradient(const at::Tensor& dy, const std::vector<at::Tensor>& weights, WeightOrder order) {
  return PackedWeights(*cpu::dense_kernels(), weights, order, /*forward=*/false).times(dy);
}

std::vector<at::Tensor> slice(const torch::autograd::variable_list& list, std::size_t first, std::size_t count) {
  return {list.begin() + static_cast<std::ptrdiff_t>(first), list.begin() + static_cast<std::ptrdiff_t>(first + count)};
}

class Dense : public torch::autograd::Function<Dense> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, at::TensorList weights,
                            at::TensorList biases, WeightOrder order) {
    torch::autograd::variable_list saved{x};
    saved.insert(saved.end(), weights.begin(), weights.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["order"] = static_cast<std::int64_t>(order);
    const std::vector<float> bias = joined(biases.vec());
    const PackedWeights packed(*cpu::dense_kernels(), weights.vec(), order, /*forward=*/true);
    return packed.times(x, bias.data(), [](std::int64_t, std::int64_t, const float*) {});
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto order = static_cast<WeightOrder>(ctx->saved_data["order"].toInt());
    const std::vector<at::Tensor> weights = slice(saved, 1, saved.size() - 1);
    const at::Tensor dy = gradients[0].contiguous();
    const cpu::DenseKernels& kernels = *cpu::dense_kernels();
    const std::int64_t columns = dy.size(1);
    const auto* rows = dy.const_data_ptr<float>();
    const at::Tensor dbias = sum_rows(kernels, dy.size(0), columns, [&](std::int64_t row, float* sums) {
      kernels.add_to(sums, rows + row * columns, columns);
    });
    torch::autograd::variable_list result =
        product_gradients(ctx, saved[0], weights, dy, dbias, order, [&] { return input_gradient(dy, weights, order); });
    result.emplace_back();  // of `order`
    return result;
  }
};

class DenseGelu : public torch::autograd::Function<DenseGelu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, WeightOrder order, cpu::Gelu form, bool keep) {
    const cpu::DenseKernels& kernels = *cpu::dense_kernels();
    const PackedWeights packed(kernels, {weight}, order, /*forward=*/true);
    const std::int64_t columns = packed.columns();
    const at::Tensor result = keep ? at::empty({x.size(0), columns}, at::kFloat) : at::Tensor();
    auto* activated = keep ? result.mutable_data_ptr<float>() : nullptr;
    const auto activate_rows = [&](std::int64_t first, std::int64_t count, float* rows) {
      kernels.gelu(form, rows, keep ? activated + first * columns : rows, count * columns);
    };
    const at::Tensor before = packed.times(x, bias.const_data_ptr<float>(), activate_rows);
    if (!keep) return before;
    ctx->save_for_backward({x, weight, before});
    ctx->saved_data["order"] = static_cast<std::int64_t>(order);
    ctx->saved_data["form"] = static_cast<std::int64_t>(form);
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto form = static_cast<cpu::Gelu>(ctx->saved_data["form"].toInt());
    const at::Tensor& before = saved[2];
    const at::Tensor incoming = gradients[0].contiguous();
    const at::Tensor dy = at::empty(before.sizes(), at::kFloat);
    const cpu::DenseKernels& kernels = *cpu::dense_kernels();
    const std::int64_t columns = before.size(1);
    const auto* x = before.const_data_ptr<float>();
    const auto* from = incoming.const_data_ptr<float>();
    auto* to = dy.mutable_data_ptr<float>();
    const at::Tensor dbias = sum_rows(kernels, before.size(0), columns, [&](std::int64_t row, float* sums) {
      const std::int64_t at = row * columns;
      kernels.gelu_backward(form, x + at, from + at, to + at, sums, columns);
    });
    const auto order = static_cast<WeightOrder>(ctx->saved_data["order"].toInt());
    torch::autograd::variable_list result = product_gradients(ctx, saved[0], {saved[1]}, dy, dbias, order,
                                                              [&] { return input_gradient(dy, {saved[1]}, order); });
    result.resize(result.size() + 3);  // of `order`, `form` and `keep`
    return result;
  }
};

class SplitColumns : public torch::autograd::Function<SplitColumns> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                                                std::int64_t count) {
    ctx->saved_data["rows"] = x.size(0);
    ctx->saved_data["columns"] = x.size(1);
    return x.chunk(count, 1);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const std::int64_t rows = ctx->saved_data["rows"].toInt();
    const std::int64_t columns = ctx->saved_data["columns"].toInt();
    const std::int64_t width = columns / static_cast<std::int64_t>(gradients.size());
    const at::Tensor& first = gradients[0];
    bool side_by_side = true;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const at::Tensor& part = gradients[i];
      side_by_side = side_by_side && part.is_alias_of(first) && part.scalar_type() == first.scalar_type() &&
                     part.strides() == at::IntArrayRef({columns, 1}) &&
                     part.storage_offset() == first.storage_offset() + static_cast<std::int64_t>(i) * width;
    }
    if (!side_by_side) return {at::cat(gradients, 1), {}};
    return {first.as_strided({rows, columns}, {columns, 1}), {}};
  }
};

bool fits_kernels(const at::Tensor& x, const std::vector<DensePart>& parts) {
  const cpu::DenseKernels* kernels = cpu::dense_kernels();
  const auto suits = [&](const DensePart& part) {
    return part.weight.scalar_type() == at::kFloat && part.bias.defined() && part.bias.scalar_type() == at::kFloat &&
           part.bias.is_contiguous() && part.weight.size(0) % kernels->panel == 0 &&
           part.weight.size(1) % kernels->panel == 0;
  };
  return kernels != nullptr && uses(Shortcut::kDense) && x.is_cpu() && x.dim() == 2 && x.scalar_type() == at::kFloat &&
         x.stride(1) == 1 && x.size(0) >= kFewestRows && !at::autocast::is_autocast_enabled(at::kCPU) &&
         std::all_of(parts.begin(), parts.end(), suits);
}

at::Tensor plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, WeightOrder order) {
  if (order == WeightOrder::kOutIn) return at::linear(x, weight, bias);
  return bias.defined() ? at::addmm(bias, x, weight) : at::mm(x, weight);
}

}  // namespace

at::Tensor dense(const at::Tensor& x, const std::vector<DensePart>& parts, WeightOrder order) {
  if (fits_bfloat16(x, parts)) return dense_bfloat16(x, parts, order);
  const auto [weights, biases] = DenseTensors(parts);
  if (!fits_kernels(x, parts)) {
    if (parts.size() == 1) return plain(x, weights[0], biases[0], order);
    return plain(x, at::cat(weights, order == WeightOrder::kOutIn ? 0 : 1), at::cat(biases), order);
  }
  return Dense::apply(x, at::TensorList(weights), at::TensorList(biases), order);
}

std::vector<at::Tensor> split_columns(const at::Tensor& x, std::int64_t count) { return SplitColumns::apply(x, count); }

at::Tensor dense_gelu(const at::Tensor& x, const DensePart& part, WeightOrder order, bool tanh) {
  if (fits_bfloat16(x, {part})) return dense_gelu_bfloat16(x, part, order, tanh);
  if (!fits_kernels(x, {part})) return at::gelu(plain(x, part.weight, part.bias, order), tanh ? "tanh" : "none");
  return DenseGelu::apply(x, part.weight, part.bias, order, tanh ? cpu::Gelu::kTanh : cpu::Gelu::kErf,
                          c10::GradMode::is_enabled());
}

}  // namespace dtrain
