#include "dist/hang_report.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace dtrain {
namespace {

using DumpMap = std::map<int, RankDump>;

std::string collective_text(const DumpedCollective& each) {
  return fmt::format("{} \"{}\"{}", each.operation, each.name,
                     each.bytes ? fmt::format(" of {} bytes", *each.bytes) : "");
}

std::string numbered_text(const DumpedCollective& each) {
  return fmt::format("{} \"{}\" (collective {}{})", each.operation, each.name, each.sequence,
                     each.step > 0 ? fmt::format(", step {}", each.step) : "");
}

const DumpedCollective* find(const RankDump& dump, std::uint64_t sequence) {
  if (dump.collectives.empty() || sequence < dump.collectives.front().sequence ||
      sequence > dump.collectives.back().sequence) {
    return nullptr;
  }
  return &dump.collectives[sequence - dump.collectives.front().sequence];
}

std::uint64_t last_started(const RankDump& dump) {
  return dump.collectives.empty() ? 0 : dump.collectives.back().sequence;
}

// The first collective that this rank waits in; nullptr when it waits in none.
const DumpedCollective* waits_in(const RankDump& dump) {
  for (const DumpedCollective& each : dump.collectives) {
    if (!each.ended) return &each;
  }
  return nullptr;
}

// Whether `a` and `b` can be one collective of two ranks.
bool same(const DumpedCollective& a, const DumpedCollective& b) {
  return a.operation == b.operation && a.name == b.name && (!a.bytes || !b.bytes || *a.bytes == *b.bytes);
}

class Analysis {
 public:
  explicit Analysis(const DumpMap& dumps) : hosts_(dumps.begin()->second.hosts) {
    stalled_ =
        std::any_of(dumps.begin(), dumps.end(), [](const auto& each) { return each.second.reason == "stalled"; });
    for (int rank = 0; rank < static_cast<int>(hosts_.size()); ++rank) {
      const auto found = dumps.find(rank);
      // A dump that a signal asked for earlier says nothing about the end.
      if (found == dumps.end() || (stalled_ && found->second.reason != "stalled")) {
        missing_.push_back(rank);
      } else {
        dumps_.emplace(rank, &found->second);
        if (found->second.asleep_seconds >= kStoppedSeconds) stopped_.push_back(rank);
      }
    }
    if (stopped_.size() == hosts_.size()) stopped_.clear();  // the whole job: that was not the reason
  }

  HangReport run() {
    if (!dumps_.empty() && !absent() && !out_of_step() && !behind()) all_came();
    for (int rank = 0; rank < static_cast<int>(hosts_.size()); ++rank) report_.ranks.push_back(rank_line(rank));
    if (!stalled_) {
      report_.suspects.clear();
      report_.verdict =
          "the run did not stall: a signal (SIGQUIT) asked for these dumps while it went on. At that time: " +
          report_.verdict;
    }
    return std::move(report_);
  }

 private:
  [[nodiscard]] std::string who(int rank) const {
    return fmt::format("rank {} on {}", rank, hosts_[static_cast<std::size_t>(rank)]);
  }
  [[nodiscard]] std::string who(const std::vector<int>& ranks) const {
    std::vector<std::string> names;
    for (const int rank : ranks) names.push_back(who(rank));
    return fmt::format("{}", fmt::join(names, ", "));
  }
  void accuse(const std::vector<int>& ranks) {
    for (const int rank : ranks) report_.suspects.push_back(who(rank));
  }

  // "; rank 0 waits in ..." for what most ranks other than `except` wait in.
  [[nodiscard]] std::string waiting_text(const std::vector<int>& except) const {
    std::map<std::uint64_t, std::vector<int>> by_sequence;
    for (const auto& [rank, dump] : dumps_) {
      const DumpedCollective* wait = waits_in(*dump);
      if (wait != nullptr && std::find(except.begin(), except.end(), rank) == except.end()) {
        by_sequence[wait->sequence].push_back(rank);
      }
    }
    if (by_sequence.empty()) return "";
    const auto most = std::max_element(by_sequence.begin(), by_sequence.end(),
                                       [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
    const std::vector<int>& ranks = most->second;
    return fmt::format("; rank{} {} wait{} in {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, " "),
                       ranks.size() == 1 ? "s" : "", numbered_text(*waits_in(*dumps_.at(ranks.front()))));
  }

  bool absent() {
    if (!stalled_) {
      if (missing_.empty()) return false;
      report_.verdict = fmt::format("there is no dump of {}", who(missing_));
      return true;
    }
    std::vector<int> ranks = missing_;
    ranks.insert(ranks.end(), stopped_.begin(), stopped_.end());
    if (ranks.empty()) return false;
    std::sort(ranks.begin(), ranks.end());
    accuse(ranks);
    std::vector<std::string> parts;
    if (!missing_.empty()) {
      parts.push_back(fmt::format("{} gave no sign of life (stopped, dead, or its host or the network to it is down)",
                                  who(missing_)));
    }
    for (const int rank : stopped_) {
      parts.push_back(fmt::format("{} was stopped for {:.1f} s", who(rank), dumps_.at(rank)->asleep_seconds));
    }
    report_.verdict = fmt::format("{}{}", fmt::join(parts, "; "), waiting_text(ranks));
    return true;
  }

  // Whether any rank has done `next` right after `previous` before `sequence`.
  [[nodiscard]] bool seen_before(const DumpedCollective& previous, const DumpedCollective& next,
                                 std::uint64_t sequence) const {
    for (const auto& [rank, dump] : dumps_) {
      const auto& all = dump->collectives;
      for (std::size_t i = 1; i < all.size() && all[i].sequence < sequence; ++i) {
        if (same(all[i - 1], previous) && same(all[i], next)) return true;
      }
    }
    return false;
  }

  bool out_of_step() {
    std::uint64_t first = 1;
    std::uint64_t last = 0;
    for (const auto& [rank, dump] : dumps_) {
      if (!dump->collectives.empty()) first = std::max(first, dump->collectives.front().sequence);
      last = std::max(last, last_started(*dump));
    }
    for (std::uint64_t sequence = first; sequence <= last; ++sequence) {
      std::vector<std::pair<const DumpedCollective*, std::vector<int>>> groups;
      for (const auto& [rank, dump] : dumps_) {
        const DumpedCollective* each = find(*dump, sequence);
        if (each == nullptr) continue;
        const auto group =
            std::find_if(groups.begin(), groups.end(), [&](const auto& other) { return same(*other.first, *each); });
        if (group == groups.end()) {
          groups.push_back({each, {rank}});
        } else {
          group->second.push_back(rank);
        }
      }
      if (groups.size() < 2) continue;
      desync(groups, sequence);
      return true;
    }
    return false;
  }

  void desync(std::vector<std::pair<const DumpedCollective*, std::vector<int>>>& groups, std::uint64_t sequence) {
    std::stable_sort(groups.begin(), groups.end(),
                     [](const auto& a, const auto& b) { return a.second.size() > b.second.size(); });
    // Of equally many, the way that has been gone before is the right one.
    const auto usual = [&](const auto& group) {
      const DumpedCollective* previous = find(*dumps_.at(group.second.front()), sequence - 1);
      return previous != nullptr && seen_before(*previous, *group.first, sequence);
    };
    const std::size_t most = groups.front().second.size();
    const auto equal_end =
        std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.second.size() < most; });
    std::stable_partition(groups.begin(), equal_end, usual);
    const bool undecided = equal_end - groups.begin() > 1 && usual(groups.front()) == usual(*(groups.begin() + 1));
    std::vector<std::string> parts;
    for (const auto& [each, ranks] : groups) {
      parts.push_back(fmt::format("{} did {}", who(ranks), collective_text(*each)));
    }
    for (std::size_t i = undecided ? 0 : 1; i < groups.size(); ++i) accuse(groups[i].second);
    const std::vector<int>& odd = groups[1].second;
    report_.verdict = fmt::format(
        "desync at collective {}: {}{}", sequence, fmt::join(parts, "; "),
        undecided ? ""
                  : fmt::format("; rank{} {} left the usual order", odd.size() == 1 ? "" : "s", fmt::join(odd, " ")));
  }

  // Whether others have finished the collective that this rank waits in.
  [[nodiscard]] bool others_finished(const DumpedCollective& wait) const {
    return std::any_of(dumps_.begin(), dumps_.end(), [&](const auto& other) {
      const DumpedCollective* theirs = find(*other.second, wait.sequence);
      return theirs != nullptr && theirs->ended;
    });
  }

  bool behind() {
    std::uint64_t last = 0;
    for (const auto& [rank, dump] : dumps_) last = std::max(last, last_started(*dump));
    std::vector<int> ranks;
    std::uint64_t smallest = last;
    for (const auto& [rank, dump] : dumps_) {
      const DumpedCollective* wait = waits_in(*dump);
      // Somebody who waits for what others have got already is a victim.
      if (wait != nullptr && others_finished(*wait)) continue;
      if (last_started(*dump) < smallest) ranks.clear();
      smallest = std::min(smallest, last_started(*dump));
      if (last_started(*dump) == smallest && smallest < last) ranks.push_back(rank);
    }
    if (ranks.empty()) return false;
    accuse(ranks);
    const RankDump& dump = *dumps_.at(ranks.front());
    report_.verdict =
        fmt::format("{} {} not come to collective {}: last in {}{}{}", who(ranks), ranks.size() == 1 ? "has" : "have",
                    smallest + 1, dump.collectives.empty() ? "none" : numbered_text(dump.collectives.back()),
                    section_text(dump), waiting_text(ranks));
    return true;
  }

  void all_came() {
    // Nobody is missing. Whoever waits does so because data did not arrive.
    std::vector<int> waiting;
    for (const auto& [rank, dump] : dumps_) {
      if (waits_in(*dump) != nullptr) waiting.push_back(rank);
    }
    if (waiting.empty()) {
      std::vector<int> all;
      for (const auto& [rank, dump] : dumps_) all.push_back(rank);
      accuse(all);
      report_.verdict = fmt::format("no rank waits for another: {} took too long by {}{}", who(all),
                                    all.size() == 1 ? "itself" : "themselves", section_text(*dumps_.at(all.front())));
      return;
    }
    const std::set<std::string> hosts(hosts_.begin(), hosts_.end());
    if (hosts.size() > 1) {
      report_.suspects.push_back(fmt::format("network between {}", fmt::join(hosts, " and ")));
      report_.verdict = fmt::format("all ranks have come, but data does not arrive: the network between {}{}",
                                    fmt::join(hosts, " and "), waiting_text({}));
    } else {
      accuse(waiting);
      report_.verdict =
          fmt::format("all ranks have come, but data does not arrive (device or driver){}", waiting_text({}));
    }
  }

  [[nodiscard]] static std::string section_text(const RankDump& dump) {
    if (dump.sections.empty()) return "";
    const DumpedSection& section = dump.sections.back();
    return fmt::format(", {:.1f} s in section {}", section.seconds, section.name);
  }

  [[nodiscard]] std::string rank_line(int rank) const {
    const auto found = dumps_.find(rank);
    if (found == dumps_.end()) return fmt::format("{}: no dump", who(rank));
    const RankDump& dump = *found->second;
    std::string line = fmt::format("{}: step {}{}", who(rank), dump.step, section_text(dump));
    if (const DumpedCollective* wait = waits_in(dump)) {
      line += fmt::format("; waits for {:.1f} s in {}", dump.now - wait->started, numbered_text(*wait));
    } else if (!dump.collectives.empty()) {
      const DumpedCollective& last = dump.collectives.back();
      line +=
          fmt::format("; outside of collectives since {:.1f} s, after {}", dump.now - *last.ended, numbered_text(last));
    }
    if (dump.asleep_seconds >= kStoppedSeconds) line += fmt::format("; was stopped for {:.1f} s", dump.asleep_seconds);
    return line;
  }

  std::vector<std::string> hosts_;
  std::map<int, const RankDump*> dumps_;
  std::vector<int> missing_;
  std::vector<int> stopped_;
  bool stalled_ = false;
  HangReport report_;
};

}  // namespace

HangReport explain_hang(const DumpMap& dumps) { return Analysis(dumps).run(); }

}  // namespace dtrain
