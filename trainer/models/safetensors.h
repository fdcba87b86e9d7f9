// safetensors: the Hub's format for weights. 8 bytes little-endian header length, JSON header, tensor bytes.
// Reading checks all that the reference implementation checks: header at most 100 MB and inside the file, known types,
// shape times size equal to the byte range, ranges without hole or overlap covering the file exactly. Damage is
// Error(kData) with path, tensor and reason; memory stays bounded by the file size. Values are little-endian.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  [[nodiscard]] const std::vector<std::string>& names() const;  // in order of offset
  [[nodiscard]] bool has(const std::string& name) const;
  // A CPU tensor over the mapped file: read-only by contract, alive as long as any such tensor lives.
  [[nodiscard]] at::Tensor tensor(const std::string& name) const;
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Writes contiguous CPU copies, sorted as the reference does (by alignment, then name), synced to disk.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace dtrain
