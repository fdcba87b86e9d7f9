// Digests: 128-bit XXH3 (library xxHash) for equality between ranks, stores and files. It detects damage and
// difference; it is not meant to resist an attacker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace dtrain {

// 32 lower-case hexadecimal digits.
[[nodiscard]] std::string digest_of(std::string_view bytes);
[[nodiscard]] std::string digest_of(std::span<const std::byte> bytes);
[[nodiscard]] std::string digest_of_file(const std::filesystem::path& path);

// For data that arrives in pieces. Not thread-safe.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  Digest& add(std::string_view bytes);
  Digest& add(std::span<const std::byte> bytes);
  [[nodiscard]] std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain
