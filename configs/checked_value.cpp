// checked_value and toml_text: whether a value fits its setting, and how it is written.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "configs/metric_names.h"
#include "configs/setting.h"
#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::size_t kShownLength = 60;
constexpr double kLargestExact = 9007199254740992.0;  // 2^53

// The value as it would be written, cut to a length that fits a message.
std::string shown(const Json& value) {
  std::string text = toml_text(value);
  if (text.size() > kShownLength) {
    std::size_t end = kShownLength;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not inside a character
    text = text.substr(0, end) + "...";
  }
  return text;
}

std::string kind_of(const Json& value) {
  if (value.is_boolean()) return "a boolean";
  if (value.is_number_float()) return "a number with a fraction";
  if (value.is_number()) return "a whole number";
  if (value.is_string()) return "a string";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "a table";
  return "nothing";
}

// The number that a string spells, e.g. "3e-5".
std::optional<double> number_in(const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end || text.empty()) return std::nullopt;
  return number;
}

class Checker {
 public:
  Checker(const Setting& setting, const Json& given, const std::string& where)
      : setting_(setting), given_(given), where_(where) {}

  Json run() const {
    switch (setting_.type) {
      case SettingType::kBool:
        if (!given_.is_boolean()) fail_type();
        check_only();
        return given_;
      case SettingType::kInteger:
        return integer();
      case SettingType::kNumber:
        return number();
      case SettingType::kString:
        if (!given_.is_string()) fail_type();
        check_string(given_.get<std::string>());
        return given_;
      case SettingType::kStringList:
        return string_list();
      case SettingType::kTable:
        return table(given_);
      case SettingType::kTableList:
        return table_list();
    }
    return given_;
  }

 private:
  [[noreturn]] void fail(const std::string& reason, const std::string& hint = {}) const {
    throw usage_error(fmt::format("{}: {}: {}", where_, setting_.name(), reason), hint);
  }

  [[noreturn]] void fail_type() const {
    std::string hint;
    const bool wants_number = setting_.type == SettingType::kInteger || setting_.type == SettingType::kNumber;
    if (wants_number && given_.is_string() && number_in(given_.get<std::string>())) {
      hint = fmt::format("write it without quotes: {} = {}", setting_.key, given_.get<std::string>());
    } else if (setting_.type == SettingType::kBool && (given_ == "true" || given_ == "false")) {
      hint = fmt::format("write it without quotes: {} = {}", setting_.key, given_.get<std::string>());
    } else if (setting_.type == SettingType::kString && (given_.is_number() || given_.is_boolean())) {
      hint = fmt::format("write it in quotes: {} = \"{}\"", setting_.key, toml_text(given_));
    } else if (setting_.type == SettingType::kInteger && given_.is_number_float() &&
               given_.get<double>() == std::trunc(given_.get<double>()) && std::abs(given_.get<double>()) < 1e15) {
      hint = fmt::format("write it without a fraction: {} = {:.0f}", setting_.key, given_.get<double>());
    } else if (setting_.type == SettingType::kTableList) {
      hint = fmt::format("write [[{}]] above the keys of each table", setting_.name());
    } else if (setting_.type == SettingType::kStringList) {
      hint = fmt::format("write {} = [\"one\", \"two\"]", setting_.key);
    }
    const std::string_view article = setting_.type == SettingType::kBool ? "" : "a ";
    fail(fmt::format("needs {}{}, not {} ({})", article, describe_type(setting_), kind_of(given_), shown(given_)),
         hint);
  }

  void check_only() const {
    const Constraint& constraint = setting_.constraint;
    if (constraint.kind == Constraint::Kind::kOnly && given_ != constraint.only) {
      fail(fmt::format("{} is known to the Hugging Face Trainer, but dtrain supports only {}", shown(given_),
                       toml_text(constraint.only)),
           setting_.doc);
    }
  }

  void check_range(double value) const {
    const Constraint& constraint = setting_.constraint;
    if (constraint.kind == Constraint::Kind::kRange) {
      const bool too_low = value < constraint.low || (constraint.low_open && value == constraint.low);
      const bool too_high = value > constraint.high || (constraint.high_open && value == constraint.high);
      if (too_low || too_high) {
        fail(fmt::format("{} is out of range ({})", shown(given_), describe_constraint(constraint)));
      }
    } else if (constraint.kind == Constraint::Kind::kSteps) {
      if (value < 0 || value > kLargestExact || (value > 1 && value != std::trunc(value))) {
        fail(fmt::format("{} is out of range ({})", shown(given_), describe_constraint(constraint)));
      }
    }
  }

  Json integer() const {
    if (!given_.is_number_integer()) fail_type();
    if (given_.is_number_unsigned() && given_.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      fail(fmt::format("{} is out of range ({})", shown(given_), describe_constraint(setting_.constraint)));
    }
    check_range(given_.get<double>());
    return given_.get<std::int64_t>();
  }

  Json number() const {
    if (!given_.is_number()) fail_type();
    const double value = given_.get<double>();
    if (!std::isfinite(value)) fail(fmt::format("{} is not a finite number", shown(given_)));
    check_range(value);
    return value == 0 ? 0.0 : value;  // -0.0 would differ from 0 in text and digest
  }

  void check_string(const std::string& text) const {
    if (text.find('\0') != std::string::npos) fail("contains a NUL character");
    const Constraint& constraint = setting_.constraint;
    // An optional string is left out, not empty: no setting gives the empty string a meaning of its own.
    if (text.empty() && (constraint.kind == Constraint::Kind::kRequired || setting_.optional)) {
      fail("is empty", setting_.optional ? "leave the key out to keep the default" : "");
    }
    if (constraint.kind != Constraint::Kind::kOneOf) return;
    if (std::find(constraint.choices.begin(), constraint.choices.end(), text) != constraint.choices.end()) return;
    const auto& elsewhere = constraint.known_elsewhere;
    if (std::find(elsewhere.begin(), elsewhere.end(), text) != elsewhere.end()) {
      fail(fmt::format("{} is known to the Hugging Face Trainer, but not supported by dtrain", shown(text)),
           fmt::format("choose one of: {}", describe_constraint(constraint)));
    }
    const std::string nearest = nearest_name(text, constraint.choices);
    const std::string question = nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest);
    fail(fmt::format("{} is not a known choice", shown(text)),
         fmt::format("{}choose one of: {}", question, describe_constraint(constraint)));
  }

  void check_metric(const std::string& spec) const {
    const std::string name = spec.substr(0, spec.find(':'));
    const MetricName* metric = find_metric(name);
    if (metric == nullptr) return;  // a plugin's, or unknown: resolve() knows
    if (spec.size() == name.size()) return;
    if (metric->variants.empty()) fail(fmt::format("{} has no variants: write \"{}\"", shown(spec), name));
    const std::string variant = spec.substr(name.size() + 1);
    if (std::find(metric->variants.begin(), metric->variants.end(), variant) == metric->variants.end()) {
      fail(fmt::format("{} has an unknown variant", shown(spec)),
           fmt::format("known: {}", fmt::join(metric->variants, ", ")));
    }
  }

  Json string_list() const {
    const Json list = given_.is_string() ? Json::array({given_}) : given_;
    if (!list.is_array()) fail_type();
    std::set<std::string> seen;
    for (const Json& item : list) {
      if (!item.is_string()) {
        fail(fmt::format("needs a list of strings; {} is {}", shown(item), kind_of(item)));
      }
      const auto text = item.get<std::string>();
      if (text.empty()) fail("contains an empty string");
      check_string(text);
      const bool metrics = setting_.constraint.kind == Constraint::Kind::kMetricNames;
      if (metrics) check_metric(text);
      for (const std::string& name : metrics ? metric_result_names(text) : std::vector<std::string>{text}) {
        if (seen.insert(name).second) continue;
        if (metrics) {
          fail(fmt::format("{} is the second metric whose result would be named \"{}\"", shown(item), name));
        }
        fail(fmt::format("contains {} twice", shown(item)));
      }
    }
    return list;
  }

  // Tables hold extra arguments of other parts: names and plain values.
  Json table(const Json& given) const {
    Json object = given;
    if (given.is_string()) {  // the Trainer takes such tables as JSON text too
      object = Json::parse(given.get<std::string>(), nullptr, /*allow_exceptions=*/false);
      if (object.is_discarded()) {
        fail(fmt::format("{} is not JSON", shown(given)),
             fmt::format("write a table: {} = {{ name = 1 }}", setting_.key));
      }
    }
    if (!object.is_object()) fail_type();
    for (const auto& [name, value] : object.items()) {
      if (!value.is_boolean() && !value.is_number() && !value.is_string()) {
        fail(fmt::format("{} is {}; only numbers, strings, true and false are allowed in this table", name,
                         kind_of(value)));
      }
      if (value.is_number_float() && !std::isfinite(value.get<double>())) {
        fail(fmt::format("{} is not a finite number", name));
      }
      if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
        fail(fmt::format("{} is too large a whole number", name));
      }
    }
    return object;
  }

  Json table_list() const {
    if (!given_.is_array()) fail_type();
    Json list = Json::array();
    for (const Json& item : given_) {
      if (!item.is_object()) fail(fmt::format("needs a list of tables; {} is {}", shown(item), kind_of(item)));
      list.push_back(table(item));
    }
    return list;
  }

  const Setting& setting_;
  const Json& given_;
  const std::string& where_;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (byte < 0x20 || byte == 0x7F) {
          out += fmt::format("\\u{:04X}", byte);
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

bool is_bare_key(const std::string& key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

}  // namespace

std::string toml_text(const Json& value) {
  if (value.is_string()) return quoted(value.get<std::string>());
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (!std::isfinite(number)) return std::isnan(number) ? "nan" : (number < 0 ? "-inf" : "inf");
    std::string text = fmt::format("{}", number);  // the shortest text that reads back as the same number
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
  }
  if (value.is_array()) {
    std::vector<std::string> items;
    for (const Json& item : value) items.push_back(toml_text(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  if (value.is_object()) {
    std::vector<std::string> items;
    for (const auto& [key, item] : value.items()) {
      items.push_back(fmt::format("{} = {}", is_bare_key(key) ? key : quoted(key), toml_text(item)));
    }
    return items.empty() ? "{}" : fmt::format("{{ {} }}", fmt::join(items, ", "));
  }
  return value.is_null() ? "" : value.dump();
}

Json checked_value(const Setting& setting, const Json& value, const std::string& where) {
  return Checker(setting, value, where).run();
}

}  // namespace dtrain
