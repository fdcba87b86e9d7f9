// HangDump: what one rank was doing, as output_dir/hang/rank_<k>.json: written by its watchdog with plain system calls,
// read by the watchdog of another rank and by `dtrain explain`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dist/flight_recorder.h"
#include "dist/sections.h"

namespace dtrain {

// A rank that slept longer than this was stopped by somebody.
inline constexpr double kStoppedSeconds = 1;

// Who writes, allocated before anything is wrong.
struct DumpWriter {
  int rank = 0;
  std::vector<std::string> hosts;  // by rank
  std::string path;                // rank_<k>.json
  std::string stage;               // the file it is written to first, in the same folder
  std::array<CollectiveRecord, FlightRecorder::kCapacity> ring;

  DumpWriter(const std::filesystem::path& folder, int own_rank, std::vector<std::string> hosts_by_rank);

  // "stalled" when this rank is about to end because of a stall, "signal" when it goes on. Replaces the file as a
  // whole. Only system calls; false when one of them failed.
  bool write(std::string_view reason, const FlightRecorder& recorder, const Sections::List& sections,
             double asleep_seconds) noexcept;
};

struct DumpedCollective {
  std::uint64_t sequence = 0;
  std::string operation;
  std::string name;
  std::optional<std::int64_t> bytes;  // nothing where the ranks may give different numbers
  std::int64_t step = 0;
  double started = 0;
  std::optional<double> ended;  // nothing: it was under way
};

struct DumpedSection {
  std::string name;
  double seconds = 0;
  double limit = 0;
};

struct RankDump {
  int rank = 0;
  std::vector<std::string> hosts;
  std::string reason;
  std::int64_t step = 0;
  double now = 0;             // on the clock of `started` and `ended`
  double asleep_seconds = 0;  // in which the process was stopped
  std::vector<DumpedSection> sections;
  std::vector<DumpedCollective> collectives;  // oldest first
};

// output_dir/hang
[[nodiscard]] std::filesystem::path hang_folder(const std::filesystem::path& output_dir);
[[nodiscard]] std::string dump_name(int rank);

// Throws Error(kData) with the path and what is wrong.
[[nodiscard]] RankDump parse_dump(std::string_view text, const std::string& where);

struct Dumps {
  std::map<int, RankDump> by_rank;
  std::vector<std::string> damaged;  // one line each: what could not be read
};

// All dumps in the folder. Throws Error(kIo) when the folder cannot be read.
[[nodiscard]] Dumps read_dumps(const std::filesystem::path& folder);

}  // namespace dtrain
