// HangReport: which rank held up the others, from the dumps of all ranks laid beside each other. Pure functions.
//
// In this order: a rank without a dump was stopped, dead or out of reach; ranks that did different things under one
// sequence number are out of step, and the fewer of them are suspects (of two, the one whose succession of collectives
// nobody had before); a rank that has not entered what others wait in is busy or stuck outside of collectives; when all
// have come, or a rank waits in what others have finished, it is the network or the device.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dist/hang_dump.h"

namespace dtrain {

struct HangReport {
  std::vector<std::string> suspects;  // "rank 1 on node7", or "network between node6 and node7"
  std::string verdict;                // one line: who, what they did, what the others wait in
  std::vector<std::string> ranks;     // one line for each rank
};

// `dumps` is not empty and by rank.
[[nodiscard]] HangReport explain_hang(const std::map<int, RankDump>& dumps);

}  // namespace dtrain
