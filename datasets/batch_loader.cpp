#include "datasets/batch_loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "datasets/lone_thread.h"

namespace dtrain {

struct BatchLoader::State {
  std::shared_ptr<const Dataset> dataset;
  std::shared_ptr<const Collator> collator;
  std::vector<MicroBatchPlan> plan;
  ShardOptions shard;
  std::int64_t accumulation_steps = 1;
  std::int64_t prefetch = 1;
  std::int64_t epoch = 0;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Batch> ready;     // guarded by mutex
  std::exception_ptr failure;  // guarded by mutex
  bool finished = false;       // guarded by mutex
  bool stopping = false;       // guarded by mutex
  std::thread worker;

  [[nodiscard]] Batch collate(std::int64_t number) const;
  void produce(std::int64_t first);
};

Batch BatchLoader::State::collate(std::int64_t number) const {
  const MicroBatchPlan& micro = plan[static_cast<std::size_t>(number)];
  std::vector<Example> examples;
  examples.reserve(micro.index.size());
  for (const std::int64_t index : micro.index) examples.push_back(dataset->get(index));
  Batch batch = collator->collate(examples, {.epoch = epoch, .index = micro.index});
  batch.example_index = micro.index;
  const std::int64_t first_slot = (number % accumulation_steps) * shard.world_size * shard.batch_size;
  for (std::size_t i = 0; i < micro.index.size(); ++i) {
    batch.slot.push_back(first_slot + micro.place[i]);
    batch.example_weight.push_back(micro.filler[i] ? 0.0F : 1.0F);
    if (micro.filler[i]) {
      batch.num_tokens -= static_cast<std::int64_t>(examples[i].ids.size());
    } else {
      batch.weight += static_cast<double>(batch.labels_of(i));
    }
  }
  return batch;
}

void BatchLoader::State::produce(std::int64_t first) {
  try {
    compute_alone();
    for (auto number = first; number < static_cast<std::int64_t>(plan.size()); ++number) {
      Batch batch = collate(number);
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return stopping || static_cast<std::int64_t>(ready.size()) < prefetch; });
      if (stopping) return;
      ready.push_back(std::move(batch));
      changed.notify_all();
    }
  } catch (const std::exception&) {
    const std::lock_guard lock(mutex);
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex);
  finished = true;
  changed.notify_all();
}

BatchLoader::BatchLoader(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const Collator> collator,
                         std::vector<MicroBatchPlan> plan, const ShardOptions& shard, std::int64_t accumulation_steps,
                         std::int64_t first, std::int64_t prefetch, std::int64_t epoch)
    : state_(std::make_unique<State>()) {
  DTRAIN_CHECK(accumulation_steps > 0 && first >= 0, "accumulation {}, first micro-batch {}", accumulation_steps,
               first);
  state_->dataset = std::move(dataset);
  state_->collator = std::move(collator);
  state_->plan = std::move(plan);
  state_->shard = shard;
  state_->accumulation_steps = accumulation_steps;
  state_->prefetch = std::max<std::int64_t>(1, prefetch);
  state_->epoch = epoch;
  state_->worker = std::thread([state = state_.get(), first] { state->produce(first); });
}

BatchLoader::~BatchLoader() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
  }
  state_->worker.join();
}

std::optional<Batch> BatchLoader::next() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->ready.empty() || state_->finished; });
  if (state_->ready.empty()) {
    if (state_->failure) std::rethrow_exception(state_->failure);
    return std::nullopt;
  }
  Batch batch = std::move(state_->ready.front());
  state_->ready.pop_front();
  state_->changed.notify_all();
  return batch;
}

}  // namespace dtrain
