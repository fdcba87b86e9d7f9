// Dataset: tokenised examples by index. Pure and thread-safe: get(i) has no hidden order and no state.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace dtrain {

// One tokenised example; the spans live as long as the data set.
struct Example {
  std::span<const std::int32_t> ids;
  // As doubles, which are exact for all of these: one class index; one regression value; one value per label
  // (multi-label); one class per token, -100 where a token has none; the ids of the text to be written. Empty: none.
  std::span<const double> labels;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  [[nodiscard]] virtual std::int64_t size() const = 0;
  [[nodiscard]] virtual Example get(std::int64_t index) const = 0;
  // Digest of content, tokenizer and options: equal digests mean equal examples.
  [[nodiscard]] virtual std::string digest() const = 0;
};

}  // namespace dtrain
