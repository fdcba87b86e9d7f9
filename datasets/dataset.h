// Dataset: examples by index. Pure and thread-safe: get(i) has no hidden order and no state.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include <ATen/core/Tensor.h>

namespace dtrain {

// One example: a tokenised text, or what a data set of your own says. The spans live as long as the data set.
struct Example {
  std::span<const std::int32_t> ids;
  // As doubles, which are exact for all of these: one class index; one regression value; one value per label
  // (multi-label); one class per token, -100 where a token has none; the ids of the text to be written. Empty: none.
  std::span<const double> labels;
  // Anything else, by name, on the CPU: images, features, targets. The data sets of dtrain leave it empty.
  std::map<std::string, at::Tensor> tensors = {};
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  [[nodiscard]] virtual std::int64_t size() const = 0;
  [[nodiscard]] virtual Example get(std::int64_t index) const = 0;
  // Tokens of an example, or any measure of the work it is: ranks get even shares, and evaluation begins with the
  // longest. A data set whose get() is costly and whose examples are all alike returns a constant.
  [[nodiscard]] virtual std::int64_t length(std::int64_t index) const {
    return static_cast<std::int64_t>(get(index).ids.size());
  }
  // Digest of content, tokenizer and options: equal digests mean equal examples.
  [[nodiscard]] virtual std::string digest() const = 0;
};

}  // namespace dtrain
