// The header of a safetensors file: parsed and checked without touching the tensor bytes. A pure function of the text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

namespace dtrain {

struct SafetensorsEntry {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  std::vector<std::int64_t> shape;
  std::size_t begin = 0;  // byte range relative to data_start
  std::size_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in order of offset
  std::map<std::string, std::string> metadata;
  std::size_t data_start = 0;
};

// `file` is the whole file; `path` starts the message of the Error(kData) that any defect throws.
[[nodiscard]] SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& path);

// "F32" and friends; throws Error(kData), which starts with `where`, for a type that LibTorch has no name for here.
[[nodiscard]] std::string safetensors_dtype_name(c10::ScalarType dtype, const std::string& where);

// Place in the reference implementation's order of types: it writes larger values first.
[[nodiscard]] int safetensors_dtype_rank(c10::ScalarType dtype);

}  // namespace dtrain
