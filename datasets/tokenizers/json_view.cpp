#include "datasets/tokenizers/json_view.h"

#include <utility>

#include "core/file.h"
#include "core/json.h"

namespace dtrain {
namespace {

constexpr std::size_t kMaxFileBytes = 128U << 20;  // four times the largest tokenizer.json in use

template <class T>
T take(simdjson::simdjson_result<T> result, const JsonView& view, std::string_view wanted) {
  T value;
  if (std::move(result).get(value) != simdjson::SUCCESS) throw view.error(fmt::format("must be {}", wanted));
  return value;
}

}  // namespace

Error JsonView::error(const std::string& reason) const {
  return data_error(fmt::format("{}: {}", where_, reason),
                    "fetch the tokenizer's files anew, or name another tokenizer");
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  simdjson::dom::element member;
  if (object().at_key(key).get(member) != simdjson::SUCCESS || member.is_null()) return std::nullopt;
  // The path ends with a colon and a space before the first key.
  const bool first = where_.size() >= 2 && where_.substr(where_.size() - 2) == ": ";
  return JsonView(member, where_ + (first ? "" : ".") + std::string(key));
}

JsonView JsonView::at(std::string_view key) const {
  if (auto member = find(key)) return *std::move(member);
  throw error(fmt::format("\"{}\" is missing", key));
}

std::string_view JsonView::text() const { return take(element_.get_string(), *this, "a string"); }
bool JsonView::boolean() const { return take(element_.get_bool(), *this, "true or false"); }
std::int64_t JsonView::integer() const { return take(element_.get_int64(), *this, "an integer"); }
simdjson::dom::object JsonView::object() const { return take(element_.get_object(), *this, "an object"); }
simdjson::dom::array JsonView::list() const { return take(element_.get_array(), *this, "a list"); }

bool JsonView::boolean_or(std::string_view key, bool otherwise) const {
  const auto member = find(key);
  return member ? member->boolean() : otherwise;
}

JsonFile::JsonFile(const std::filesystem::path& path) : root_(parse(path, parser_)) {}

JsonView JsonFile::parse(const std::filesystem::path& path, simdjson::dom::parser& parser) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  if (text.size() > kMaxFileBytes) {
    throw data_error(fmt::format("{}: {} bytes are too many for a tokenizer's file (at most {})", path.string(),
                                 text.size(), kMaxFileBytes));
  }
  if (text.empty()) throw data_error(fmt::format("{}: empty", path.string()), "fetch the file anew");
  simdjson::dom::element root;
  if (const auto code = parser.parse(text.data(), text.size()).get(root); code != simdjson::SUCCESS) {
    // The slower parser says line and column. Where it sees no defect, the file holds an integer beyond 64 bits, as the
    // model_max_length that transformers writes for "no limit": written out again it is a floating-point number.
    const Json other = parse_json(text, path.string());
    if (const auto again = parser.parse(other.dump()).get(root); again != simdjson::SUCCESS) {
      throw data_error(fmt::format("{}: not valid JSON: {}", path.string(), simdjson::error_message(again)));
    }
  }
  JsonView view(root, path.string() + ": ");
  static_cast<void>(view.object());
  return view;
}

}  // namespace dtrain
