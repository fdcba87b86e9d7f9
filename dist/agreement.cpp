#include "dist/agreement.h"

#include <map>
#include <optional>
#include <set>

#include <fmt/ranges.h>

#include "core/digest.h"

namespace dtrain {
namespace {

constexpr std::size_t kLongestValue = 80;

std::string shortened(const std::string& value) {
  if (value.size() <= kLongestValue) return value;
  return fmt::format("{}... ({} bytes, digest {})", value.substr(0, kLongestValue), value.size(), digest_of(value));
}

std::string ranks_text(const std::vector<std::size_t>& ranks) {
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
}

}  // namespace

void agree(HostComm& host, std::string_view what, const std::vector<AgreementItem>& items) {
  Digest digest;
  for (const AgreementItem& item : items) {
    // Lengths keep ("ab", "c") apart from ("a", "bc").
    digest.add(fmt::format("{}:{}:", item.name.size(), item.value.size())).add(item.name).add(item.value);
  }
  const auto digests = host.all_gather(what, digest.hex());
  if (std::set<std::string>(digests.begin(), digests.end()).size() == 1) return;

  // Values may be any bytes: they travel with their lengths, not as text.
  std::string mine;
  for (const AgreementItem& item : items) {
    mine += fmt::format("{} {} ", item.name.size(), item.value.size());
    mine += item.name;
    mine += item.value;
  }
  const auto rows = host.all_gather(what, mine);
  std::map<std::string, std::vector<std::optional<std::string>>> values;  // by name, then by rank
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::string& row = rows[r];
    for (std::size_t at = 0; at < row.size();) {
      std::size_t used = 0;
      const std::size_t name_size = std::stoul(row.substr(at, 24), &used);
      at += used + 1;
      const std::size_t value_size = std::stoul(row.substr(at, 24), &used);
      at += used + 1;
      auto& by_rank = values[row.substr(at, name_size)];
      by_rank.resize(rows.size());
      by_rank[r] = row.substr(at + name_size, value_size);
      at += name_size + value_size;
    }
  }
  std::vector<std::string> differences;
  for (const auto& [name, by_rank] : values) {
    std::map<std::optional<std::string>, std::vector<std::size_t>> ranks_of;
    for (std::size_t r = 0; r < by_rank.size(); ++r) ranks_of[by_rank[r]].push_back(r);
    if (ranks_of.size() == 1) continue;
    std::vector<std::string> sides;
    for (const auto& [value, ranks] : ranks_of) {
      sides.push_back(
          fmt::format("{} {}", ranks_text(ranks), value ? "has \"" + shortened(*value) + "\"" : "has none"));
      if (ranks.size() > 1) sides.back().replace(sides.back().find(" has "), 5, " have ");
    }
    differences.push_back(fmt::format("{}: {}", name, fmt::join(sides, ", ")));
  }
  if (differences.empty()) differences.emplace_back("the same items in another order");
  throw disagree_error(fmt::format("the ranks disagree about the {}: {}", what, fmt::join(differences, "; ")),
                       "give all ranks the same files, settings and libraries");
}

}  // namespace dtrain
