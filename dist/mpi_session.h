// MpiSession: this process as a rank of its job. Starts MPI only when mpirun or srun started the process, so that a
// plain `dtrain x.toml` never touches MPI.
//
//   try {
//     MpiSession session;                    // before the first tensor and before any thread
//     run(session.world(), session.host());
//     session.finish();                      // collective; then return 0
//   } catch (const PeerFailed& e) { end_job(e.code()); }                      // silent: the other rank explains
//   catch (const Error& e) { if (report_failure(e.code())) print(e); end_job(e.code()); }
//
// which is what run_job() does (dist/run_job.h).
//
// How a job ends with the right code and nothing printed over the one error line, measured with Open MPI 4.1.4, 4 ranks
// (exit code of mpirun in every case: the rank's):
//   MPI_Abort(65)                       0.4 s, 8 lines "MPI_ABORT was invoked on rank ..."
//   exit(65) after MPI_Finalize         0.4-2.4 s, 11 lines "Primary job terminated normally, but 1 process returned
//   ..." _exit(65) without MPI_Finalize      0.4-1.4 s, the same 11 lines; sometimes the rank's own last line is lost
//   the above with `mpirun --quiet`     silent, but that is the user's command line, not ours
//   PMIx_Abort(65)                      0.4-1.4 s, silent: what end_job() does
// PMIx_Abort is the standard call under MPI_Abort (Open MPI, Slurm with PMIx); it is looked up in the libpmix that MPI
// has loaded, and where there is none MPI_Abort stands in.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/error.h"
#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain {

class MpiSession {
 public:
  // Collective when started by mpirun or srun, else local. Throws Error(kUsage) when MPI has no MPI_THREAD_MULTIPLE, or
  // when the launcher started several processes that MPI does not connect. One session per process.
  MpiSession();
  // Does not finalise MPI: after an exception the other ranks may never come.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  [[nodiscard]] const World& world() const;
  [[nodiscard]] HostComm& host();
  [[nodiscard]] bool uses_mpi() const;
  // Collective. Ends MPI; afterwards host() and every Communicator are dead. The process may then exit with 0.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Local, any thread. True when this rank is the one that should print the reason: the first of its node to fail; ranks
// of other nodes than the first hold back 0.3 s, in which a failure that all ranks share has ended the job already.
[[nodiscard]] bool report_failure(ExitCode code) noexcept;

// Local, any thread, from any state (also before MpiSession and without MPI). Flushes stdout and stderr, ends all ranks
// of the job within a few seconds, and makes this process and mpirun exit with `code`, or with the code that another
// rank reported first. For an end that all ranks agreed on (preemption), pass a barrier first: a rank still writing is
// killed.
[[noreturn]] void end_job(ExitCode code) noexcept;

// Local, any thread, no call of MPI. Asks the launcher to end all ranks with `code`; the daemon kills this one too,
// soon after. False where there is no PMIx. May not return when the launcher does not answer.
bool ask_launcher_to_end(ExitCode code) noexcept;

// How this process was started, from its environment; `get` is getenv or a stand-in that returns "" for unset names.
struct LaunchedBy {
  bool mpi = false;      // whether MPI must be started
  int size = 0;          // number of processes the launcher says it started; 0 when it does not say
  std::string launcher;  // "mpirun", "srun", "mpiexec" or ""
  bool connects = true;  // false: the launcher offers MPI no way to connect the processes (srun --mpi=none)
};
[[nodiscard]] LaunchedBy launched_by(const std::function<std::string(const char*)>& get);

}  // namespace dtrain
