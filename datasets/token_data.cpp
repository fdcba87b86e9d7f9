#include "datasets/token_data.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
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
#include "datasets/collators/collator.h"
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
                   {"shuffle_seed", options.samples || options.held_out.fraction > 0 ? options.shuffle_seed : 0},
                   {"max_length", options.max_length}};
  if (!reader.has_labels) settings["has_labels"] = false;
  if (options.form != TokenForm::kText) {
    settings["form"] = static_cast<int>(options.form);
    settings["columns"] = {reader.words_column, reader.tags_column, reader.source_column, reader.target_column};
    settings["max_target_length"] = options.max_target_length;
    settings["keep_line_ends"] = options.keep_line_ends;
  }
  if (options.skip_blank) settings["skip_blank"] = true;
  if (options.held_out.fraction > 0) settings["held_out"] = {options.held_out.fraction, options.held_out.rest};
  return {source_digest(reader), tokenizer.digest(), settings.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

// "imdb-train-<digest>.h5": stores of other text, tokenizers or settings have other names and lie side by side.
fs::path store_path(const TokenDataOptions& options, const TokenOrigin& origin) {
  std::string name = options.reader.path.stem().string().substr(0, 40);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '_'; }, '_');
  return options.cache_dir / fmt::format("{}-{}.h5", name, origin.key());
}

bool is_blank(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char byte) { return std::isspace(byte) != 0; });
}

// The examples that are there to choose from.
std::vector<std::int64_t> all_examples(const RawDataset& raw, const TokenDataOptions& options) {
  std::vector<std::int64_t> all(raw.examples.size());
  std::iota(all.begin(), all.end(), std::int64_t{0});
  if (options.skip_blank) {
    std::erase_if(all, [&](std::int64_t i) { return is_blank(raw.examples[static_cast<std::size_t>(i)].text); });
  }
  if (options.held_out.fraction > 0) {
    const auto size = static_cast<std::int64_t>(all.size());
    const auto held = static_cast<std::int64_t>(std::ceil(options.held_out.fraction * static_cast<double>(size)));
    std::vector<std::int64_t> part;
    const std::vector<std::int64_t> order = numpy_permutation(size, options.shuffle_seed);
    for (std::int64_t i = 0; i < size; ++i) {
      const bool is_held = i < held;
      if (is_held != options.held_out.rest) {
        part.push_back(all[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
      }
    }
    all = std::move(part);
  }
  if (all.empty()) {
    throw data_error(fmt::format("{}: there are no examples{}", options.reader.path.string(),
                                 options.held_out.fraction > 0 ? " in this part of the split" : ""),
                     "texts of nothing but white space do not count");
  }
  return all;
}

std::vector<std::int64_t> chosen_examples(const RawDataset& raw, const TokenDataOptions& options) {
  std::vector<std::int64_t> all = all_examples(raw, options);
  if (!options.samples) return all;
  const auto size = static_cast<std::int64_t>(all.size());
  if (*options.samples > size) {
    throw data_error(fmt::format("{}: {} examples asked for, and there are {}", options.reader.path.string(),
                                 *options.samples, size),
                     "lower data.train_samples or data.eval_samples");
  }
  std::vector<std::int64_t> chosen = numpy_permutation(size, options.shuffle_seed);
  chosen.resize(static_cast<std::size_t>(*options.samples));
  for (std::int64_t& index : chosen) index = all[static_cast<std::size_t>(index)];
  return chosen;
}

// One example to ids and labels.
class ExampleEncoder {
 public:
  ExampleEncoder(const RawDataset& raw, const TokenDataOptions& options, const Tokenizer& tokenizer)
      : raw_(raw), options_(options), tokenizer_(tokenizer) {}

  // Appends to both.
  void encode(std::int64_t index, std::vector<std::int32_t>& ids, std::vector<double>& labels) const {
    const RawExample& example = raw_.examples[static_cast<std::size_t>(index)];
    const std::size_t before = ids.size();
    switch (options_.form) {
      case TokenForm::kText:
        tokenizer_.encode(example.text, {.max_length = options_.max_length}, ids);
        labels.insert(labels.end(), example.labels.begin(), example.labels.end());
        break;
      case TokenForm::kWords:
        encode_words(example, ids, labels);
        break;
      case TokenForm::kPairs: {
        tokenizer_.encode(example.text, {.max_length = options_.max_length}, ids);
        const std::vector<std::int32_t> target =
            tokenizer_.encode(example.target, {.max_length = options_.max_target_length});
        labels.insert(labels.end(), target.begin(), target.end());
        break;
      }
      case TokenForm::kBlocks:
        tokenizer_.encode(options_.keep_line_ends ? example.text + "\n" : example.text, {}, ids);
        return;  // an empty line is no fault
    }
    if (ids.size() == before) {
      throw data_error(fmt::format("{}: the text gives no token", raw_.location(index)),
                       "remove the example: its text is empty");
    }
  }

 private:
  void encode_words(const RawExample& example, std::vector<std::int32_t>& ids, std::vector<double>& labels) const {
    std::vector<std::int32_t> word;
    std::vector<std::int32_t> encoded;
    tokenizer_.encode_words(example.words, {.max_length = options_.max_length}, encoded, word);
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      const bool first = word[i] >= 0 && (i == 0 || word[i - 1] != word[i]);
      labels.push_back(first ? example.labels[static_cast<std::size_t>(word[i])] : kNoLabel);
    }
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  }

  const RawDataset& raw_;
  const TokenDataOptions& options_;
  const Tokenizer& tokenizer_;
};

// Ids and labels of one block of examples, and how many of both each example has.
struct EncodedBlock {
  std::vector<std::int32_t> ids;
  std::vector<double> labels;
  std::vector<std::int64_t> lengths;
  std::vector<std::int64_t> label_counts;
};

// Tokenises the chosen examples in blocks on several threads, while the calling thread reports the progress.
class ParallelEncoder {
 public:
  ParallelEncoder(std::vector<std::int64_t> chosen, const ExampleEncoder& encoder)
      : chosen_(std::move(chosen)), encoder_(encoder), blocks_((chosen_.size() + kBlock - 1) / kBlock) {}

  void run(int threads, const TokenProgress& progress) {
    const auto total = static_cast<std::int64_t>(chosen_.size());
    std::vector<std::jthread> workers;
    const StopOnExit stop{this};
    for (int i = 0; i < std::max(1, threads); ++i) {
      workers.emplace_back([this] { work(); });
    }
    std::unique_lock lock(mutex_);
    const auto finished = [this] { return finished_blocks_ == blocks_.size() || failure_; };
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
    table.offsets.push_back(0);
    table.label_offsets.push_back(0);
    for (const EncodedBlock& block : blocks_) {
      for (const std::int64_t length : block.lengths) table.offsets.push_back(table.offsets.back() + length);
      for (const std::int64_t count : block.label_counts) {
        table.label_offsets.push_back(table.label_offsets.back() + count);
      }
      table.ids.insert(table.ids.end(), block.ids.begin(), block.ids.end());
      table.labels.insert(table.labels.end(), block.labels.begin(), block.labels.end());
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
      encoder->next_block_ = encoder->blocks_.size();
    }
  };

  void work() {
    while (true) {
      std::size_t block = 0;
      {
        const std::lock_guard lock(mutex_);
        if (next_block_ >= blocks_.size()) return;
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
        next_block_ = blocks_.size();
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

  void encode_block(std::size_t number) {
    EncodedBlock& block = blocks_[number];
    const std::size_t end = std::min(chosen_.size(), (number + 1) * kBlock);
    for (std::size_t i = number * kBlock; i < end; ++i) {
      const std::size_t ids_before = block.ids.size();
      const std::size_t labels_before = block.labels.size();
      encoder_.encode(chosen_[i], block.ids, block.labels);
      block.lengths.push_back(static_cast<std::int64_t>(block.ids.size() - ids_before));
      block.label_counts.push_back(static_cast<std::int64_t>(block.labels.size() - labels_before));
    }
  }

  const std::vector<std::int64_t> chosen_;
  const ExampleEncoder& encoder_;
  std::vector<EncodedBlock> blocks_;  // each written by one worker

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::size_t next_block_ = 0;
  std::size_t finished_blocks_ = 0;
  std::int64_t done_ = 0;
  std::size_t failed_block_ = std::numeric_limits<std::size_t>::max();
  std::exception_ptr failure_;
};

// All texts as one, cut into blocks.
TokenTable cut_into_blocks(TokenTable table, const TokenDataOptions& options) {
  const std::int64_t length = options.max_length;
  const std::int64_t blocks = static_cast<std::int64_t>(table.ids.size()) / length;
  if (blocks == 0) {
    throw data_error(fmt::format("{}: its {} tokens do not fill one block of {}", options.reader.path.string(),
                                 table.ids.size(), length),
                     "lower tokenizer.max_length, or set data.line_by_line = true");
  }
  table.ids.resize(static_cast<std::size_t>(blocks * length));
  table.offsets.resize(static_cast<std::size_t>(blocks) + 1);
  for (std::int64_t i = 0; i <= blocks; ++i) table.offsets[static_cast<std::size_t>(i)] = i * length;
  table.label_offsets.assign(table.offsets.size(), 0);
  return table;
}

TokenTable tokenise(const TokenDataOptions& options, const TokenOrigin& origin, const Tokenizer& tokenizer,
                    const TokenProgress& progress) {
  const RawDataset raw = read_raw_dataset(options.reader);
  if (raw.source_digest != origin.source) {
    throw data_error(fmt::format("{} changed while it was read", options.reader.path.string()),
                     "start again when it is complete");
  }
  if (options.form == TokenForm::kWords && options.reader.class_names.empty() && !raw.class_names.empty()) {
    throw data_error(fmt::format("{}: tags are names, whose numbers are not known", options.reader.path.string()),
                     fmt::format("set data.labels = {}", Json(raw.class_names).dump()));
  }
  const ExampleEncoder example_encoder(raw, options, tokenizer);
  ParallelEncoder encoder(chosen_examples(raw, options), example_encoder);
  encoder.run(options.threads, progress);
  TokenTable table = encoder.table();
  return options.form == TokenForm::kBlocks ? cut_into_blocks(std::move(table), options) : table;
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
                                               bool may_build, const TokenProgress& progress, fs::path* store) {
  const TokenOrigin origin = origin_of(options, tokenizer);
  const fs::path path = store_path(options, origin);
  if (store != nullptr) *store = path;
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
