#include "configs/toml_reader.h"

#include <algorithm>
#include <cctype>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "core/error.h"

// toml++ 3.3 trusts its own checks with assert, and hostile files break some of them: "[+" does. Compiled here from its
// headers, a broken check is an error like any other instead of an abort or, with NDEBUG, undefined behaviour.
namespace dtrain {
namespace {
struct BrokenCheck {};
void must_hold(bool check) {
  if (!check) throw BrokenCheck{};
}
}  // namespace
}  // namespace dtrain
#undef NDEBUG
#undef TOML_HEADER_ONLY
#undef TOML_SHARED_LIB
#define TOML_HEADER_ONLY 1
#define TOML_ASSERT(check) ::dtrain::must_hold(static_cast<bool>(check))
#include <toml++/toml.h>

namespace dtrain {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20U;
constexpr int kMaxKeyParts = 32;
constexpr int kMaxDepth = 8;

std::string position(const std::string& file, const toml::source_region& source) {
  return fmt::format("{}:{}:{}", file, source.begin.line, source.begin.column);
}

// toml++ 3.3 bounds the nesting of values but not the parts of a dotted key, each of which is a nested table that is
// destroyed recursively: a long enough "a.a.a.a" overflows the stack. Returns the byte offset of such a key. Dots are
// counted outside of strings and comments, in runs of the characters that a dotted key consists of.
std::optional<std::size_t> find_deep_key(std::string_view text) {
  int dots = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') {
      while (i < text.size() && text[i] != '\n') ++i;
      dots = 0;
    } else if (c == '"' || c == '\'') {
      const std::string_view triple = text.substr(i, 3);
      const bool multi_line = triple.size() == 3 && triple[1] == c && triple[2] == c;
      i += multi_line ? 3 : 1;
      while (i < text.size()) {
        if (c == '"' && text[i] == '\\') {
          i += 2;
          continue;
        }
        if (!multi_line && (text[i] == c || text[i] == '\n')) break;
        if (multi_line && text.substr(i, 3) == triple) {
          i += 2;
          for (int extra = 0; extra < 2 && i + 1 < text.size() && text[i + 1] == c; ++extra)
            ++i;  // quotes before the end
          break;
        }
        ++i;
      }
    } else if (c == '.') {
      if (++dots >= kMaxKeyParts) return i;
    } else if (c == '=' || c == ',' || c == '\n' || c == '[' || c == ']' || c == '{' || c == '}') {
      dots = 0;
    }
  }
  return std::nullopt;
}

// Where the first line stands that starts like a section but not with a name, the one check of toml++ known to break.
std::string bad_header_position(std::string_view text, const std::string& file) {
  std::size_t line_number = 1;
  for (std::size_t start = 0; start < text.size(); ++line_number) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = text.substr(start, end - start);
    const std::size_t bracket = line.find_first_not_of(" \t");
    if (bracket != std::string_view::npos && line[bracket] == '[') {
      const std::size_t name = line.find_first_not_of(" \t[", bracket);
      const bool is_name =
          name != std::string_view::npos && (std::isalnum(static_cast<unsigned char>(line[name])) != 0 ||
                                             std::string_view("_-\"']").find(line[name]) != std::string_view::npos);
      if (!is_name) return fmt::format("{}:{}:{}", file, line_number, bracket + 1);
    }
    start = end + 1;
  }
  return file;
}

// The value as Json, or the reason why it cannot be one.
struct Converted {
  Json value;
  std::string problem;
};

Converted convert(const toml::node& node, int depth) {
  if (depth > kMaxDepth) return {nullptr, "is nested too deeply"};
  if (const auto* value = node.as_boolean()) return {value->get(), ""};
  if (const auto* value = node.as_integer()) return {value->get(), ""};
  if (const auto* value = node.as_floating_point()) return {value->get(), ""};
  if (const auto* value = node.as_string()) return {value->get(), ""};
  if (const auto* array = node.as_array()) {
    Json list = Json::array();
    for (const auto& item : *array) {
      Converted converted = convert(item, depth + 1);
      if (!converted.problem.empty()) return converted;
      list.push_back(std::move(converted.value));
    }
    return {std::move(list), ""};
  }
  if (const auto* table = node.as_table()) {
    Json object = Json::object();
    for (const auto& [key, item] : *table) {
      Converted converted = convert(item, depth + 1);
      if (!converted.problem.empty()) return converted;
      object[std::string(key.str())] = std::move(converted.value);
    }
    return {std::move(object), ""};
  }
  return {nullptr, "is a date or time; no setting is one"};
}

struct Position {
  toml::source_index line = 0;
  toml::source_index column = 0;
  bool operator<(const Position& other) const { return std::tie(line, column) < std::tie(other.line, other.column); }
};

template <class T>
void sort_by_position(std::vector<std::pair<Position, T>>& items, std::vector<T>& out) {
  std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& item : items) out.push_back(std::move(item.second));
}

}  // namespace

RawSettings read_toml(std::string_view bytes, const std::string& file_name) {
  if (bytes.size() > kMaxBytes) {
    throw usage_error(fmt::format("{}: {} bytes are too many for a configuration file (at most {})", file_name,
                                  bytes.size(), kMaxBytes));
  }
  if (const auto offset = find_deep_key(bytes)) {
    const std::string_view before = bytes.substr(0, *offset);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    throw usage_error(
        fmt::format("{}:{}:{}: a key of more than {} parts", file_name, line, *offset - line_start + 1, kMaxKeyParts));
  }
  toml::table root;
  try {
    root = toml::parse(bytes);
  } catch (const toml::parse_error& error) {
    throw usage_error(fmt::format("{}: not TOML: {}", position(file_name, error.source()), error.description()),
                      "strings stand in quotes, sections in [brackets], and a key may be given once");
  } catch (const BrokenCheck&) {
    throw usage_error(fmt::format("{}: not TOML: a section without a name, or with characters that need quotes",
                                  bad_header_position(bytes, file_name)),
                      "write the name of a section in brackets: [training]");
  }

  std::vector<std::pair<Position, RawSection>> sections;
  std::vector<std::pair<Position, RawSetting>> settings;
  const auto add = [&](const std::string& section, const toml::key& key, const toml::node& node) {
    const toml::source_region& source = key.source();
    RawSetting raw{section, std::string(key.str()), nullptr, position(file_name, source)};
    Converted converted = convert(node, 0);
    if (!converted.problem.empty()) {
      const std::string name = section.empty() ? raw.key : section + "." + raw.key;
      throw usage_error(fmt::format("{}: {}: {}", raw.where, name, converted.problem));
    }
    raw.value = std::move(converted.value);
    settings.emplace_back(Position{source.begin.line, source.begin.column}, std::move(raw));
  };
  for (const auto& [key, node] : root) {
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      add("", key, node);
      continue;
    }
    const toml::source_region& source = key.source();
    sections.emplace_back(Position{source.begin.line, source.begin.column},
                          RawSection{std::string(key.str()), position(file_name, source)});
    for (const auto& [inner_key, inner_node] : *table) add(std::string(key.str()), inner_key, inner_node);
  }
  RawSettings result;
  sort_by_position(sections, result.sections);
  sort_by_position(settings, result.settings);
  return result;
}

std::optional<Json> parse_toml_value(std::string_view text) {
  // A comment would hide the rest of the text; inside of strings and lists it is left to the parser.
  if (text.empty() ||
      (text.find('#') != std::string_view::npos && std::string_view("\"'[{").find(text[0]) == std::string_view::npos)) {
    return std::nullopt;
  }
  const std::string document = "value = " + std::string(text);
  if (document.size() > kMaxBytes || find_deep_key(document)) return std::nullopt;
  try {
    const toml::table root = toml::parse(document);
    const toml::node* node = root.get("value");
    if (root.size() != 1 || node == nullptr) return std::nullopt;
    Converted converted = convert(*node, 0);
    if (!converted.problem.empty()) return std::nullopt;
    return std::move(converted.value);
  } catch (const toml::parse_error&) {
    return std::nullopt;
  } catch (const BrokenCheck&) {
    return std::nullopt;
  }
}

}  // namespace dtrain
