#include "trainer/kernels/embedding.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "core/random.h"
#include "trainer/kernels/cpu/parallel.h"

namespace dtrain {
namespace {

constexpr std::int64_t kFloatsPerPiece = 1 << 15;

std::int64_t rows_per_piece(std::int64_t size) {
  return std::max<std::int64_t>(1, kFloatsPerPiece / std::max<std::int64_t>(1, size));
}

bool all_below(const at::Tensor& ids, std::int64_t count) {
  const auto* id = ids.const_data_ptr<std::int64_t>();
  return std::all_of(id, id + ids.numel(), [&](std::int64_t i) { return i >= 0 && i < count; });
}

// The gradient of one table as a sparse tensor of distinct rows in ascending order.
at::Tensor table_gradient(const at::Tensor& table, const at::Tensor& ids, std::int64_t padding_index,
                          const at::Tensor& incoming) {
  const std::int64_t rows = incoming.size(0);
  const std::int64_t size = incoming.size(1);
  const auto* id = ids.const_data_ptr<std::int64_t>();
  const bool one = ids.numel() == 1;
  const auto id_of = [&](std::int64_t row) { return one ? id[0] : id[row]; };
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  if (padding_index >= 0) std::erase_if(order, [&](std::int64_t row) { return id_of(row) == padding_index; });
  if (!one) std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return id[a] < id[b]; });
  std::vector<std::size_t> begins;  // of the tokens of one row of the table, in `order`
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || id_of(order[i]) != id_of(order[i - 1])) begins.push_back(i);
  }
  const auto distinct = static_cast<std::int64_t>(begins.size());
  begins.push_back(order.size());
  const at::Tensor indices = at::empty({1, distinct}, at::kLong);
  const at::Tensor values = at::empty({distinct, size}, at::kFloat);
  auto* index = indices.mutable_data_ptr<std::int64_t>();
  auto* value = values.mutable_data_ptr<float>();
  const auto* from = incoming.const_data_ptr<float>();
  cpu::parallel_for(distinct, rows_per_piece(size), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const auto segment = static_cast<std::size_t>(i);
      index[i] = id_of(order[begins[segment]]);
      float* sum = value + i * size;
      std::fill_n(sum, size, 0.0F);
      for (std::size_t k = begins[segment]; k < begins[segment + 1]; ++k) {
        const float* row = from + order[k] * size;
        for (std::int64_t c = 0; c < size; ++c) sum[c] += row[c];
      }
    }
  });
  at::Tensor result = at::_sparse_coo_tensor_unsafe(indices, values, table.sizes());
  result._coalesced_(true);
  return result;
}

class EmbeddingSum : public torch::autograd::Function<EmbeddingSum> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, at::TensorList tables, at::TensorList ids,
                            const std::vector<std::int64_t>& padding, std::int64_t rows) {
    const std::int64_t size = tables[0].size(1);
    at::Tensor sum = at::empty({rows, size}, at::kFloat);
    auto* to = sum.mutable_data_ptr<float>();
    cpu::parallel_for(rows, rows_per_piece(size), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        for (std::size_t t = 0; t < tables.size(); ++t) {
          const auto* id = ids[t].const_data_ptr<std::int64_t>();
          const float* from = tables[t].const_data_ptr<float>() + id[ids[t].numel() == 1 ? 0 : row] * size;
          if (t == 0) {
            std::copy_n(from, size, to + row * size);
          } else {
            for (std::int64_t c = 0; c < size; ++c) to[row * size + c] += from[c];
          }
        }
      }
    });
    torch::autograd::variable_list saved(tables.begin(), tables.end());
    saved.insert(saved.end(), ids.begin(), ids.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["padding"] = padding;
    return sum;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const std::size_t count = saved.size() / 2;
    const at::Tensor incoming = gradients[0].contiguous();
    const std::vector<std::int64_t> padding = ctx->saved_data["padding"].toIntVector();
    torch::autograd::variable_list result(2 * count + 2);
    for (std::size_t t = 0; t < count; ++t) {
      if (!ctx->needs_input_grad(t)) continue;
      const at::Tensor sparse = table_gradient(saved[t], saved[count + t], padding[t], incoming);
      result[t] = saved[t].grad().defined() ? sparse : sparse.to_dense();
    }
    return result;
  }
};

}  // namespace

at::Tensor embedding_sum(const std::vector<Lookup>& lookups) {
  const at::Tensor& first = lookups[0].table;
  if (!first.is_cpu() || first.scalar_type() != at::kFloat) {
    at::Tensor sum;
    for (const Lookup& lookup : lookups) {
      const at::Tensor rows = at::embedding(lookup.table, lookup.ids, lookup.padding_index);
      sum = sum.defined() ? sum.add(rows) : rows;
    }
    return sum;
  }
  std::vector<at::Tensor> tables;
  std::vector<at::Tensor> ids;
  std::vector<std::int64_t> padding;
  std::int64_t rows = 1;
  for (const Lookup& lookup : lookups) {
    tables.push_back(lookup.table);
    ids.push_back(lookup.ids.contiguous());
    DTRAIN_CHECK(all_below(ids.back(), lookup.table.size(0)), "an id that is no row of a table of {}",
                 lookup.table.size(0));
    padding.push_back(lookup.padding_index);
    rows = std::max(rows, lookup.ids.numel());
  }
  return EmbeddingSum::apply(at::TensorList(tables), at::TensorList(ids), padding, rows);
}

at::Tensor embedding_noise(const at::Tensor& embedded, double alpha, const DropoutKeys& keys, const at::Tensor& mask) {
  constexpr std::uint32_t kSite = 0x4E45;  // no model has as many sites of dropout
  const TokenLayout& layout = *keys.layout;
  const std::int64_t rows = embedded.size(0);
  const std::int64_t size = embedded.size(1);
  DTRAIN_CHECK(rows == layout.rows, "noise for {} rows of {}", rows, layout.rows);
  const at::Tensor real = mask.defined() ? mask.ne(0).sum(1).to(at::kCPU) : at::Tensor();
  std::vector<double> bound;
  for (std::int64_t b = 0; b < layout.batch; ++b) {
    const std::int64_t own = real.defined() ? real.const_data_ptr<std::int64_t>()[b] : layout.length;
    bound.push_back(alpha / std::sqrt(static_cast<double>(std::max<std::int64_t>(own, 1) * size)));
  }
  const at::Tensor slots = keys.slots.to(at::kCPU);
  const auto* slot = slots.const_data_ptr<std::int64_t>();
  const PhiloxKey key = keys.key.philox();
  const at::Tensor noise = at::empty({rows, size}, at::kFloat);
  auto* out = noise.mutable_data_ptr<float>();
  cpu::parallel_for(rows, rows_per_piece(size), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const auto i = static_cast<std::size_t>(row);
      const bool known = !layout.example.empty();  // on the CPU only
      const auto example = static_cast<std::size_t>(known ? layout.example[i] : row / layout.length);
      const auto position = static_cast<std::uint32_t>(known ? layout.position[i] : row % layout.length);
      for (std::int64_t c = 0; c < size; c += 4) {
        const PhiloxCounter words = philox4x32(
            {static_cast<std::uint32_t>(c / 4), position, static_cast<std::uint32_t>(slot[example]), kSite}, key);
        for (std::int64_t k = 0; k < std::min<std::int64_t>(4, size - c); ++k) {
          const double share = (static_cast<double>(words[static_cast<std::size_t>(k)]) + 0.5) / 4294967296.0;
          out[row * size + c + k] = static_cast<float>((2 * share - 1) * bound[example]);
        }
      }
    }
  });
  return noise.to(embedded.options());
}

}  // namespace dtrain
