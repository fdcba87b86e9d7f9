#include "trainer/checkpoint_saver.h"

#include <chrono>
#include <exception>
#include <memory>
#include <system_error>
#include <utility>

#include "core/log.h"
#include "datasets/lone_thread.h"
#include "trainer/checkpoint/json_fields.h"
#include "trainer/first_rank.h"

namespace dtrain {
namespace fs = std::filesystem;

RunRecord run_record(const CheckpointStore& store, const TrainerState& state) {
  RunRecord record;
  record.step = state.global_step;
  if (const std::vector<Checkpoint> published = store.list(); !published.empty()) {
    record.checkpoint = published.back().folder.filename().string();
  }
  record.best_step = state.best_global_step;
  record.best_metric = state.best_metric;
  record.best_checkpoint = state.best_model_checkpoint;
  return record;
}

CheckpointSaver::CheckpointSaver(const CheckpointStore& store, HostComm& host, SaverOptions options)
    : store_(store), host_(host), options_(std::move(options)) {}

CheckpointSaver::~CheckpointSaver() {
  if (!outcome_.valid()) return;
  const Outcome outcome = outcome_.get();
  if (outcome.failure) log::warning("checkpoint of step {}: {}", *pending_step_, outcome.failure->what());
}

CheckpointSaver::Outcome CheckpointSaver::write(std::int64_t step, CheckpointSnapshot snapshot) const {
  Outcome outcome;
  const std::optional<std::int64_t> best = snapshot.state.best_global_step;
  try {
    std::error_code ignored;
    if (best && (*best == step || fs::exists(store_.folder_of(*best), ignored))) {
      outcome.best = store_.folder_of(*best).string();
      snapshot.state.best_model_checkpoint = outcome.best;
    }
    Json facts = snapshot.facts;
    facts["best_step"] = json_or_null(best);
    store_.publish({.step = step,
                    .bytes = snapshot.bytes(),
                    .config_digest = options_.config_digest,
                    .facts = std::move(facts),
                    .write = [&](const fs::path& stage) { snapshot.write(stage); }});
    store_.prune(best, options_.save_total_limit);
    update_run_record(store_.output_dir(), run_record(store_, snapshot.state));
  } catch (const Error& error) {
    outcome.failure = error;
  } catch (const fs::filesystem_error& error) {
    outcome.failure = system_error(error.what(), error.code().value());
  } catch (const std::exception& error) {
    outcome.failure = Error(ExitCode::kInternal, fmt::format("checkpoint of step {}: {}", step, error.what()));
  }
  return outcome;
}

void CheckpointSaver::save(std::int64_t step, const std::function<CheckpointSnapshot()>& snapshot) {
  DTRAIN_CHECK(!pending(), "a save of step {} while that of step {} is pending", step, *pending_step_);
  pending_step_ = step;
  if (host_.rank() != 0) return;
  const auto taken = std::make_shared<CheckpointSnapshot>(snapshot());
  const auto write_taken = [this, step, taken] { return write(step, std::move(*taken)); };
  if (options_.in_background) {
    taken->copy_to_host();
    try {
      outcome_ = std::async(std::launch::async, [write_taken] {
        compute_alone();
        return write_taken();
      });
      return;
    } catch (const std::system_error& error) {
      log::warning("no thread for the checkpoint of step {} ({}): the step waits for it", step, error.code().message());
    }
  }
  outcome_ = std::async(std::launch::deferred, write_taken);
}

std::optional<PublishedCheckpoint> CheckpointSaver::settle(double patience) {
  if (!pending()) return std::nullopt;
  const std::int64_t step = *std::exchange(pending_step_, std::nullopt);
  // '.': not done; '!': failed, with a warning; '+': published.
  const std::string said = on_first_rank(host_, "checkpoint published", [&] {
    if (patience < kUntilDone && options_.in_background &&
        outcome_.wait_for(std::chrono::duration<double>(patience)) == std::future_status::timeout) {
      return std::string(".");
    }
    const Outcome outcome = outcome_.get();
    if (!outcome.failure) return "+" + outcome.best;
    if (!options_.warn_on_failure || outcome.failure->code() != ExitCode::kIo) throw Error(*outcome.failure);
    log::warning("the checkpoint of step {} is not published: {}; the training goes on (reliability.save_error)", step,
                 outcome.failure->what());
    return std::string("!");
  });
  if (said == ".") pending_step_ = step;
  if (!said.starts_with('+')) return std::nullopt;
  return PublishedCheckpoint{.step = step, .folder = store_.folder_of(step), .best = said.substr(1)};
}

void CheckpointSaver::skip(std::int64_t step) {
  ++skipped_;
  if (host_.rank() != 0) return;
  log::warning("step {}: no checkpoint, since that of step {} is still being written ({} so far)", step, *pending_step_,
               skipped_);
}

}  // namespace dtrain
