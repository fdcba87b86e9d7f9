#include "launcher/token_progress.h"

#include <cstdio>
#include <utility>

#include <fmt/format.h>

#include "core/log.h"
#include "dist/watchdog.h"
#include "trainer/callbacks/progress_bar.h"

namespace dtrain {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kLineSeconds = 10;

}  // namespace

TokenDisplay::TokenDisplay(std::string title, bool active)
    : title_(std::move(title)), active_(active), terminal_(stderr_is_terminal()) {}

TokenDisplay::~TokenDisplay() {
  if (drawn_ && terminal_) std::fputs("\r\033[K", stderr);
}

void TokenDisplay::show(std::int64_t done, std::int64_t total) {
  watch_progress(Section::kLoad);
  if (!active_ || total <= 0) return;
  if (since_drawn_.seconds() < (terminal_ ? kRedrawSeconds : kLineSeconds) && done != total) return;
  const double seconds = total_.seconds();
  const std::string text = fmt::format("{}  {:3.0f}%  {}/{}  {:.0f} texts/s", title_,
                                       100.0 * static_cast<double>(done) / static_cast<double>(total), done, total,
                                       seconds > 0 ? static_cast<double>(done) / seconds : 0.0);
  since_drawn_.restart();
  if (!terminal_) {
    log::info("{}", text);
  } else {
    drawn_ = true;
    fmt::print(stderr, "\r\033[K{}", text);
    std::fflush(stderr);
    if (done == total) {
      std::fputc('\n', stderr);
      drawn_ = false;
    }
  }
}

}  // namespace dtrain
