// One rank of a job that goes wrong in the way its argument names; started under mpirun by faults_test.cpp. main()
// handles errors as every program on dtrain::dist should.
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include <unistd.h>

#include <ATen/ops/ones.h>
#include <c10/core/Device.h>

#include "dist/agreement.h"
#include "dist/make_communicator.h"
#include "dist/mpi_session.h"

namespace dtrain {
namespace {

void run(MpiSession& session, const std::string& scenario) {
  const World& world = session.world();
  HostComm& host = session.host();
  const bool last = world.rank == world.world_size - 1;
  CommunicatorOptions options;
  if (scenario == "stall-collective") options.deadline_seconds = 1;
  if (scenario.ends_with("-nodes")) options.ranks_per_node = 1;
  const auto communicator = make_communicator(world, host, c10::Device(c10::kCPU), options);
  const at::Tensor tensor = at::ones({100'000});
  communicator->all_reduce_sum(tensor, "warm up")->wait();

  if (scenario == "throw-one" || scenario == "throw-one-nodes") {
    if (last) throw data_error(fmt::format("rank {} cannot read its data", world.rank), "look at the file");
    communicator->all_reduce_sum(tensor, "gradients")->wait();
  } else if (scenario == "throw-one-host") {
    if (last) throw io_error("the disk is full");
    host.barrier("save");
  } else if (scenario == "throw-all") {
    throw usage_error("unknown key");
  } else if (scenario == "disagree") {
    agree(host, "configuration", {{"seed", last ? "7" : "42"}});
  } else if (scenario == "different-collectives") {
    const at::Tensor other = at::ones({last ? 10 : 20});
    communicator->all_reduce_sum(other, last ? "bucket 1" : "bucket 0")->wait();
  } else if (scenario == "stall-collective") {
    if (last) ::pause();
    communicator->all_reduce_sum(tensor, "gradients")->wait();
  } else if (scenario == "stall-host") {
    host.set_deadline(1);
    if (last) ::pause();
    host.barrier("evaluation");
  } else if (scenario == "killed") {
    if (last) std::raise(SIGKILL);
    communicator->all_reduce_sum(tensor, "gradients")->wait();
  } else if (scenario == "preempted") {
    host.barrier("checkpoint published");
    end_job(ExitCode::kPreempted);
  } else if (scenario != "fine") {
    throw usage_error("no scenario " + scenario);
  }
}

}  // namespace
}  // namespace dtrain

int main(int argc, char** argv) {
  using namespace dtrain;
  try {
    MpiSession session;
    run(session, argc > 1 ? argv[1] : "fine");
    session.finish();
    return 0;
  } catch (const PeerFailed& error) {
    end_job(error.code());
  } catch (const Error& error) {
    if (report_failure(error.code())) std::fprintf(stderr, "error: %s\n", error.what());
    end_job(error.code());
  }
}
