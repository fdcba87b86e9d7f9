// HostComm: small blocking messages between all ranks of a job, on bytes and integers in host memory.
//
// Every function is collective: all ranks call the same functions in the same order, each with the same `name`, which
// appears in error messages and in the flight recorder. One thread per rank at a time. Failures throw Error.
// Floating-point maxima are left out on purpose: MPI_MAX loses a NaN; reduce an integer flag instead.
// Every call compares (function, name, size, number of collectives so far) between all ranks first: ranks that call
// different things get Error(kDisagree) naming both calls instead of a hang. A call that waits longer than the deadline
// throws Error(kStalled); a call whose peer has failed throws PeerFailed within a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "dist/flight_recorder.h"

namespace dtrain {

// Another rank has failed and prints (or printed) the reason: end quietly with its exit code.
class PeerFailed : public Error {
 public:
  explicit PeerFailed(ExitCode code) : Error(code, "another rank failed") {}
};

// 1800 s: the default of TrainingArguments.ddp_timeout.
inline constexpr double kDefaultDeadlineSeconds = 1800;

class HostComm {
 public:
  virtual ~HostComm() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;

  // Collective. Replaces `bytes` (size and content) on every rank with those of `root`.
  virtual void broadcast(std::string_view name, std::string& bytes, int root) = 0;
  // Collective. Element r is what rank r gave; sizes may differ.
  [[nodiscard]] virtual std::vector<std::string> all_gather(std::string_view name, std::string_view bytes) = 0;
  // Collective. Element-wise over all ranks, in place; `values` has the same size everywhere.
  virtual void all_reduce_sum(std::string_view name, std::span<std::int64_t> values) = 0;
  virtual void all_reduce_max(std::string_view name, std::span<std::int64_t> values) = 0;
  // Collective. Summed in rank order, so every rank and every run gets the same bits.
  virtual void all_reduce_sum(std::string_view name, std::span<double> values) = 0;
  // Collective.
  virtual void barrier(std::string_view name) = 0;

  // Local. The longest any later call may wait for the other ranks.
  virtual void set_deadline(double seconds) = 0;
  // Local, any thread. Tells the ranks that can be told without MPI (those of this node) that this rank has failed, so
  // that their waits, here and in a Communicator, throw PeerFailed(code). The first caller's code stands; true for it.
  virtual bool report_failure(ExitCode code) noexcept = 0;
  // Local, any thread. What a rank has reported; kDone when none has.
  [[nodiscard]] virtual ExitCode reported_failure() const noexcept = 0;

  // Where this rank's collectives are written down, those of its Communicator too.
  [[nodiscard]] FlightRecorder& recorder() const noexcept { return *recorder_; }

 private:
  std::unique_ptr<FlightRecorder> recorder_ = std::make_unique<FlightRecorder>();
};

}  // namespace dtrain
