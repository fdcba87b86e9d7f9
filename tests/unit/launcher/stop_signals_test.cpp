#include <csignal>

#include <gtest/gtest.h>

#include "launcher/stop_signals.h"

namespace dtrain {
namespace {

TEST(StopSignals, AreRememberedWhileTheObjectLives) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR2}) {
    const StopSignals signals;
    EXPECT_EQ(StopSignals::received(), 0);
    ::raise(signal);
    EXPECT_EQ(StopSignals::received(), signal);
  }
}

TEST(StopSignals, TheSecondInterruptEndsTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        ::raise(SIGINT);
        ::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(StopSignals, WhatWasBeforeComesBack) {
  struct sigaction before = {};
  ::sigaction(SIGTERM, nullptr, &before);
  { const StopSignals signals; }
  struct sigaction after = {};
  ::sigaction(SIGTERM, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

}  // namespace
}  // namespace dtrain
