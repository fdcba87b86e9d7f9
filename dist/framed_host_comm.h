// FramedHostComm: the part of HostComm that does not depend on how bytes travel.
//
// Every call starts with an all-gather of one fixed-size frame per rank: which function, which name, how many bytes,
// the number of the collective in the flight recorder, and up to 192 bytes of payload. So small messages cost one
// exchange, and ranks that call different functions, or of which one has left out a collective, find out instead of
// waiting for each other. Sums are taken by every rank over the gathered values in rank order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/host_comm.h"

namespace dtrain {

class FramedHostComm : public HostComm {
 public:
  void broadcast(std::string_view name, std::string& bytes, int root) final;
  [[nodiscard]] std::vector<std::string> all_gather(std::string_view name, std::string_view bytes) final;
  void all_reduce_sum(std::string_view name, std::span<std::int64_t> values) final;
  void all_reduce_max(std::string_view name, std::span<std::int64_t> values) final;
  void all_reduce_sum(std::string_view name, std::span<double> values) final;
  void barrier(std::string_view name) final;
  void set_deadline(double seconds) final { deadline_seconds_ = seconds; }

 protected:
  // Collective. Every rank gives `mine`, whose sizes are `sizes` by rank; `all` receives them one after another.
  // `call` describes the call for error messages.
  virtual void exchange(const std::string& call, std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                        std::byte* all) = 0;
  // Collective. `data` of `root` replaces that of all others; equal sizes everywhere.
  virtual void send_from(const std::string& call, int root, std::span<std::byte> data) = 0;

  [[nodiscard]] double deadline_seconds() const { return deadline_seconds_; }

 private:
  enum class Function : std::uint8_t { kBroadcast, kAllGather, kSumIntegers, kMaxIntegers, kSumDoubles, kBarrier };
  static constexpr std::size_t kFrameBytes = 256;
  static constexpr std::size_t kInlineBytes = 192;
  static constexpr std::size_t kNameBytes = 38;
  struct Frame {
    std::int64_t size = 0;
    std::uint64_t sequence = 0;  // in the flight recorder
    float busy_seconds = 0;      // of the step so far
    std::int32_t root = 0;
    Function function = Function::kBarrier;
    std::uint8_t name_length = 0;
    char name[kNameBytes] = {};
    std::byte payload[kInlineBytes] = {};
  };
  static_assert(sizeof(Frame) == kFrameBytes);

  static constexpr const char* kFunctionNames[] = {
      "broadcast", "all_gather", "all_reduce_sum", "all_reduce_max", "all_reduce_sum of doubles", "barrier"};
  class Entry;  // of a call in the flight recorder

  static std::string describe(const Frame& frame);
  // Whether all ranks must give the same number of bytes.
  static bool needs_same_size(Function function);
  // Exchanges frames and compares them; the result is by rank.
  std::vector<Frame> exchange_frames(const Entry& entry, std::string_view name, int root,
                                     std::span<const std::byte> payload);
  void compare(const std::vector<Frame>& frames) const;
  template <class T, class Combine>
  void reduce(Function function, std::string_view name, std::span<T> values, Combine combine);

  double deadline_seconds_ = kDefaultDeadlineSeconds;
};

// One rank: nothing travels.
class SingleHostComm final : public FramedHostComm {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  bool report_failure(ExitCode code) noexcept override;
  [[nodiscard]] ExitCode reported_failure() const noexcept override;

 protected:
  void exchange(const std::string& call, std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                std::byte* all) override;
  void send_from(const std::string& call, int root, std::span<std::byte> data) override;
};

}  // namespace dtrain
