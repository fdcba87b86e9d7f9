// Fault points: named places where a test can make one rank fail, to prove what the program does then.
//
// DTRAIN_FAULT="rank=1 point=step at=3 kind=throw" makes rank 1 throw when it passes point "step" with number 3. Kinds:
// throw (an Error(kInternal)), kill (SIGKILL to itself), stop (SIGSTOP to itself), preempt (SIGUSR2 to itself), exit
// (leaves with code 0, without a word), hang (never comes back), slow (every passage from that number on takes ms=M
// milliseconds longer). At point "collective", whose number is that of the flight recorder, also skip (leaves it out)
// and resize (gives one element less). The kinds nan, inf and bitflip damage numbers, at the points that have some.
// Without the variable a fault point costs one comparison.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace dtrain {

// Reads DTRAIN_FAULT; called once, when the rank is known. A plan that cannot be read is Error(kUsage).
void set_up_faults(int rank);

// Fails here when the plan names this rank, point and number.
void fault_point(std::string_view point, std::int64_t number);

enum class Damage { kNan, kInf, kBitflip };

// What the plan wants done to the numbers at this rank, point and number; the caller does it.
[[nodiscard]] std::optional<Damage> fault_damage(std::string_view point, std::int64_t number);

// Whether the plan names this rank, point and number with a kind that the caller carries out.
[[nodiscard]] bool fault_asked(std::string_view point, std::int64_t number, std::string_view kind);

}  // namespace dtrain
