#include "trainer/loop_totals.h"

#include <cmath>

#include <ATen/ops/empty.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr const char* kLosses = "loop.losses";  // float64: since the last log, in all
constexpr const char* kSteps = "loop.steps";    // int64: since the last log, in all, that changed the weights
constexpr const char* kTokens = "loop.tokens";  // int64: tokens and input elements since the last log

at::Tensor checked(const SafetensorsFile& file, const char* name, at::ScalarType type, std::int64_t size) {
  if (!file.has(name)) {
    throw data_error(fmt::format("optimizer.safetensors has no tensor {}", name),
                     "the checkpoint was not written by this version of dtrain");
  }
  at::Tensor tensor = file.tensor(name);
  if (tensor.scalar_type() != type || tensor.dim() != 1 || tensor.size(0) != size) {
    throw data_error(fmt::format("optimizer.safetensors: tensor {} has another type or shape", name),
                     "the checkpoint was not written by this version of dtrain");
  }
  return tensor;
}

}  // namespace

void LoopTotals::add_step(double mean_loss, bool filter) {
  if (filter && !std::isfinite(mean_loss)) mean_loss = loss_since_log / static_cast<double>(1 + steps_since_log);
  loss_since_log += mean_loss;
  loss += mean_loss;
  ++steps_since_log;
  ++steps;
}

NamedTensors LoopTotals::state() const {
  at::Tensor losses = at::empty({2}, at::kDouble);
  losses.mutable_data_ptr<double>()[0] = loss_since_log;
  losses.mutable_data_ptr<double>()[1] = loss;
  at::Tensor counts = at::empty({3}, at::kLong);
  counts.mutable_data_ptr<std::int64_t>()[0] = steps_since_log;
  counts.mutable_data_ptr<std::int64_t>()[1] = steps;
  counts.mutable_data_ptr<std::int64_t>()[2] = updates;
  at::Tensor tokens = at::empty({2}, at::kLong);
  tokens.mutable_data_ptr<std::int64_t>()[0] = tokens_since_log;
  tokens.mutable_data_ptr<std::int64_t>()[1] = input_elements_since_log;
  return {{kLosses, losses}, {kSteps, counts}, {kTokens, tokens}};
}

void LoopTotals::load_state(const SafetensorsFile& file) {
  const at::Tensor losses = checked(file, kLosses, at::kDouble, 2);
  const at::Tensor counts = checked(file, kSteps, at::kLong, 3);
  loss_since_log = losses.const_data_ptr<double>()[0];
  loss = losses.const_data_ptr<double>()[1];
  steps_since_log = counts.const_data_ptr<std::int64_t>()[0];
  steps = counts.const_data_ptr<std::int64_t>()[1];
  updates = counts.const_data_ptr<std::int64_t>()[2];
  if (!file.has(kTokens)) return;
  const at::Tensor tokens = checked(file, kTokens, at::kLong, 2);
  tokens_since_log = tokens.const_data_ptr<std::int64_t>()[0];
  input_elements_since_log = tokens.const_data_ptr<std::int64_t>()[1];
}

}  // namespace dtrain
