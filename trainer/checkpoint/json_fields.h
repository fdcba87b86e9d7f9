// Fields of the JSON files that dtrain reads back, with errors that name file and key.
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/json.h"

namespace dtrain {

template <class T>
struct JsonKind;
template <>
struct JsonKind<bool> {
  static constexpr const char* kName = "true or false";
  static bool fits(const Json& value) { return value.is_boolean(); }
};
template <>
struct JsonKind<std::int64_t> {
  static constexpr const char* kName = "a whole number";
  static bool fits(const Json& value) { return value.is_number_integer(); }
};
template <>
struct JsonKind<double> {
  static constexpr const char* kName = "a number";
  static bool fits(const Json& value) { return value.is_number(); }
};
template <>
struct JsonKind<std::string> {
  static constexpr const char* kName = "a string";
  static bool fits(const Json& value) { return value.is_string(); }
};

[[nodiscard]] inline Error field_error(const std::string& where, const std::string& key, const std::string& expected) {
  return data_error(fmt::format("{}: \"{}\" is not {}", where, key, expected),
                    "the file is damaged; use another checkpoint");
}

// Leaves `target` as it is when the key is missing or null.
template <class T>
void read_field(const Json& object, const std::string& key, const std::string& where, T& target) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return;
  if (!JsonKind<T>::fits(*found)) throw field_error(where, key, JsonKind<T>::kName);
  target = found->template get<T>();
}

template <class T>
void read_field(const Json& object, const std::string& key, const std::string& where, std::optional<T>& target) {
  T value{};
  const auto found = object.find(key);
  if (found == object.end()) return;
  target.reset();
  if (found->is_null()) return;
  read_field(object, key, where, value);
  target = value;
}

template <class T>
[[nodiscard]] Json json_or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace dtrain
