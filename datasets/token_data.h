// load_token_data: from a path in the configuration to a tokenised data set, by way of the token store in the cache
// folder. Local, not collective: one rank per node calls it with may_build = true, then all ranks pass a barrier, then
// the others call it with may_build = false. The data set is immutable and thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/label_kind.h"
#include "datasets/readers/raw_dataset.h"
#include "datasets/tokenizers/tokenizer.h"

namespace dtrain {

// What becomes of the examples of a file.
enum class TokenForm : std::uint8_t {
  kText,    // one text, its label
  kWords,   // words with tags: the first token of a word has its label, the others have none
  kPairs,   // a text and, as labels, the ids of the text to be written from it
  kBlocks,  // all texts one after the other, cut into blocks of max_length ids; what is left at the end is dropped
};

// A part of a file's examples, shuffled with shuffle_seed: the same ones as `dataset.train_test_split(fraction,
// seed=shuffle_seed)` of the Hugging Face datasets library.
struct HeldOut {
  double fraction = 0;  // 0: no split, all examples
  bool rest = false;    // false: this part; true: the others
};

struct TokenDataOptions {
  ReaderOptions reader;  // path, format, columns, label kind, class names, num_labels, invalid_utf8

  // Take the first `samples` of the examples shuffled with `shuffle_seed`: the same ones as
  // `dataset.shuffle(seed=shuffle_seed).select(range(samples))` of the Hugging Face datasets library. Absent: all, in
  // file order.
  std::optional<std::int64_t> samples;
  std::uint64_t shuffle_seed = 42;
  HeldOut held_out;  // taken before `samples`

  TokenForm form = TokenForm::kText;
  std::int64_t max_length = 0;         // ids kept per example, special ids included; 0: all
  std::int64_t max_target_length = 0;  // the same of the text to be written
  bool keep_line_ends = false;         // kBlocks: a line end is part of its text
  bool skip_blank = false;             // kText: texts of nothing but white space are no examples
  std::filesystem::path cache_dir;     // `~` already expanded; created when missing
  int threads = 1;                     // that tokenise
};

// Called on the calling thread with the number of examples tokenised so far and in all; only while a store is built.
using TokenProgress = std::function<void(std::int64_t done, std::int64_t total)>;

// Opens the store for these options, or builds it when it is missing, stale or damaged (with one warning that says
// why). Throws what read_raw_dataset() throws; Error(kData) for a text without a single token, for fewer examples than
// asked for, and for a missing or damaged store when `may_build` is false; Error(kIo) when the cache folder cannot be
// written. `store`, when given, receives the path of the store.
[[nodiscard]] std::shared_ptr<const Dataset> load_token_data(const TokenDataOptions& options,
                                                             const Tokenizer& tokenizer, bool may_build,
                                                             const TokenProgress& progress = {},
                                                             std::filesystem::path* store = nullptr);

}  // namespace dtrain
