#include "dist/single_communicator.h"

#include "core/error.h"

namespace dtrain {

WorkPtr SingleCommunicator::all_reduce_sum(const at::Tensor& /*tensor*/, std::string_view /*name*/) {
  return std::make_shared<FinishedWork>();
}

WorkPtr SingleCommunicator::broadcast(const at::Tensor& /*tensor*/, int root, std::string_view name) {
  DTRAIN_CHECK(root == 0, "root {} of one rank in \"{}\"", root, name);
  return std::make_shared<FinishedWork>();
}

WorkPtr SingleCommunicator::all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view name) {
  DTRAIN_CHECK(output.numel() == input.numel(), "\"{}\": the output has {} elements, the input {}", name,
               output.numel(), input.numel());
  output.view(-1).copy_(input.reshape(-1));
  return std::make_shared<FinishedWork>();
}

}  // namespace dtrain
