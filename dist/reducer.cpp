#include "dist/reducer.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <exception>
#include <string>
#include <utility>

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "core/clock.h"
#include "core/error.h"

namespace dtrain {
namespace {

namespace autograd = torch::autograd;

constexpr std::int64_t kAlignmentBytes = 64;
constexpr std::size_t kGathersUnderWay = 2;  // each holds a bucket of every rank

std::int64_t padded(std::int64_t count, std::int64_t element) {
  const std::int64_t unit = std::max<std::int64_t>(1, kAlignmentBytes / element);
  return (count + unit - 1) / unit * unit;
}

// Adds up the rows of `gathered` as a binary tree, destroying them.
void sum_rows_as_tree(const at::Tensor& gathered, at::Tensor& sum) {
  const std::int64_t rows = gathered.size(0);
  for (std::int64_t distance = 1; distance < rows; distance *= 2) {
    for (std::int64_t row = 0; row < rows; row += 2 * distance) {
      at::Tensor target = 2 * distance == rows ? sum : gathered[row];
      at::add_out(target, gathered[row], gathered[row + distance]);
    }
  }
}

}  // namespace

struct Reducer::State {
  enum class Phase { kBetweenSteps, kInStep };

  std::vector<at::Tensor> parameters;
  std::shared_ptr<Communicator> communicator;
  std::vector<at::Tensor> buckets;
  std::vector<GradientSlot> slots;
  std::vector<at::Tensor> views;          // by parameter
  std::vector<std::size_t> bucket_sizes;  // parameters in each bucket
  // The current step.
  Phase phase = Phase::kBetweenSteps;
  bool sync = true;
  std::vector<char> ready;           // by parameter
  std::vector<std::size_t> missing;  // by bucket: parameters that are not ready
  std::size_t next_bucket = 0;       // the first one not started
  struct Started {
    WorkPtr work;
    std::size_t bucket = 0;
    at::Tensor gathered;  // [ranks, elements of the bucket], still to be added up; undefined when the collective sums
  };
  std::deque<Started> started;
  std::exception_ptr error;
  // With fixed_tree: the sums of 1, 2, 4, ... micro-batches, by bucket. Bit i of `micro_batches` says whether sum i is
  // in use: adding a micro-batch carries as counting does.
  bool fixed_tree = false;
  std::vector<std::vector<at::Tensor>> partial_sums;
  std::size_t micro_batches = 0;
  double exposed_seconds = 0;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State();  // removes the hooks, also those of a constructor that failed half-way

  void make_buckets(const ReducerOptions& options);
  bool has_view(std::size_t index) const;
  void restore_view(std::size_t index);
  void add(std::size_t index);
  void start_full_buckets();
  void start_bucket();
  void end_micro_batch();
  void add_partial_sums(std::size_t bucket);
  void complete_oldest();
  void finish();
};

namespace {

// Calls `add` of the reducer as long as that exists.
template <class State>
class AddGradient final : public autograd::PostAccumulateGradHook {
 public:
  AddGradient(std::weak_ptr<State> state, std::size_t index) : state_(std::move(state)), index_(index) {}
  void operator()(const at::Tensor& /*parameter*/) override {
    const auto state = state_.lock();
    if (state == nullptr) return;
    try {
      state->add(index_);
    } catch (const std::exception&) {
      if (!state->error) state->error = std::current_exception();
      throw;
    }
  }

 private:
  std::weak_ptr<State> state_;
  std::size_t index_;
};

}  // namespace

Reducer::State::~State() {
  for (const at::Tensor& parameter : parameters) autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
}

void Reducer::State::make_buckets(const ReducerOptions& options) {
  DTRAIN_CHECK(options.first_bucket_bytes > 0 && options.bucket_bytes > 0, "bucket sizes must be positive");
  slots.resize(parameters.size());
  views.resize(parameters.size());
  std::vector<std::int64_t> lengths;
  std::vector<c10::ScalarType> types;
  for (std::size_t i = parameters.size(); i-- > 0;) {
    const at::Tensor& parameter = parameters[i];
    const auto element = static_cast<std::int64_t>(parameter.element_size());
    const std::int64_t limit =
        buckets.empty() && lengths.size() <= 1 ? options.first_bucket_bytes : options.bucket_bytes;
    const std::int64_t length = padded(parameter.numel(), element);
    // A bucket is closed by another type or when it is full; a parameter larger than a bucket gets one of its own size.
    if (lengths.empty() || types.back() != parameter.scalar_type() ||
        (lengths.back() > 0 && (lengths.back() + length) * element > limit)) {
      lengths.push_back(0);
      types.push_back(parameter.scalar_type());
      bucket_sizes.push_back(0);
    }
    slots[i] = {lengths.size() - 1, lengths.back(), parameter.numel()};
    lengths.back() += length;
    ++bucket_sizes.back();
  }
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    buckets.push_back(at::zeros({lengths[b]}, parameters.front().options().dtype(types[b]).requires_grad(false)));
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& parameter = parameters[i];
    const GradientSlot& slot = slots[i];
    const at::Tensor flat = buckets[slot.bucket].narrow(0, slot.offset, slot.count);
    // The layout of the parameter, so that the optimizer walks both in the same order.
    views[i] = parameter.is_non_overlapping_and_dense()
                   ? flat.as_strided(parameter.sizes(), parameter.strides(), flat.storage_offset())
                   : flat.view(parameter.sizes());
  }
}

bool Reducer::State::has_view(std::size_t index) const {
  const at::Tensor& gradient = parameters[index].grad();
  return gradient.defined() && gradient.is_alias_of(views[index]) &&
         gradient.storage_offset() == views[index].storage_offset() && gradient.strides() == views[index].strides();
}

void Reducer::State::restore_view(std::size_t index) {
  if (has_view(index)) return;
  const c10::NoGradGuard no_grad;
  const at::Tensor& gradient = parameters[index].grad();
  if (gradient.defined()) {
    views[index].copy_(gradient.is_sparse() ? gradient.to_dense() : gradient);
  } else {
    views[index].zero_();
  }
  parameters[index].mutable_grad() = views[index];
}

void Reducer::State::add(std::size_t index) {
  DTRAIN_CHECK(index < parameters.size(), "parameter {} of {}", index, parameters.size());
  DTRAIN_CHECK(phase == Phase::kInStep, "parameter {} received a gradient outside a step: call begin_step() first",
               index);
  restore_view(index);
  if (!sync) return;
  DTRAIN_CHECK(ready[index] == 0,
               "parameter {} received a second gradient in the same step: call set_sync(false) before all backward "
               "passes of a step but the last",
               index);
  ready[index] = 1;
  --missing[slots[index].bucket];
  start_full_buckets();
}

void Reducer::State::start_full_buckets() {
  while (next_bucket < buckets.size() && missing[next_bucket] == 0) start_bucket();
}

void Reducer::State::start_bucket() {
  const c10::NoGradGuard no_grad;
  const std::size_t b = next_bucket++;
  if (fixed_tree) add_partial_sums(b);
  const int ranks = communicator != nullptr ? communicator->size() : 1;
  if (ranks == 1) return;
  at::Tensor& bucket = buckets[b];
  // The sum of two has only one order.
  if (!fixed_tree || ranks == 2) {
    started.push_back({communicator->all_reduce_sum(bucket, fmt::format("bucket {}", b)), b, {}});
    return;
  }
  while (started.size() >= kGathersUnderWay) complete_oldest();
  const at::Tensor gathered = at::empty({ranks, bucket.numel()}, bucket.options());
  started.push_back({communicator->all_gather(gathered, bucket, fmt::format("bucket {}", b)), b, gathered});
}

// With a power of two of micro-batches all sums are in use when the last one comes.
void Reducer::State::add_partial_sums(std::size_t bucket) {
  for (std::size_t level = 0; level < partial_sums.size(); ++level) {
    if ((micro_batches >> level & 1U) != 0) buckets[bucket].add_(partial_sums[level][bucket]);
  }
}

void Reducer::State::end_micro_batch() {
  DTRAIN_CHECK(fixed_tree && phase == Phase::kInStep && !sync, "end_micro_batch() where no micro-batch can end");
  const c10::NoGradGuard no_grad;
  const auto level = static_cast<std::size_t>(std::countr_one(micro_batches));
  if (level == partial_sums.size()) {
    partial_sums.emplace_back();
    for (const at::Tensor& bucket : buckets) partial_sums.back().push_back(at::empty_like(bucket));
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) restore_view(i);
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    for (std::size_t below = 0; below < level; ++below) buckets[b].add_(partial_sums[below][b]);
    partial_sums[level][b].copy_(buckets[b]);
    buckets[b].zero_();
  }
  ++micro_batches;
}

void Reducer::State::complete_oldest() {
  Started& oldest = started.front();
  oldest.work->wait();
  if (oldest.gathered.defined()) {
    const c10::NoGradGuard no_grad;
    sum_rows_as_tree(oldest.gathered, buckets[oldest.bucket]);
  }
  started.pop_front();
}

void Reducer::State::finish() {
  DTRAIN_CHECK(phase == Phase::kInStep, "finish() without begin_step()");
  if (error) std::rethrow_exception(error);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (ready[i] == 0) restore_view(i);
  }
  while (next_bucket < buckets.size()) start_bucket();
  const Stopwatch watch;
  while (!started.empty()) complete_oldest();
  exposed_seconds = watch.seconds();
  // After a zero_grad behind the hook's back grad() would not show the sum.
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!has_view(i)) parameters[i].mutable_grad() = views[i];
  }
  phase = Phase::kBetweenSteps;
}

Reducer::Reducer(std::vector<at::Tensor> parameters, std::shared_ptr<Communicator> communicator, ReducerOptions options)
    : state_(std::make_shared<State>()) {
  State& s = *state_;
  DTRAIN_CHECK(!parameters.empty(), "a reducer without parameters");
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& parameter = parameters[i];
    DTRAIN_CHECK(parameter.defined() && parameter.is_leaf() && parameter.requires_grad(),
                 "parameter {} is no leaf that requires a gradient", i);
    DTRAIN_CHECK(parameter.device() == parameters.front().device(), "parameter {} is on {}, parameter 0 on {}", i,
                 parameter.device().str(), parameters.front().device().str());
    DTRAIN_CHECK(autograd::impl::post_acc_grad_hooks(parameter) == nullptr,
                 "parameter {} already belongs to a reducer, or was given twice", i);
    // Registered at once, so that a tensor given twice is noticed.
    autograd::impl::set_post_acc_grad_hooks(parameter, std::make_unique<AddGradient<State>>(state_, i));
    s.parameters.push_back(parameter);
  }
  s.communicator = std::move(communicator);
  s.fixed_tree = options.fixed_tree;
  DTRAIN_CHECK(
      !s.fixed_tree || s.communicator == nullptr || std::has_single_bit(static_cast<unsigned>(s.communicator->size())),
      "{} ranks cannot sum as a tree", s.communicator->size());
  s.make_buckets(options);
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < s.parameters.size(); ++i) s.parameters[i].mutable_grad() = s.views[i];
}

Reducer::~Reducer() = default;

void Reducer::begin_step() {
  State& s = *state_;
  DTRAIN_CHECK(s.started.empty() && (s.phase == State::Phase::kBetweenSteps || s.error),
               "begin_step() before finish() of the step before");
  s.error = nullptr;
  for (at::Tensor& bucket : s.buckets) bucket.zero_();
  for (std::size_t i = 0; i < s.parameters.size(); ++i) {
    if (!s.has_view(i)) s.parameters[i].mutable_grad() = s.views[i];
  }
  s.ready.assign(s.parameters.size(), 0);
  s.missing = s.bucket_sizes;
  s.next_bucket = 0;
  s.micro_batches = 0;
  s.phase = State::Phase::kInStep;
}

void Reducer::set_sync(bool sync) { state_->sync = sync; }
void Reducer::end_micro_batch() { state_->end_micro_batch(); }
void Reducer::add(std::size_t index) { state_->add(index); }
void Reducer::finish() { state_->finish(); }
const std::vector<at::Tensor>& Reducer::buckets() const { return state_->buckets; }
const std::vector<GradientSlot>& Reducer::slots() const { return state_->slots; }
double Reducer::exposed_seconds() const { return state_->exposed_seconds; }

}  // namespace dtrain
