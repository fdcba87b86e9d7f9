// What the text metrics are made of. Texts are valid UTF-8.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/metrics/text_metric.h"

namespace dtrain {

// Python's str.split() and str.rstrip(): white space is Unicode's and the four separators U+001C to U+001F.
[[nodiscard]] std::vector<std::string_view> split_words(std::string_view text);
[[nodiscard]] std::string_view without_trailing_space(std::string_view text);

// `variant`: "" or what follows the colon in make_text_metric.
[[nodiscard]] std::unique_ptr<TextMetric> make_bleu(const std::string& variant);
// `name`: rouge1, rouge2, rougeL or rougeLsum.
[[nodiscard]] std::unique_ptr<TextMetric> make_rouge(const std::string& name);

}  // namespace dtrain
