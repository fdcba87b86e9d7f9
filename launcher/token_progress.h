// TokenDisplay: how far tokenising is, as a line redrawn in place on a terminal, or a log line now and then elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "core/clock.h"

namespace dtrain {

class TokenDisplay {
 public:
  // Silent unless `active`.
  TokenDisplay(std::string title, bool active);
  ~TokenDisplay();
  TokenDisplay(const TokenDisplay&) = delete;
  TokenDisplay& operator=(const TokenDisplay&) = delete;

  void show(std::int64_t done, std::int64_t total);

 private:
  std::string title_;
  bool active_;
  bool terminal_;
  bool drawn_ = false;
  Stopwatch total_;
  Stopwatch since_drawn_;
};

}  // namespace dtrain
