#include "trainer/optim/sharded_optimizer.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>

#include "core/error.h"
#include "trainer/optim/optimizer_state.h"

namespace dtrain {
namespace {

constexpr std::int64_t kCutElements = 64;                        // 256 bytes: cuts are aligned for every kernel
constexpr std::int64_t kGatherElements = std::int64_t{1} << 20;  // of each rank in one message

std::vector<ShareSegment> cut_parameters(const std::vector<std::int64_t>& sizes, int ranks) {
  const std::int64_t total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  std::vector<ShareSegment> segments;
  std::int64_t before = 0;  // elements of the parameters before
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    // Where the share of `rank` begins in this parameter.
    const auto begin_of = [&](int rank) {
      const std::int64_t border = total * rank / ranks - before;
      if (border <= 0) return std::int64_t{0};
      return std::min(sizes[i], (border + kCutElements / 2) / kCutElements * kCutElements);
    };
    if (sizes[i] == 0) segments.push_back({i, 0, 0, 0});
    for (int rank = 0; rank < ranks; ++rank) {
      const std::int64_t begin = begin_of(rank);
      const std::int64_t end = rank + 1 == ranks ? sizes[i] : begin_of(rank + 1);
      if (end > begin) segments.push_back({i, begin, end - begin, rank});
    }
    before += sizes[i];
  }
  return segments;
}

std::vector<ShareSegment> deal_parameters(const std::vector<std::int64_t>& sizes, int ranks) {
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks), 0);
  std::vector<ShareSegment> segments(sizes.size());
  for (const std::size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += sizes[i];
    segments[i] = {i, 0, sizes[i], static_cast<int>(least - load.begin())};
  }
  return segments;
}

at::Tensor flat(const at::Tensor& tensor) { return tensor.detach().view({-1}); }

class ShardedOptimizer final : public Optimizer {
 public:
  ShardedOptimizer(std::vector<NamedParameter> parameters, const OptimizerOptions& options,
                   std::shared_ptr<Communicator> communicator);

  void step(std::span<const double> learning_rates, double gradient_scale) override;
  [[nodiscard]] NamedTensors state() const override;
  void load_state(const SafetensorsFile& file) override;
  [[nodiscard]] std::int64_t state_bytes() const override { return inner_->state_bytes(); }

 private:
  // A part of a parameter as a leaf of its own.
  struct Slice {
    ShareSegment segment;
    at::Tensor value;
  };

  [[nodiscard]] bool is_whole(const ShareSegment& segment) const {
    return segment.count == parameters_[segment.parameter].value.numel();
  }
  void gather_values();

  std::vector<NamedParameter> parameters_;
  std::shared_ptr<Communicator> communicator_;
  std::vector<ShareSegment> segments_;
  std::vector<Slice> slices_;         // of this rank, where it has not the whole parameter
  std::unique_ptr<Optimizer> inner_;  // of this rank's share
  NamedTensors layout_;               // the undivided state, without memory
  std::int64_t largest_share_ = 0;
  at::Tensor sent_;  // buffers of gather_values()
  at::Tensor received_;
};

ShardedOptimizer::ShardedOptimizer(std::vector<NamedParameter> parameters, const OptimizerOptions& options,
                                   std::shared_ptr<Communicator> communicator)
    : parameters_(std::move(parameters)), communicator_(std::move(communicator)) {
  check_parameters(parameters_);
  const c10::NoGradGuard no_gradient;
  std::vector<std::int64_t> sizes;
  std::vector<NamedParameter> without_memory = parameters_;
  for (NamedParameter& parameter : without_memory) {
    sizes.push_back(parameter.value.numel());
    parameter.value = at::empty_like(parameter.value, at::TensorOptions().device(at::kMeta));
  }
  layout_ = make_optimizer(std::move(without_memory), options)->state();

  const int ranks = communicator_->size();
  segments_ = divide_parameters(sizes, ranks, may_be_cut(options));
  std::vector<std::int64_t> shares(static_cast<std::size_t>(ranks), 0);
  std::vector<NamedParameter> mine;
  for (const ShareSegment& segment : segments_) {
    shares[static_cast<std::size_t>(segment.owner)] += segment.count;
    if (segment.owner != communicator_->rank()) continue;
    NamedParameter part = parameters_[segment.parameter];
    if (!is_whole(segment)) {
      part.value = flat(part.value).narrow(0, segment.offset, segment.count);
      part.value.set_requires_grad(true);
      slices_.push_back({segment, part.value});
    }
    mine.push_back(std::move(part));
  }
  inner_ = make_optimizer(std::move(mine), options);

  largest_share_ = *std::max_element(shares.begin(), shares.end());
  const std::int64_t rows = std::min(largest_share_, kGatherElements);
  const at::TensorOptions like = parameters_.front().value.options().requires_grad(false);
  sent_ = at::empty({rows}, like);
  received_ = at::empty({rows * ranks}, like);
}

void ShardedOptimizer::step(std::span<const double> learning_rates, double gradient_scale) {
  const c10::NoGradGuard no_gradient;
  for (Slice& slice : slices_) {
    const at::Tensor& parameter = parameters_[slice.segment.parameter].value;
    slice.value.mutable_grad() = has_gradient(parameter) ? parameter.grad().contiguous().view({-1}).narrow(
                                                               0, slice.segment.offset, slice.segment.count)
                                                         : at::Tensor();
  }
  inner_->step(learning_rates, gradient_scale);
  gather_values();
}

// The shares, each laid out in one row, travel in pieces so that the buffers stay small.
void ShardedOptimizer::gather_values() {
  const int ranks = communicator_->size();
  for (std::int64_t begin = 0; begin < largest_share_; begin += kGatherElements) {
    const std::int64_t length = std::min(kGatherElements, largest_share_ - begin);
    const at::Tensor sent = sent_.narrow(0, 0, length);
    const at::Tensor received = received_.narrow(0, 0, length * ranks).view({ranks, length});
    // Calls copy(part of a parameter, part of the piece) for all that rank `owner` has in this piece.
    const auto for_each_part = [&](int owner, const at::Tensor& piece, const auto& copy) {
      std::int64_t position = 0;  // in the share
      for (const ShareSegment& segment : segments_) {
        if (segment.owner != owner) continue;
        const std::int64_t first = std::max(position, begin);
        const std::int64_t last = std::min(position + segment.count, begin + length);
        if (first < last) {
          copy(flat(parameters_[segment.parameter].value).narrow(0, segment.offset + first - position, last - first),
               piece.narrow(0, first - begin, last - first));
        }
        position += segment.count;
      }
    };
    for_each_part(communicator_->rank(), sent, [](const at::Tensor& values, at::Tensor part) { part.copy_(values); });
    communicator_->all_gather(received, sent, "updated parameters")->wait();
    for (int owner = 0; owner < ranks; ++owner) {
      if (owner == communicator_->rank()) continue;
      for_each_part(owner, received[owner], [](at::Tensor values, const at::Tensor& part) { values.copy_(part); });
    }
  }
}

NamedTensors ShardedOptimizer::state() const {
  const c10::NoGradGuard no_gradient;
  const int rank = communicator_->rank();
  const c10::Device device = parameters_.front().value.device();
  const NamedTensors inner = inner_->state();
  const std::map<std::string, at::Tensor> mine(inner.begin(), inner.end());
  std::map<std::string, std::vector<ShareSegment>> segments_of;
  for (const ShareSegment& segment : segments_) segments_of[parameters_[segment.parameter].name].push_back(segment);

  NamedTensors tensors;
  for (const auto& [name, shape] : layout_) {
    at::Tensor whole;
    if (rank == 0) whole = at::empty(shape.sizes(), shape.options().device(at::kCPU));
    for (const ShareSegment& segment : segments_of.at(name.substr(0, name.rfind('.')))) {
      // Of a parameter in pieces, moments are in pieces too; all pieces have the same number of updates.
      const bool in_pieces = !is_whole(segment) && shape.dim() > 0;
      at::Tensor part = segment.owner == rank ? mine.at(name).to(device).contiguous()
                                              : at::empty(in_pieces ? at::IntArrayRef(segment.count) : shape.sizes(),
                                                          shape.options().device(device));
      communicator_->broadcast(part, segment.owner, name)->wait();
      if (rank == 0 && in_pieces) {
        whole.view({-1}).narrow(0, segment.offset, segment.count).copy_(part);
      } else if (rank == 0) {
        whole.copy_(part);
      }
      if (!in_pieces) break;
    }
    if (rank == 0) tensors.emplace_back(name, whole);
  }
  return tensors;
}

void ShardedOptimizer::load_state(const SafetensorsFile& file) {
  check_optimizer_state(layout_, file);
  const c10::NoGradGuard no_gradient;
  std::map<std::string, ShareSegment> segment_of;
  for (const ShareSegment& segment : segments_) {
    if (segment.owner == communicator_->rank()) segment_of[parameters_[segment.parameter].name] = segment;
  }
  for (auto& [name, target] : inner_->state()) {
    const at::Tensor source = file.tensor(name);
    const ShareSegment& segment = segment_of.at(name.substr(0, name.rfind('.')));
    const bool in_pieces = !is_whole(segment) && source.dim() > 0;
    target.copy_(in_pieces ? source.view({-1}).narrow(0, segment.offset, segment.count) : source);
  }
}

}  // namespace

std::vector<ShareSegment> divide_parameters(const std::vector<std::int64_t>& sizes, int ranks, bool cut) {
  return cut ? cut_parameters(sizes, ranks) : deal_parameters(sizes, ranks);
}

std::unique_ptr<Optimizer> make_sharded_optimizer(std::vector<NamedParameter> parameters,
                                                  const OptimizerOptions& options,
                                                  std::shared_ptr<Communicator> communicator) {
  if (parameters.empty() || communicator == nullptr || communicator->size() == 1) {
    return make_optimizer(std::move(parameters), options);
  }
  return std::make_unique<ShardedOptimizer>(std::move(parameters), options, std::move(communicator));
}

}  // namespace dtrain
