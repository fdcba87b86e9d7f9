#include "dist/mpi_host_comm.h"

#include <algorithm>
#include <climits>
#include <numeric>
#include <vector>

#include "dist/mpi_check.h"
#include "dist/waiting.h"

namespace dtrain {
namespace {

constexpr std::size_t kLargestMessage = std::size_t{1} << 30U;

int to_int(std::size_t value) { return static_cast<int>(value); }

}  // namespace

struct MpiHostComm::Handle {
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
};

MpiHostComm::MpiHostComm(FailureFlag* flag) : comm_(std::make_unique<Handle>()), flag_(flag) {
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm_->comm), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(comm_->comm, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm_->comm, &rank_);
  MPI_Comm_size(comm_->comm, &size_);
}

// MPI_Comm_free is collective and the other ranks may be gone; MPI_Finalize frees the communicator.
MpiHostComm::~MpiHostComm() = default;

void MpiHostComm::wait(const std::string& call, Handle& handle) {
  Waiting waiting(*this, deadline_seconds());
  for (int done = 0;;) {
    check_mpi(MPI_Test(&handle.request, &done, MPI_STATUS_IGNORE), call);
    if (done != 0) return;
    if (!waiting.pause()) {
      throw Error(ExitCode::kStalled,
                  fmt::format("rank {} waited {} s in {} and not all ranks came", rank_, deadline_seconds(), call),
                  "look at the other ranks' last log lines; a slow step needs a larger ddp_timeout");
    }
  }
}

void MpiHostComm::exchange(const std::string& call, std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                           std::byte* all) {
  const std::size_t total = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
  const bool equal = std::all_of(sizes.begin(), sizes.end(), [&](std::size_t s) { return s == sizes.front(); });
  if (total > kLargestMessage) {
    // Counts and displacements of MPI 3 are ints: one rank after the other, in pieces.
    std::size_t offset = 0;
    for (int r = 0; r < size_; ++r) {
      const std::size_t bytes = sizes[static_cast<std::size_t>(r)];
      if (r == rank_) std::copy(mine.begin(), mine.end(), all + offset);
      send_from(call, r, {all + offset, bytes});
      offset += bytes;
    }
    return;
  }
  if (equal) {
    check_mpi(MPI_Iallgather(mine.data(), to_int(mine.size()), MPI_BYTE, all, to_int(sizes.front()), MPI_BYTE,
                             comm_->comm, &comm_->request),
              call);
    wait(call, *comm_);
    return;
  }
  std::vector<int> counts(sizes.size());
  std::vector<int> offsets(sizes.size());
  std::transform(sizes.begin(), sizes.end(), counts.begin(), to_int);
  std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
  check_mpi(MPI_Iallgatherv(mine.data(), to_int(mine.size()), MPI_BYTE, all, counts.data(), offsets.data(), MPI_BYTE,
                            comm_->comm, &comm_->request),
            call);
  wait(call, *comm_);
}

void MpiHostComm::send_from(const std::string& call, int root, std::span<std::byte> data) {
  for (std::size_t offset = 0; offset < data.size(); offset += kLargestMessage) {
    const std::size_t bytes = std::min(kLargestMessage, data.size() - offset);
    check_mpi(MPI_Ibcast(data.data() + offset, to_int(bytes), MPI_BYTE, root, comm_->comm, &comm_->request), call);
    wait(call, *comm_);
  }
}

}  // namespace dtrain
