// Collators of tasks in which single tokens have labels. Each pads on the right, as the padding collator does, and
// gives "labels" and "targets" (datasets/batch.h) instead of a padded tensor with -100 where there is nothing to
// predict.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "datasets/collators/collator.h"

namespace dtrain {

struct TokenCollatorOptions {
  std::int32_t pad_id = 0;
  std::int64_t pad_to_multiple_of = 1;
};

// DataCollatorForTokenClassification: an example has one label per token, kNoLabel for tokens without.
[[nodiscard]] std::shared_ptr<const Collator> make_token_classification_collator(const TokenCollatorOptions& options);

// DataCollatorForLanguageModeling(mlm=False): each token is to be predicted from those before it. Unlike there, tokens
// that equal the padding token count when they are text: GPT-2 pads with its end-of-text token.
[[nodiscard]] std::shared_ptr<const Collator> make_causal_collator(const TokenCollatorOptions& options);

struct MaskingOptions {
  double probability = 0.15;    // of each token that is not special
  double mask_replace = 0.8;    // of the chosen: become the mask token,
  double random_replace = 0.1;  // or any token of the vocabulary; the others stay
  std::int32_t mask_id = 0;
  std::int64_t vocab_size = 0;            // that random tokens are drawn from, special ones included
  std::vector<std::int32_t> special_ids;  // never chosen
  std::uint64_t seed = 42;
};

// DataCollatorForLanguageModeling(mlm=True). The choices are a pure function of seed, epoch, index of the example and
// position (one Philox block each, core/random.h: its first three words decide whether a token is chosen, what becomes
// of it and which random token), so they do not depend on batches and ranks, and resuming needs no state. Evaluation
// masks the same tokens every time.
[[nodiscard]] std::shared_ptr<const Collator> make_masking_collator(const TokenCollatorOptions& options,
                                                                    MaskingOptions masking);

struct Seq2SeqOptions {
  TokenCollatorOptions common;
  std::int32_t decoder_start_id = 0;
};

// DataCollatorForSeq2Seq: `labels` of an example are the ids of the text to be written. The decoder reads them shifted
// by one, after decoder_start_id.
[[nodiscard]] std::shared_ptr<const Collator> make_seq2seq_collator(const Seq2SeqOptions& options);

}  // namespace dtrain
