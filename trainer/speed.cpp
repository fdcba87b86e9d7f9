#include "trainer/speed.h"

#include <cmath>

namespace dtrain {

void add_speed(OrderedJson& record, const std::string& prefix, double seconds, double samples, double steps) {
  record[prefix + "_runtime"] = std::round(seconds * 1e4) / 1e4;
  if (!(seconds > 0)) return;
  record[prefix + "_samples_per_second"] = std::round(samples / seconds * 1e3) / 1e3;
  record[prefix + "_steps_per_second"] = std::round(steps / seconds * 1e3) / 1e3;
}

}  // namespace dtrain
