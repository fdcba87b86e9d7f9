// Sections: what this process is doing and since when, each thing with a deadline. Any open section that is past its
// deadline counts, however fresh the others inside of it are. The deadline of a step is learned from the steps so far.
// Thread-safe. Times are seconds of one clock of the caller's (awake seconds, see awake_time.h).
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <optional>
#include <string_view>

namespace dtrain {

enum class Section { kInit, kLoad, kStep, kEval, kSave, kFinalize };
[[nodiscard]] std::string_view section_name(Section section);

// Seconds. What is not given is learned.
struct SectionLimits {
  double init = 600;  // kInit and kLoad, from one sign of progress to the next
  std::optional<double> step = std::nullopt;
  std::optional<double> eval = std::nullopt;  // from one batch to the next
  double save = 600;                          // kSave and kFinalize
  double longest = 1800;                      // of what is learned
};

// The deadline of a step: five times the 99th percentile of the last steps, at least a minute. The first steps, which
// warm up caches and compile kernels, have the deadline of kInit.
class LearnedDeadline {
 public:
  static constexpr double kFloorSeconds = 60;
  static constexpr double kFactor = 5;
  static constexpr std::size_t kWarmUpSteps = 10;
  static constexpr std::size_t kRemembered = 256;

  void add(double seconds);
  [[nodiscard]] double seconds(const SectionLimits& limits) const;

 private:
  std::array<double, kRemembered> observed_ = {};
  std::size_t count_ = 0;
  double percentile_ = 0;
};

class Sections {
 public:
  struct Open {
    Section section = Section::kInit;
    double seconds = 0;  // since it began or last made progress
    double limit = 0;
  };

  static constexpr std::size_t kSlots = 32;
  struct List {
    std::array<Open, kSlots> open = {};
    std::size_t count = 0;
  };

  void set_limits(const SectionLimits& limits);
  // Begins a section; the result names it below.
  std::size_t open(Section section, double now);
  // The deadline of the open sections of this kind begins anew.
  void progress(Section section, double now);
  void close(std::size_t handle, double now);
  // The open sections, in the order in which they began. Does not allocate.
  [[nodiscard]] List all(double now) const;
  // One that is past its deadline. `waiting`: this rank is in a collective; while it loads, another rank may have more
  // to do (tokenising, say) than it has, and is watched itself. Does not allocate.
  [[nodiscard]] std::optional<Open> expired(double now, bool waiting) const;
  // Whether an open section has used up half of its deadline. Does not allocate.
  [[nodiscard]] bool any_slow(double now) const;
  [[nodiscard]] bool none_open() const;

 private:
  struct Slot {
    bool used = false;
    Section section = Section::kInit;
    std::size_t number = 0;  // counts all sections ever opened
    double since = 0;
  };
  [[nodiscard]] Open describe(const Slot& slot, double now) const;
  [[nodiscard]] double limit_of(Section section) const;

  mutable std::mutex mutex_;
  std::array<Slot, kSlots> slots_;  // guarded by mutex_, as all below
  std::size_t opened_ = 0;
  SectionLimits limits_;
  LearnedDeadline learned_;
};

}  // namespace dtrain
