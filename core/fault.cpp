#include "core/fault.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include <unistd.h>

#include "core/error.h"

namespace dtrain {
namespace {

struct Plan {
  int rank = 0;
  std::string point;
  std::int64_t at = 0;
  std::string kind;
  std::int64_t milliseconds = 10;
};

std::optional<Plan> active_plan;

constexpr const char* kUsage =
    "rank=R point=NAME at=N kind=throw|kill|stop|preempt|exit|hang|slow|skip|resize|nan|inf|bitflip [ms=MILLISECONDS]";

// The kinds that are signals a process sends to itself, and those that are not.
const std::map<std::string, int>& kinds() {
  static const std::map<std::string, int> table = {{"kill", SIGKILL}, {"stop", SIGSTOP}, {"preempt", SIGUSR2},
                                                   {"throw", 0},      {"exit", 0},       {"hang", 0},
                                                   {"slow", 0},       {"skip", 0},       {"resize", 0}};
  return table;
}

const std::map<std::string, Damage>& damages() {
  static const std::map<std::string, Damage> table = {
      {"nan", Damage::kNan}, {"inf", Damage::kInf}, {"bitflip", Damage::kBitflip}};
  return table;
}

// Whether the plan is for this rank and names this point and number.
bool names(std::string_view point, std::int64_t number) {
  return active_plan && active_plan->point == point && active_plan->at == number;
}

Plan parse_plan(const std::string& text) {
  Plan plan;
  std::istringstream words(text);
  std::string word;
  while (words >> word) {
    const std::size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (key == "rank") {
      plan.rank = std::atoi(value.c_str());
    } else if (key == "point") {
      plan.point = value;
    } else if (key == "at") {
      plan.at = std::atoll(value.c_str());
    } else if (key == "ms") {
      plan.milliseconds = std::atoll(value.c_str());
    } else if (key == "kind" && (kinds().contains(value) || damages().contains(value))) {
      plan.kind = value;
    } else {
      throw usage_error(fmt::format("DTRAIN_FAULT: cannot read '{}'", word), kUsage);
    }
  }
  if (plan.point.empty() || plan.kind.empty()) {
    throw usage_error("DTRAIN_FAULT names no point or no kind", kUsage);
  }
  return plan;
}

}  // namespace

void set_up_faults(int rank) {
  active_plan.reset();
  const char* text = std::getenv("DTRAIN_FAULT");
  if (text == nullptr) return;
  const Plan plan = parse_plan(text);
  if (plan.rank == rank) active_plan = plan;
}

bool fault_asked(std::string_view point, std::int64_t number, std::string_view kind) {
  return names(point, number) && active_plan->kind == kind;
}

void fault_point(std::string_view point, std::int64_t number) {
  if (!active_plan || active_plan->point != point) return;
  const Plan& plan = *active_plan;
  if (plan.kind == "slow" && number >= plan.at) {
    std::this_thread::sleep_for(std::chrono::milliseconds(plan.milliseconds));
  }
  if (plan.at != number || damages().contains(plan.kind)) return;
  if (plan.kind == "throw") {
    throw Error(ExitCode::kInternal, fmt::format("fault point {} {}", point, number), "DTRAIN_FAULT asked for it");
  }
  if (plan.kind == "exit") ::_exit(0);
  while (plan.kind == "hang") ::pause();
  if (const int signal = kinds().at(plan.kind); signal != 0) ::raise(signal);
}

std::optional<Damage> fault_damage(std::string_view point, std::int64_t number) {
  if (!names(point, number)) return std::nullopt;
  const auto found = damages().find(active_plan->kind);
  return found == damages().end() ? std::nullopt : std::optional(found->second);
}

}  // namespace dtrain
