#include "dist/reducer.h"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

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

std::int64_t padded(std::int64_t count, std::int64_t element) {
  const std::int64_t unit = std::max<std::int64_t>(1, kAlignmentBytes / element);
  return (count + unit - 1) / unit * unit;
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
  std::vector<WorkPtr> works;
  std::exception_ptr error;
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
  if (communicator != nullptr && communicator->size() > 1) {
    works.push_back(communicator->all_reduce_sum(buckets[next_bucket], fmt::format("bucket {}", next_bucket)));
  }
  ++next_bucket;
}

void Reducer::State::finish() {
  DTRAIN_CHECK(phase == Phase::kInStep, "finish() without begin_step()");
  if (error) std::rethrow_exception(error);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (ready[i] == 0) restore_view(i);
  }
  while (next_bucket < buckets.size()) start_bucket();
  const Stopwatch watch;
  for (const WorkPtr& work : works) work->wait();
  works.clear();
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
  s.make_buckets(options);
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < s.parameters.size(); ++i) s.parameters[i].mutable_grad() = s.views[i];
}

Reducer::~Reducer() = default;

void Reducer::begin_step() {
  State& s = *state_;
  DTRAIN_CHECK(s.works.empty() && (s.phase == State::Phase::kBetweenSteps || s.error),
               "begin_step() before finish() of the step before");
  s.error = nullptr;
  for (at::Tensor& bucket : s.buckets) bucket.zero_();
  for (std::size_t i = 0; i < s.parameters.size(); ++i) {
    if (!s.has_view(i)) s.parameters[i].mutable_grad() = s.views[i];
  }
  s.ready.assign(s.parameters.size(), 0);
  s.missing = s.bucket_sizes;
  s.next_bucket = 0;
  s.phase = State::Phase::kInStep;
}

void Reducer::set_sync(bool sync) { state_->sync = sync; }
void Reducer::add(std::size_t index) { state_->add(index); }
void Reducer::finish() { state_->finish(); }
const std::vector<at::Tensor>& Reducer::buckets() const { return state_->buckets; }
const std::vector<GradientSlot>& Reducer::slots() const { return state_->slots; }
double Reducer::exposed_seconds() const { return state_->exposed_seconds; }

}  // namespace dtrain
