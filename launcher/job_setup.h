// What every command that computes begins with: settings, device, threads.
#pragma once

#include <memory>
#include <vector>

#include <c10/core/Device.h>

#include "configs/load_config.h"
#include "configs/train_config.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"
#include "launcher/inputs.h"
#include "trainer/metrics/metric.h"

namespace dtrain {

// Collective. The settings, equal on all ranks; sets up the log as they say.
[[nodiscard]] TrainConfig agreed_config(const Arguments& arguments, const World& world, HostComm& host,
                                        Parts parts = Parts::kOfSettings);

struct JobDevice {
  c10::Device device = c10::Device(c10::kCPU);
  int threads = 1;  // of this rank
};

// Collective. Chooses the device, binds cores, sets the number of threads, and logs it all.
[[nodiscard]] JobDevice set_up_device(const TrainingConfig& training, const Arguments& arguments, MpiSession& session);

// Those of metrics.compute.
[[nodiscard]] std::vector<std::unique_ptr<Metric>> make_metrics(const TrainConfig& config, const Inputs& inputs);

}  // namespace dtrain
