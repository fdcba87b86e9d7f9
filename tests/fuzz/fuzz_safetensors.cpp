// safetensors. The input is a file, or, when it starts with "{", a header up to the end of the line and then the bytes
// of tensors, so that the length in front of the header is right whatever the fuzzer changes.
#include <cstring>
#include <set>

#include <c10/core/ScalarType.h>

#include "core/file.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"
#include "trainer/models/safetensors.h"
#include "trainer/models/safetensors_header.h"

namespace dtrain {
namespace {

using fuzz::require;

std::string file_of(std::string_view input) {
  if (!input.starts_with('{')) return std::string(input);
  const std::size_t end = std::min(input.find('\n'), input.size());
  const std::uint64_t length = end;
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  file += input.substr(0, end);
  if (end < input.size()) file += input.substr(end + 1);
  return file;
}

// Ranges lie one after the other and fill the file.
void check_header(const SafetensorsHeader& header, std::size_t file_size) {
  std::size_t end = 0;
  std::set<std::string> names;
  for (const SafetensorsEntry& entry : header.entries) {
    require(entry.begin == end && entry.end >= entry.begin, "a hole or an overlap", entry.name);
    require(names.insert(entry.name).second, "a name twice", entry.name);
    require(entry.dtype != c10::ScalarType::Undefined, "a tensor without a type", entry.name);
    end = entry.end;
  }
  require(header.data_start + end == file_size, "bytes that belong to no tensor");
}

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// What was read is written, and read once more.
void check_file(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const std::string& name : file.names()) {
    require(file.has(name), "a name that is not there", name);
    tensors.emplace_back(name, file.tensor(name));
  }
  const std::filesystem::path copy_path = path.string() + ".copy";
  write_safetensors(copy_path, tensors, file.metadata());
  const SafetensorsFile copy(copy_path);
  require(copy.names().size() == tensors.size() && copy.metadata() == file.metadata(), "the copy differs");
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor again = copy.tensor(name);
    require(again.scalar_type() == tensor.scalar_type() && again.sizes() == tensor.sizes() &&
                bytes_of(again) == bytes_of(tensor),
            "a tensor of the copy differs", name);
  }
  const std::string other = "a name that no file has";
  require(file.has(other) || !fuzz::accepts([&] { static_cast<void>(file.tensor(other)); }), "a tensor from nowhere");
}

void check(std::string_view input) {
  const std::string bytes = file_of(input);
  const bool accepted =
      fuzz::accepts([&] { check_header(parse_safetensors_header(bytes, "x.safetensors"), bytes.size()); });
  const std::filesystem::path path = fuzz::fresh_folder() / "x.safetensors";
  test::write_file(path, bytes);
  require(fuzz::accepts([&] { check_file(path); }) == accepted, "header and file are judged differently");
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
