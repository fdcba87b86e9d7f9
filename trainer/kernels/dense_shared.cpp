#include "trainer/kernels/dense_shared.h"

#include <ATen/ops/mm.h>

namespace dtrain {

DenseTensors::DenseTensors(const std::vector<DensePart>& parts) {
  for (const DensePart& part : parts) {
    weights.push_back(part.weight);
    biases.push_back(part.bias);
  }
}

torch::autograd::variable_list product_gradients(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                                                 const std::vector<at::Tensor>& weights, const at::Tensor& dy,
                                                 const at::Tensor& dbias, WeightOrder order,
                                                 const std::function<at::Tensor()>& dx) {
  const std::size_t parts = weights.size();
  const std::int64_t out_dimension = order == WeightOrder::kOutIn ? 0 : 1;
  torch::autograd::variable_list result(1 + 2 * parts);
  if (ctx->needs_input_grad(0)) result[0] = dx();
  std::int64_t first = 0;
  at::Tensor all;
  for (std::size_t i = 0; i < parts; ++i) {
    const std::int64_t out = weights[i].size(out_dimension);
    if (ctx->needs_input_grad(1 + i)) {
      if (!all.defined()) all = order == WeightOrder::kOutIn ? at::mm(dy.t(), x) : at::mm(x.t(), dy);
      result[1 + i] = all.narrow(out_dimension, first, out).to(at::kFloat);
    }
    if (ctx->needs_input_grad(1 + parts + i)) result[1 + parts + i] = dbias.narrow(0, first, out);
    first += out;
  }
  return result;
}

}  // namespace dtrain
