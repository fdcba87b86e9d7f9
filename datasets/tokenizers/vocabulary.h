// Vocabulary: tokens and their ids, both ways. Filled once, then const and thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain {

class Vocabulary {
 public:
  // No vocabulary in use comes near; the bound keeps a damaged id from asking for gigabytes.
  static constexpr std::int64_t kMaxId = 4'000'000;

  enum class Added { kDone, kTokenRepeats, kIdRepeats };
  // `id` in [0, kMaxId]. Adds nothing unless the answer is kDone.
  Added add(std::string_view token, std::int32_t id);

  [[nodiscard]] std::optional<std::int32_t> find(std::string_view token) const;
  [[nodiscard]] std::optional<std::string_view> token(std::int32_t id) const;
  [[nodiscard]] std::size_t size() const { return count_; }                                        // tokens
  [[nodiscard]] std::int32_t end_id() const { return static_cast<std::int32_t>(places_.size()); }  // largest id + 1

 private:
  struct Place {
    std::uint32_t offset = 0;
    std::int32_t size = -1;  // -1: no token has this id
  };
  [[nodiscard]] std::size_t slot_of(std::string_view token) const;
  void grow();

  std::string bytes_;
  std::vector<Place> places_;        // by id
  std::vector<std::int32_t> slots_;  // open addressing by hash of the token; -1 is empty
  std::size_t count_ = 0;
};

}  // namespace dtrain
