#include "trainer/memory_metrics.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>

#include <c10/core/CachingDeviceAllocator.h>

namespace dtrain {
namespace {

// A field of /proc/self/status, such as "VmRSS:   1234 kB", in bytes; 0 when it is not there.
std::int64_t status_bytes(std::string_view field) {
  constexpr std::int64_t kKibibyte = 1024;
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(field)) continue;
    const std::size_t first = line.find_first_of("0123456789");
    if (first == std::string::npos) return 0;
    std::int64_t kibibytes = 0;
    std::from_chars(line.data() + first, line.data() + line.size(), kibibytes);
    return kibibytes * kKibibyte;
  }
  return 0;
}

c10::CachingDeviceAllocator::Stat allocated(c10::Device device) {
  return at::getDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
}

}  // namespace

MemoryMetrics::Usage MemoryMetrics::used() const {
  return {.cpu = status_bytes("VmRSS:"), .gpu = device_.is_cpu() ? 0 : allocated(device_).current};
}

void MemoryMetrics::start() {
  if (!wanted_) return;
  // The kernel's peak starts anew; where it may not be reset, it is that of the process.
  std::ofstream("/proc/self/clear_refs") << "5";
  if (!device_.is_cpu()) at::getDeviceAllocator(device_.type())->resetPeakStats(device_.index());
  begin_ = used();
}

void MemoryMetrics::stop(const std::string& stage) {
  if (!wanted_) return;
  const Usage end = used();
  const Usage peak = {.cpu = status_bytes("VmHWM:"), .gpu = device_.is_cpu() ? 0 : allocated(device_).peak};
  finished_.push_back({stage, begin_, end, peak});
}

void MemoryMetrics::add_to(OrderedJson& record) {
  for (const Stage& stage : finished_) {
    const auto add = [&](const char* kind, const char* device, std::int64_t bytes) {
      record[stage.name + "_mem_" + device + "_" + kind + "_delta"] = bytes;
    };
    add("alloc", "cpu", stage.end.cpu - stage.begin.cpu);
    if (!device_.is_cpu()) add("alloc", "gpu", stage.end.gpu - stage.begin.gpu);
    add("peaked", "cpu", std::max<std::int64_t>(0, stage.peak.cpu - stage.end.cpu));
    if (!device_.is_cpu()) add("peaked", "gpu", std::max<std::int64_t>(0, stage.peak.gpu - stage.end.gpu));
  }
  for (const Stage& stage : finished_) {
    if (stage.name != "init") continue;
    record["before_init_mem_cpu"] = stage.begin.cpu;
    if (!device_.is_cpu()) record["before_init_mem_gpu"] = stage.begin.gpu;
  }
  finished_.clear();
}

}  // namespace dtrain
