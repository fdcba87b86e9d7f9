#include "datasets/tokenizers/vocabulary.h"

#include <limits>

#include "core/error.h"
#include "datasets/tokenizers/hash.h"

namespace dtrain {

std::size_t Vocabulary::slot_of(std::string_view token_text) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = hash_bytes(token_text) & mask;
  while (slots_[slot] >= 0 && *token(slots_[slot]) != token_text) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow() {
  std::vector<std::int32_t> old = std::move(slots_);
  slots_.assign(old.empty() ? 1024 : old.size() * 2, -1);
  for (const std::int32_t id : old) {
    if (id >= 0) slots_[slot_of(*token(id))] = id;
  }
}

Vocabulary::Added Vocabulary::add(std::string_view token_text, std::int32_t id) {
  DTRAIN_CHECK(id >= 0 && id <= kMaxId, "token id {} is out of range", id);
  DTRAIN_CHECK(bytes_.size() + token_text.size() <= std::numeric_limits<std::int32_t>::max(), "vocabulary above 2 GiB");
  if ((count_ + 1) * 2 > slots_.size()) grow();
  const std::size_t slot = slot_of(token_text);
  if (slots_[slot] >= 0) return Added::kTokenRepeats;
  if (token(id)) return Added::kIdRepeats;
  const auto index = static_cast<std::size_t>(id);
  if (places_.size() <= index) places_.resize(index + 1);
  places_[index] = {static_cast<std::uint32_t>(bytes_.size()), static_cast<std::int32_t>(token_text.size())};
  bytes_ += token_text;
  slots_[slot] = id;
  ++count_;
  return Added::kDone;
}

std::optional<std::int32_t> Vocabulary::find(std::string_view token_text) const {
  if (slots_.empty()) return std::nullopt;
  const std::int32_t id = slots_[slot_of(token_text)];
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::string_view> Vocabulary::token(std::int32_t id) const {
  const auto index = static_cast<std::size_t>(id);
  if (id < 0 || index >= places_.size() || places_[index].size < 0) return std::nullopt;
  return std::string_view(bytes_).substr(places_[index].offset, static_cast<std::size_t>(places_[index].size));
}

}  // namespace dtrain
