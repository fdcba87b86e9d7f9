// Text of a page: escaping, and numbers for people.
#pragma once

#include <string>
#include <string_view>

namespace dtrain {

// For text and for values of attributes in double quotes. Control characters and invalid UTF-8 become U+FFFD.
[[nodiscard]] std::string escape_html(std::string_view text);

// "0.6931", "1.2e-05", "12,345": at most `digits` significant ones, none of them useless. NaN: "not a number".
[[nodiscard]] std::string number_text(double value, int digits = 5);

// A whole number: "12,345".
[[nodiscard]] std::string count_text(double value);

// Without loss: reading it gives `value` again.
[[nodiscard]] std::string exact_text(double value);

// A tick of an axis: as many decimals as its neighbours at `step` need, and "12k" for 12,000.
[[nodiscard]] std::string tick_text(double value, double step);

}  // namespace dtrain
