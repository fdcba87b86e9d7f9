#include "dist/hang_dump.h"

#include <cerrno>
#include <cmath>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr int kVersion = 1;
constexpr std::uint64_t kMostRanks = 1'000'000;

// Text to a file descriptor through a small buffer, without memory of the heap.
class RawText {
 public:
  explicit RawText(int fd) : fd_(fd) {}

  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    if (used_ + kLongest > buffer_.size()) flush();
    const auto result = fmt::format_to_n(buffer_.data() + used_, kLongest, format, std::forward<Args>(args)...);
    used_ += std::min(result.size, kLongest);
  }
  // A JSON string; what would need an escape becomes '?'.
  void quoted(std::string_view text) {
    std::array<char, kLongest / 2> clean{};
    std::size_t size = 0;
    for (const char c : text.substr(0, clean.size())) {
      clean[size++] = c < ' ' || c == '"' || c == '\\' || c == '\x7f' || static_cast<signed char>(c) < 0 ? '?' : c;
    }
    add("\"{}\"", std::string_view(clean.data(), size));
  }
  void flush() {
    for (std::size_t done = 0; done < used_ && good_;) {
      const ssize_t count = ::write(fd_, buffer_.data() + done, used_ - done);
      if (count < 0 && errno == EINTR) continue;
      good_ = count > 0;
      if (good_) done += static_cast<std::size_t>(count);
    }
    used_ = 0;
  }
  [[nodiscard]] bool good() const { return good_; }

 private:
  static constexpr std::size_t kLongest = 512;  // of one add()
  int fd_;
  std::array<char, 8192> buffer_{};
  std::size_t used_ = 0;
  bool good_ = true;
};

// Finite numbers only, as JSON wants them.
double finite(double value) { return std::isfinite(value) ? value : 0; }

void write_record(RawText& text, const CollectiveRecord& record) {
  text.add("{{\"sequence\":{},\"operation\":", record.sequence);
  text.quoted(record.operation_view());
  text.add(",\"name\":");
  text.quoted(record.name_view());
  if (record.bytes >= 0) {
    text.add(",\"bytes\":{}", record.bytes);
  } else {
    text.add(",\"bytes\":null");
  }
  text.add(",\"step\":{},\"started\":{:.6f},\"ended\":", record.step, record.started);
  if (record.ended > 0) {
    text.add("{:.6f}}}", record.ended);
  } else {
    text.add("null}}");
  }
}

template <class T>
T field(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  bool fits = found != object.end();
  if constexpr (std::is_same_v<T, std::string>) {
    fits = fits && found->is_string();
  } else if constexpr (std::is_same_v<T, double>) {
    fits = fits && found->is_number();
  } else {
    fits = fits && found->is_number_integer();
  }
  if (!fits) throw data_error(fmt::format("{}: \"{}\" is missing or of the wrong type", where, key));
  return found->template get<T>();
}

const Json& list(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) throw data_error(fmt::format("{}: \"{}\" is no list", where, key));
  return *found;
}

template <class T>
std::optional<T> maybe(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_null()) return std::nullopt;
  return field<T>(object, key, where);
}

}  // namespace

fs::path hang_folder(const fs::path& output_dir) { return output_dir / "hang"; }
std::string dump_name(int rank) { return fmt::format("rank_{}.json", rank); }

DumpWriter::DumpWriter(const fs::path& folder, int own_rank, std::vector<std::string> hosts_by_rank)
    : rank(own_rank),
      hosts(std::move(hosts_by_rank)),
      path((folder / dump_name(own_rank)).string()),
      stage((folder / ("." + dump_name(own_rank))).string()) {}

bool DumpWriter::write(std::string_view reason, const FlightRecorder& recorder, const Sections::List& sections,
                       double asleep_seconds) noexcept {
  const std::size_t count = recorder.copy(ring);
  const int fd = ::open(stage.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return false;
  RawText text(fd);
  text.add("{{\"version\":{},\"rank\":{},\"pid\":{},\"reason\":", kVersion, rank, ::getpid());
  text.quoted(reason);
  text.add(",\"step\":{},\"now\":{:.6f},\"asleep_seconds\":{:.3f},\n\"hosts\":[", recorder.step(), monotonic_seconds(),
           finite(asleep_seconds));
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (i > 0) text.add(",");
    text.quoted(hosts[i]);
  }
  text.add("],\n\"sections\":[");
  for (std::size_t i = 0; i < sections.count; ++i) {
    const Sections::Open& open = sections.open[i];
    text.add("{}{{\"name\":\"{}\",\"seconds\":{:.3f},\"limit\":{:.3f}}}", i > 0 ? "," : "", section_name(open.section),
             finite(open.seconds), finite(open.limit));
  }
  text.add("],\n\"collectives\":[");
  for (std::size_t i = 0; i < count; ++i) {
    text.add("{}", i > 0 ? ",\n" : "\n");
    write_record(text, ring[i]);
  }
  text.add("]}}\n");
  text.flush();
  return ::close(fd) == 0 && text.good() && ::rename(stage.c_str(), path.c_str()) == 0;
}

RankDump parse_dump(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  if (!json.is_object()) throw data_error(where + ": not a JSON object");
  if (const auto version = field<std::int64_t>(json, "version", where); version != kVersion) {
    throw data_error(fmt::format("{}: version {}, this dtrain reads {}", where, version, kVersion));
  }
  RankDump dump;
  const auto rank = field<std::int64_t>(json, "rank", where);
  const Json& hosts = list(json, "hosts", where);
  if (rank < 0 || static_cast<std::uint64_t>(rank) >= hosts.size() || hosts.size() > kMostRanks) {
    throw data_error(fmt::format("{}: rank {} of {} hosts", where, rank, hosts.size()));
  }
  dump.rank = static_cast<int>(rank);
  for (const Json& host : hosts) {
    if (!host.is_string()) throw data_error(where + ": \"hosts\" is no list of names");
    dump.hosts.push_back(host.get<std::string>());
  }
  dump.reason = field<std::string>(json, "reason", where);
  dump.step = field<std::int64_t>(json, "step", where);
  dump.now = field<double>(json, "now", where);
  dump.asleep_seconds = field<double>(json, "asleep_seconds", where);
  for (const Json& each : list(json, "sections", where)) {
    if (!each.is_object()) throw data_error(where + ": a section is no object");
    dump.sections.push_back({.name = field<std::string>(each, "name", where),
                             .seconds = field<double>(each, "seconds", where),
                             .limit = field<double>(each, "limit", where)});
  }
  for (const Json& each : list(json, "collectives", where)) {
    if (!each.is_object()) throw data_error(where + ": a collective is no object");
    DumpedCollective collective;
    collective.sequence = field<std::uint64_t>(each, "sequence", where);
    collective.operation = field<std::string>(each, "operation", where);
    collective.name = field<std::string>(each, "name", where);
    collective.bytes = maybe<std::int64_t>(each, "bytes", where);
    collective.step = field<std::int64_t>(each, "step", where);
    collective.started = field<double>(each, "started", where);
    collective.ended = maybe<double>(each, "ended", where);
    if (!dump.collectives.empty() && collective.sequence != dump.collectives.back().sequence + 1) {
      throw data_error(
          fmt::format("{}: collective {} follows {}", where, collective.sequence, dump.collectives.back().sequence));
    }
    dump.collectives.push_back(std::move(collective));
  }
  return dump;
}

Dumps read_dumps(const fs::path& folder) {
  Dumps dumps;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with("rank_") || !name.ends_with(".json")) continue;
    try {
      RankDump dump = parse_dump(MappedFile(entry->path()).text(), entry->path().string());
      if (name != dump_name(dump.rank)) {
        throw data_error(fmt::format("{}: says it is of rank {}", entry->path().string(), dump.rank));
      }
      dumps.by_rank.emplace(dump.rank, std::move(dump));
    } catch (const Error& error) {
      dumps.damaged.emplace_back(error.what());
    }
  }
  if (code) throw system_error(folder.string(), code.value());
  return dumps;
}

}  // namespace dtrain
