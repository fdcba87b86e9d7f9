// HostComm: small blocking messages between all ranks of a job, on bytes and integers in host memory.
//
// Every function is collective: all ranks call the same functions in the same order, each with the same `name`, which
// appears in error messages and in the flight recorder. One thread per rank at a time. Failures throw Error.
// Floating-point maxima are left out on purpose: MPI_MAX loses a NaN; reduce an integer flag instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain {

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
};

}  // namespace dtrain
