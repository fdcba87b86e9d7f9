#include "datasets/collators/token_collator.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "core/random.h"
#include "datasets/collators/padded_inputs.h"

namespace dtrain {
namespace {

Batch inputs_of(std::span<const Example> examples, const TokenCollatorOptions& options) {
  return padded_inputs(examples, options.pad_id, options.pad_to_multiple_of);
}

std::int64_t length_of(const Batch& batch) { return batch["input_ids"].size(1); }

class TokenClassificationCollator final : public Collator {
 public:
  explicit TokenClassificationCollator(const TokenCollatorOptions& options) : options_(options) {}

  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& /*key*/) const override {
    Batch batch = inputs_of(examples, options_);
    Targets targets(length_of(batch));
    for (const Example& example : examples) {
      DTRAIN_CHECK(example.labels.size() == example.ids.size(), "{} labels for {} tokens", example.labels.size(),
                   example.ids.size());
      for (std::size_t i = 0; i < example.labels.size(); ++i) {
        const auto label = static_cast<std::int64_t>(example.labels[i]);
        if (label != kNoLabel) targets.add(static_cast<std::int64_t>(i), label);
      }
      targets.end_example();
    }
    targets.store(batch);
    return batch;
  }

 private:
  TokenCollatorOptions options_;
};

class CausalCollator final : public Collator {
 public:
  explicit CausalCollator(const TokenCollatorOptions& options) : options_(options) {}

  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& /*key*/) const override {
    Batch batch = inputs_of(examples, options_);
    Targets targets(length_of(batch));
    for (const Example& example : examples) {
      for (std::size_t i = 1; i < example.ids.size(); ++i) {
        targets.add(static_cast<std::int64_t>(i) - 1, example.ids[i]);
      }
      targets.end_example();
    }
    targets.store(batch);
    return batch;
  }

 private:
  TokenCollatorOptions options_;
};

class MaskingCollator final : public Collator {
 public:
  MaskingCollator(const TokenCollatorOptions& options, MaskingOptions masking)
      : options_(options), masking_(std::move(masking)) {
    std::sort(masking_.special_ids.begin(), masking_.special_ids.end());
    DTRAIN_CHECK(masking_.vocab_size > 0, "random tokens of a vocabulary of {}", masking_.vocab_size);
  }

  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& key) const override {
    Batch batch = inputs_of(examples, options_);
    const std::int64_t length = length_of(batch);
    Targets targets(length);
    auto* row = batch.tensors["input_ids"].mutable_data_ptr<std::int64_t>();
    const PhiloxKey draws = RandomKey{masking_.seed, static_cast<std::uint64_t>(key.epoch + 1)}.philox();
    for (std::size_t e = 0; e < examples.size(); ++e, row += length) {
      const auto index = static_cast<std::uint64_t>(e < key.index.size() ? key.index[e] : static_cast<std::int64_t>(e));
      for (std::size_t i = 0; i < examples[e].ids.size(); ++i) {
        const std::int32_t id = examples[e].ids[i];
        if (std::binary_search(masking_.special_ids.begin(), masking_.special_ids.end(), id)) continue;
        const PhiloxCounter words =
            philox4x32({static_cast<std::uint32_t>(i), kMaskingDraws, static_cast<std::uint32_t>(index),
                        static_cast<std::uint32_t>(index >> 32)},
                       draws);
        if (share(words[0]) >= masking_.probability) continue;
        targets.add(static_cast<std::int64_t>(i), id);
        const double fate = share(words[1]);
        if (fate < masking_.mask_replace) {
          row[i] = masking_.mask_id;
        } else if (fate < masking_.mask_replace + masking_.random_replace) {
          row[i] = static_cast<std::int64_t>((words[2] * static_cast<std::uint64_t>(masking_.vocab_size)) >> 32);
        }
      }
      targets.end_example();
    }
    targets.store(batch);
    return batch;
  }

 private:
  // Tells these draws from those of dropout, whose counters have other forms.
  static constexpr std::uint32_t kMaskingDraws = 0x6D61736B;

  static double share(std::uint32_t word) { return static_cast<double>(word) / 4294967296.0; }

  TokenCollatorOptions options_;
  MaskingOptions masking_;
};

class Seq2SeqCollator final : public Collator {
 public:
  explicit Seq2SeqCollator(const Seq2SeqOptions& options) : options_(options) {}

  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& /*key*/) const override {
    Batch batch = inputs_of(examples, options_.common);
    std::size_t longest = 1;
    for (const Example& example : examples) longest = std::max(longest, example.labels.size());
    const std::int64_t multiple = options_.common.pad_to_multiple_of;
    const std::int64_t length = (static_cast<std::int64_t>(longest) + multiple - 1) / multiple * multiple;
    at::Tensor ids = at::full({batch.size, length}, options_.common.pad_id, at::kLong);
    at::Tensor mask = at::zeros({batch.size, length}, at::kLong);
    auto* id_row = ids.mutable_data_ptr<std::int64_t>();
    auto* mask_row = mask.mutable_data_ptr<std::int64_t>();
    Targets targets(length);
    for (const Example& example : examples) {
      std::int64_t previous = options_.decoder_start_id;
      for (std::size_t i = 0; i < example.labels.size(); ++i) {
        id_row[i] = previous;
        mask_row[i] = 1;
        previous = static_cast<std::int64_t>(example.labels[i]);
        targets.add(static_cast<std::int64_t>(i), previous);
      }
      targets.end_example();
      id_row += length;
      mask_row += length;
    }
    batch.tensors["decoder_input_ids"] = std::move(ids);
    batch.tensors["decoder_attention_mask"] = std::move(mask);
    targets.store(batch);
    return batch;
  }

 private:
  Seq2SeqOptions options_;
};

}  // namespace

std::shared_ptr<const Collator> make_token_classification_collator(const TokenCollatorOptions& options) {
  return std::make_shared<TokenClassificationCollator>(options);
}

std::shared_ptr<const Collator> make_causal_collator(const TokenCollatorOptions& options) {
  return std::make_shared<CausalCollator>(options);
}

std::shared_ptr<const Collator> make_masking_collator(const TokenCollatorOptions& options, MaskingOptions masking) {
  return std::make_shared<MaskingCollator>(options, std::move(masking));
}

std::shared_ptr<const Collator> make_seq2seq_collator(const Seq2SeqOptions& options) {
  return std::make_shared<Seq2SeqCollator>(options);
}

}  // namespace dtrain
