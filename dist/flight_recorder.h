// FlightRecorder: the last collectives of one rank, always on, for the question after a hang: who came, who did not?
//
// HostComm and every Communicator of a rank share one recorder. Each collective gets the next sequence number when this
// rank enters it (for a Communicator: when it is started), so ranks that run the same program give the same collective
// the same number, and the numbers of different ranks can be laid beside each other. The ring is allocated once; an
// entry costs two short critical sections and two readings of the clock. Also here: how much of a step this rank spent
// on work of its own, which is all the time that it did not wait in collectives.
// Thread-safe. Nothing is collective. Times are seconds of the monotonic clock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

namespace dtrain {

// Seconds of the monotonic clock, which no change of the date moves.
[[nodiscard]] double monotonic_seconds() noexcept;

struct CollectiveRecord {
  static constexpr std::size_t kNameBytes = 48;

  std::uint64_t sequence = 0;  // 1 is the first
  std::int64_t bytes = 0;      // that this rank gives
  std::int64_t step = 0;       // 0 outside of training
  double started = 0;
  double ended = 0;  // 0 while it is under way
  std::array<char, 24> operation = {};
  std::array<char, kNameBytes> name = {};
  [[nodiscard]] std::string_view operation_view() const { return operation.data(); }
  [[nodiscard]] std::string_view name_view() const { return name.data(); }
};

class FlightRecorder {
 public:
  static constexpr std::size_t kCapacity = 512;

  FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  // This rank enters a collective; the result names it in ended(). Names are cut to the size of their field.
  std::uint64_t started(std::string_view operation, std::string_view name, std::int64_t bytes);
  // It is complete on this rank. One that failed never ends.
  void ended(std::uint64_t sequence);
  [[nodiscard]] std::uint64_t last_started() const;
  // Whether the last one is still under way.
  [[nodiscard]] bool under_way() const;
  // What is in the ring, oldest first. `into` holds kCapacity entries; returns how many are used. Does not allocate.
  std::size_t copy(std::array<CollectiveRecord, kCapacity>& into) const;

  // A step begins: what is started from now on belongs to it, and busy_seconds() begins at 0.
  void begin_step(std::int64_t step);
  [[nodiscard]] std::int64_t step() const { return step_.load(std::memory_order_relaxed); }
  // Seconds since begin_step() in which the thread that runs the steps did not wait for other ranks.
  [[nodiscard]] double busy_seconds() const;
  // Of every rank, as it was when the last message between the ranks was sent; empty before the first.
  [[nodiscard]] const std::vector<float>& busy_by_rank() const { return busy_by_rank_; }
  void set_busy_by_rank(std::vector<float> seconds) { busy_by_rank_ = std::move(seconds); }

  // While it lives, the thread that runs the steps waits for other ranks.
  class Wait {
   public:
    explicit Wait(FlightRecorder& recorder) : recorder_(recorder), since_(monotonic_seconds()) {}
    ~Wait() {
      recorder_.waited_.store(recorder_.waited_.load(std::memory_order_relaxed) + monotonic_seconds() - since_,
                              std::memory_order_relaxed);
    }
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    FlightRecorder& recorder_;
    double since_;
  };

 private:
  mutable std::mutex mutex_;
  std::vector<CollectiveRecord> ring_;  // guarded by mutex_; record s is at s % kCapacity
  std::uint64_t last_ = 0;              // guarded by mutex_
  std::atomic<std::int64_t> step_{0};
  std::atomic<double> step_began_{0};
  std::atomic<double> waited_{0};  // in this step
  std::vector<float> busy_by_rank_;
};

}  // namespace dtrain
