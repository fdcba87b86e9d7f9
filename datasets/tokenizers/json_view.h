// JsonView: read-only access to a large JSON file through simdjson, with errors that name file and key. The files of
// tokenizers hold a hundred thousand entries, and a repeated key in them is damage, which a map of keys would hide.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <simdjson.h>

#include "core/error.h"

namespace dtrain {

// A value inside a JsonFile, which must outlive it. `where` reads "path: key.key".
class JsonView {
 public:
  JsonView(simdjson::dom::element element, std::string where) : element_(element), where_(std::move(where)) {}

  [[nodiscard]] const std::string& where() const { return where_; }
  // data_error "<where>: <reason>".
  [[nodiscard]] Error error(const std::string& reason) const;
  [[nodiscard]] bool is_null() const { return element_.is_null(); }
  [[nodiscard]] bool is_text() const { return element_.is_string(); }
  [[nodiscard]] bool is_object() const { return element_.is_object(); }
  [[nodiscard]] bool is_list() const { return element_.is_array(); }

  // The member of an object; absent when there is none or it is null.
  [[nodiscard]] std::optional<JsonView> find(std::string_view key) const;
  // The member, which must be there and not null.
  [[nodiscard]] JsonView at(std::string_view key) const;

  [[nodiscard]] std::string_view text() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] std::int64_t integer() const;
  [[nodiscard]] simdjson::dom::object object() const;
  [[nodiscard]] simdjson::dom::array list() const;

  [[nodiscard]] bool boolean_or(std::string_view key, bool otherwise) const;

 private:
  simdjson::dom::element element_;
  std::string where_;
};

class JsonFile {
 public:
  // Throws Error(kIo) or Error(kData). Memory is about ten times the file, whose size is limited.
  explicit JsonFile(const std::filesystem::path& path);
  [[nodiscard]] const JsonView& root() const { return root_; }

 private:
  static JsonView parse(const std::filesystem::path& path, simdjson::dom::parser& parser);

  simdjson::dom::parser parser_;
  JsonView root_;
};

}  // namespace dtrain
