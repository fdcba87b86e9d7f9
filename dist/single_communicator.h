// SingleCommunicator: a job of one rank. Sums and copies leave the tensors as they are; every Work is done at once.
#pragma once

#include "dist/communicator.h"

namespace dtrain {

class SingleCommunicator final : public Communicator {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  [[nodiscard]] std::string_view backend() const override { return "single"; }
  [[nodiscard]] WorkPtr all_reduce_sum(const at::Tensor& tensor, std::string_view name) override;
  [[nodiscard]] WorkPtr broadcast(const at::Tensor& tensor, int root, std::string_view name) override;
  [[nodiscard]] WorkPtr all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view name) override;
};

}  // namespace dtrain
