#include "trainer/models/safetensors.h"

#include <bit>
#include <cstring>
#include <limits>
#include <unordered_map>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/file.h"
#include "trainer/models/safetensors_header.h"

namespace dtrain {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian; so must the machine be");

struct SafetensorsFile::State {
  explicit State(const std::filesystem::path& path) : file(path) {}

  MappedFile file;
  SafetensorsHeader header;
  std::vector<std::string> names;
  std::unordered_map<std::string, std::size_t> entry_of;
};

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : state_(std::make_shared<State>(path)) {
  state_->header = parse_safetensors_header(state_->file.text(), path.string());
  for (const SafetensorsEntry& entry : state_->header.entries) {
    state_->entry_of.emplace(entry.name, state_->names.size());
    state_->names.push_back(entry.name);
  }
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::vector<std::string>& SafetensorsFile::names() const { return state_->names; }

bool SafetensorsFile::has(const std::string& name) const { return state_->entry_of.contains(name); }

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return state_->header.metadata; }

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = state_->entry_of.find(name);
  if (found == state_->entry_of.end()) {
    throw data_error(fmt::format("{}: there is no tensor {:?}", state_->file.path().string(), name));
  }
  const SafetensorsEntry& entry = state_->header.entries[found->second];
  const std::byte* data = state_->file.bytes().data() + state_->header.data_start + entry.begin;
  const std::size_t size = entry.end - entry.begin;
  const auto options = at::TensorOptions().dtype(entry.dtype);
  // Files that were not padded to eight bytes are legal but would give misaligned tensors; those are copied.
  if (size == 0 || reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(entry.dtype) != 0) {
    at::Tensor copy = at::empty(entry.shape, options);
    if (size != 0) std::memcpy(copy.data_ptr(), data, size);
    return copy;
  }
  // The deleter keeps the mapping alive. The const_cast is the price of at::from_blob; nobody writes (see the header).
  return at::from_blob(
      const_cast<std::byte*>(data), entry.shape, [state = state_](void*) {}, options);
}

}  // namespace dtrain
