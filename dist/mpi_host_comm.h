// MpiHostComm: HostComm over MPI, on a communicator of its own. Waits poll nonblocking collectives, so that a failed
// peer and the deadline are noticed; MPI must have been started with MPI_THREAD_MULTIPLE.
#pragma once

#include <memory>

#include "dist/failure_flag.h"
#include "dist/framed_host_comm.h"

namespace dtrain {

class MpiHostComm final : public FramedHostComm {
 public:
  // Collective over MPI_COMM_WORLD. `flag` outlives the object.
  explicit MpiHostComm(FailureFlag* flag);
  ~MpiHostComm() override;

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  bool report_failure(ExitCode code) noexcept override { return flag_->report(rank_, code); }
  [[nodiscard]] ExitCode reported_failure() const noexcept override { return flag_->code(); }
  // From now on failures are reported in `flag`, which the ranks of the node share.
  void use_flag(FailureFlag* flag) { flag_ = flag; }

 protected:
  void exchange(const std::string& call, std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                std::byte* all) override;
  void send_from(const std::string& call, int root, std::span<std::byte> data) override;

 private:
  struct Handle;  // keeps mpi.h out of this header
  void wait(const std::string& call, Handle& request);

  std::unique_ptr<Handle> comm_;
  FailureFlag* flag_;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace dtrain
