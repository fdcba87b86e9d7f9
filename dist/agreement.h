// Agreement: what must be equal on all ranks before anything starts (settings, data, tokenizer, libraries).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dist/host_comm.h"

namespace dtrain {

struct AgreementItem {
  std::string name;
  std::string value;
};

// Collective. Throws the same Error(kDisagree) on all ranks when an item is missing somewhere or its value differs; the
// message names every such item, the values and the ranks that have them. `what` starts the message ("configuration").
// Equal items cost one small message.
void agree(HostComm& host, std::string_view what, const std::vector<AgreementItem>& items);

}  // namespace dtrain
