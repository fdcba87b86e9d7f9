#include "trainer/report/html.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

const char* const kNotANumber = "not a number";

// "12345.5" as "12,345.5".
std::string grouped(std::string text) {
  const std::size_t start = text.starts_with('-') ? 1 : 0;
  std::size_t position = std::min(text.find('.'), text.size());
  while (position > start + 3) {
    position -= 3;
    text.insert(position, 1, ',');
  }
  return text;
}

// Decimals that a multiple of `step` needs.
int decimals_of(double step) {
  int decimals = 0;
  for (; decimals < 12 && std::abs(step - std::round(step)) > 1e-6 * step; ++decimals) step *= 10;
  return decimals;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : unicode::replace_invalid_utf8(text)) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool is_control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F;
        escaped += is_control ? "\xEF\xBF\xBD" : std::string(1, c);
      }
    }
  }
  return escaped;
}

std::string number_text(double value, int digits) {
  if (!std::isfinite(value)) return std::isnan(value) ? kNotANumber : value > 0 ? "infinite" : "-infinite";
  const double size = std::abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return fmt::format("{:.{}g}", value, digits);
  if (size >= std::pow(10, digits - 1)) return grouped(fmt::format("{:.0f}", value));
  return fmt::format("{:.{}g}", value, digits);
}

std::string count_text(double value) {
  return std::abs(value) < 1e15 ? grouped(fmt::format("{:.0f}", value)) : number_text(value);
}

std::string exact_text(double value) { return std::isfinite(value) ? fmt::format("{}", value) : number_text(value); }

std::string tick_text(double value, double step) {
  struct Unit {
    double size;
    const char* name;
  };
  constexpr std::array<Unit, 4> kUnits = {{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}};
  const double size = std::abs(value);
  if (size >= 1e15 || step >= 1e15) return fmt::format("{:.4g}", value);
  if (size < step * 1e-6) return "0";
  if (step < 1e-4) return fmt::format("{:.4g}", value);
  // All ticks of an axis have one unit where they can: that of the step.
  for (const Unit& unit : kUnits) {
    if (size >= 10 * unit.size || step >= unit.size) {
      const double scaled = step / unit.size;
      if (decimals_of(scaled) <= 2) return fmt::format("{:.{}f}{}", value / unit.size, decimals_of(scaled), unit.name);
    }
  }
  return fmt::format("{:.{}f}", value, decimals_of(step));
}

}  // namespace dtrain
