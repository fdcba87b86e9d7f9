#include "datasets/token_data.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "datasets/numpy_permutation.h"
#include "datasets/token_store.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

TokenOrigin origin_of(const TokenDataOptions& options, const Tokenizer& tokenizer) {
  const ReaderOptions& reader = options.reader;
  Json settings = {{"format", static_cast<int>(reader.format)},
                   {"text", reader.text_column},
                   {"label", reader.label_column},
                   {"label_kind", static_cast<int>(reader.label_kind)},
                   {"labels", reader.class_names},
                   {"num_labels", reader.num_labels},
                   {"replace_invalid_utf8", reader.invalid_utf8 == InvalidUtf8::kReplace},
                   {"samples", options.samples.value_or(-1)},
                   {"shuffle_seed", options.samples ? options.shuffle_seed : 0},
                   {"max_length", options.max_length}};
  if (!reader.has_labels) settings["has_labels"] = false;
  return {source_digest(reader), tokenizer.digest(), settings.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

// "imdb-train-<digest>.h5": stores of other text, tokenizers or settings have other names and lie side by side.
fs::path store_path(const TokenDataOptions& options, const TokenOrigin& origin) {
  std::string name = options.reader.path.stem().string().substr(0, 40);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '_'; }, '_');
  return options.cache_dir / fmt::format("{}-{}.h5", name, origin.key());
}

std::vector<std::int64_t> chosen_examples(const RawDataset& raw, const TokenDataOptions& options) {
  const auto size = static_cast<std::int64_t>(raw.examples.size());
  if (!options.samples) {
    std::vector<std::int64_t> all(raw.examples.size());
    std::iota(all.begin(), all.end(), std::int64_t{0});
    return all;
  }
  if (*options.samples > size) {
    throw data_error(fmt::format("{}: {} examples asked for, and there are {}", options.reader.path.string(),
                                 *options.samples, size),
                     "lower data.train_samples or data.eval_samples");
  }
  std::vector<std::int64_t> chosen = numpy_permutation(size, options.shuffle_seed);
  chosen.resize(static_cast<std::size_t>(*options.samples));
  return chosen;
}

// Tokenises the chosen examples in blocks on several threads, while the calling thread reports the progress.
class ParallelEncoder {
 public:
  ParallelEncoder(const RawDataset& raw, std::vector<std::int64_t> chosen, const EncodeOptions& encode,
                  const Tokenizer& tokenizer)
      : raw_(raw),
        chosen_(std::move(chosen)),
        encode_(encode),
        tokenizer_(tokenizer),
        lengths_(chosen_.size()),
        block_ids_((chosen_.size() + kBlock - 1) / kBlock) {}

  void run(int threads, const TokenProgress& progress) {
    const auto total = static_cast<std::int64_t>(chosen_.size());
    std::vector<std::jthread> workers;
    const StopOnExit stop{this};
    for (int i = 0; i < std::max(1, threads); ++i) {
      workers.emplace_back([this] { work(); });
    }
    std::unique_lock lock(mutex_);
    const auto finished = [this] { return finished_blocks_ == block_ids_.size() || failure_; };
    while (!changed_.wait_for(lock, std::chrono::milliseconds(50), finished)) {
      const std::int64_t done = done_;
      lock.unlock();
      if (progress) progress(done, total);
      lock.lock();
    }
    lock.unlock();
    workers.clear();  // joins: a worker may still fail at an earlier example
    if (failure_) std::rethrow_exception(failure_);
    if (progress) progress(total, total);
  }

  [[nodiscard]] TokenTable table() const {
    TokenTable table;
    table.label_width = static_cast<std::int64_t>(raw_.examples[0].labels.size());
    table.offsets.reserve(chosen_.size() + 1);
    table.offsets.push_back(0);
    for (const std::int64_t length : lengths_) table.offsets.push_back(table.offsets.back() + length);
    table.ids.reserve(static_cast<std::size_t>(table.offsets.back()));
    for (const auto& ids : block_ids_) table.ids.insert(table.ids.end(), ids.begin(), ids.end());
    for (const std::int64_t index : chosen_) {
      const auto& labels = raw_.examples[static_cast<std::size_t>(index)].labels;
      table.labels.insert(table.labels.end(), labels.begin(), labels.end());
    }
    return table;
  }

 private:
  static constexpr std::size_t kBlock = 64;

  // Without it an exception in the progress callback would wait until everything is tokenised.
  struct StopOnExit {
    ParallelEncoder* encoder;
    ~StopOnExit() {
      const std::lock_guard lock(encoder->mutex_);
      encoder->next_block_ = encoder->block_ids_.size();
    }
  };

  void work() {
    while (true) {
      std::size_t block = 0;
      {
        const std::lock_guard lock(mutex_);
        if (next_block_ >= block_ids_.size()) return;
        block = next_block_++;
      }
      std::exception_ptr failure;
      try {
        encode_block(block);
      } catch (const std::exception&) {
        failure = std::current_exception();
      }
      const std::lock_guard lock(mutex_);
      if (failure) {
        next_block_ = block_ids_.size();
        // Blocks are handed out in order, so the earliest failure is found whatever the threads do.
        if (block < failed_block_) {
          failed_block_ = block;
          failure_ = failure;
        }
      } else {
        ++finished_blocks_;
        done_ += static_cast<std::int64_t>(std::min(chosen_.size(), (block + 1) * kBlock) - block * kBlock);
      }
      changed_.notify_all();
    }
  }

  void encode_block(std::size_t block) {
    std::vector<std::int32_t>& ids = block_ids_[block];
    const std::size_t end = std::min(chosen_.size(), (block + 1) * kBlock);
    for (std::size_t i = block * kBlock; i < end; ++i) {
      const std::size_t before = ids.size();
      tokenizer_.encode(raw_.examples[static_cast<std::size_t>(chosen_[i])].text, encode_, ids);
      lengths_[i] = static_cast<std::int64_t>(ids.size() - before);
      if (lengths_[i] == 0) {
        throw data_error(fmt::format("{}: the text gives no token", raw_.location(chosen_[i])),
                         "remove the example: its text is empty");
      }
    }
  }

  const RawDataset& raw_;
  const std::vector<std::int64_t> chosen_;
  const EncodeOptions encode_;
  const Tokenizer& tokenizer_;
  std::vector<std::int64_t> lengths_;                 // each written by one worker
  std::vector<std::vector<std::int32_t>> block_ids_;  // likewise

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::size_t next_block_ = 0;
  std::size_t finished_blocks_ = 0;
  std::int64_t done_ = 0;
  std::size_t failed_block_ = std::numeric_limits<std::size_t>::max();
  std::exception_ptr failure_;
};

TokenTable tokenise(const TokenDataOptions& options, const TokenOrigin& origin, const Tokenizer& tokenizer,
                    const TokenProgress& progress) {
  const RawDataset raw = read_raw_dataset(options.reader);
  if (raw.source_digest != origin.source) {
    throw data_error(fmt::format("{} changed while it was read", options.reader.path.string()),
                     "start again when it is complete");
  }
  ParallelEncoder encoder(raw, chosen_examples(raw, options),
                          {.max_length = options.max_length, .add_special_tokens = true}, tokenizer);
  encoder.run(options.threads, progress);
  return encoder.table();
}

// The store when it is there and intact; otherwise `reason` says why not, and is empty when there simply is none.
std::shared_ptr<const Dataset> try_open(const fs::path& path, const TokenOrigin& origin, std::string& reason) {
  reason.clear();
  std::error_code code;
  if (!fs::exists(path, code)) return nullptr;
  try {
    return open_token_store(path, origin);
  } catch (const Error& error) {
    reason = error.what();
    return nullptr;
  }
}

// Waits until no other process of this node builds the store of `path`. Nothing where the file system has no locks:
// stores are published by rename, so that two builders only do the work twice.
std::unique_ptr<FileLock> wait_for_lock(const fs::path& path) {
  const fs::path lock_path = path.parent_path() / fmt::format(".{}.lock", path.filename().string());
  bool told = false;
  while (true) {
    try {
      auto lock = std::make_unique<FileLock>(lock_path);
      if (lock->held()) return lock;
    } catch (const Error& error) {
      log::warning("token store {} is built without a lock: {}", path.string(), error.what());
      return nullptr;
    }
    if (!told) log::info("waiting for another process that builds the token store {}", path.string());
    told = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace

std::shared_ptr<const Dataset> load_token_data(const TokenDataOptions& options, const Tokenizer& tokenizer,
                                               bool may_build, const TokenProgress& progress) {
  const TokenOrigin origin = origin_of(options, tokenizer);
  const fs::path path = store_path(options, origin);
  std::string reason;
  if (auto dataset = try_open(path, origin, reason)) return dataset;
  if (!may_build) {
    throw data_error(
        fmt::format("token store {}: {}", path.string(), reason.empty() ? "it is missing" : reason),
        "the first rank of each node builds it: data.cache_dir must be the same folder for all ranks of a node");
  }
  std::error_code code;
  fs::create_directories(options.cache_dir, code);
  if (code)
    throw system_error(fmt::format("cannot make the folder {} (data.cache_dir)", options.cache_dir.string()),
                       code.value());

  const std::unique_ptr<FileLock> lock = wait_for_lock(path);
  // Who waited finds the store of the other.
  if (auto dataset = try_open(path, origin, reason)) return dataset;
  if (!reason.empty()) log::warning("token store {} is built anew: {}", path.string(), reason);
  if (lock) remove_stale_writes(path);
  write_token_store(path, origin, tokenise(options, origin, tokenizer, progress));
  return open_token_store(path, origin);
}

}  // namespace dtrain
