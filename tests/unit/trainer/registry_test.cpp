// The names that a plugin registers, and what makes a plugin one of another build. Real plugins:
// tests/integration/test_package.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/files.h"
#include "trainer/plugin.h"

namespace dtrain {
namespace {

using testing::HasSubstr;

TEST(Registry, KnowsWhatWasAdded) {
  Registry registry;
  registry.add_model("mine", [](const ModelRequest&) { return nullptr; });
  registry.add_metric("ours", [](const MetricRequest&) { return nullptr; });
  EXPECT_NE(registry.find_model("mine"), nullptr);
  EXPECT_EQ(registry.find_model("ours"), nullptr);
  EXPECT_NE(registry.find_metric("ours"), nullptr);
  EXPECT_EQ(registry.find_collator("mine"), nullptr);
  EXPECT_EQ(registry.text(), "models mine; collators none; metrics ours");
}

TEST(Registry, RefusesNamesThatAreTaken) {
  Registry registry;
  registry.add_model("mine", [](const ModelRequest&) { return nullptr; });
  EXPECT_THROW(registry.add_model("mine", [](const ModelRequest&) { return nullptr; }), Error);
  EXPECT_THROW(registry.add_model("", [](const ModelRequest&) { return nullptr; }), Error);
  EXPECT_THROW(registry.add_metric("accuracy", [](const MetricRequest&) { return nullptr; }), Error);
  EXPECT_THROW(registry.add_collator("padding", [](const CollatorRequest&) { return nullptr; }), Error);
  EXPECT_THROW(registry.add_collator("auto", [](const CollatorRequest&) { return nullptr; }), Error);
}

TEST(Plugin, EveryPartOfTheBuildCounts) {
  const PluginBuild program = {"0.1.0", "2.11.0", "12.2.0", 7};
  EXPECT_EQ(build_differences(program, program), "");
  EXPECT_EQ(build_differences({"0.1.1", "2.11.0", "12.2.0", 7}, program), "dtrain 0.1.1, not 0.1.0");
  EXPECT_EQ(build_differences({"0.1.0", "2.10.0", "12.2.0", 7}, program), "LibTorch 2.10.0, not 2.11.0");
  EXPECT_EQ(build_differences({"0.1.0", "2.10.0", "13.1.0", 8}, program),
            "LibTorch 2.10.0, not 2.11.0; compiler 13.1.0, not 12.2.0");
  EXPECT_THAT(build_differences({"0.1.0", "2.11.0", "12.2.0", 8}, program), HasSubstr("other headers of dtrain"));
}

TEST(Plugin, WhatIsNoPluginIsRefused) {
  const auto error_of = [](const std::filesystem::path& path) {
    try {
      (void)load_plugin(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(error_of("/nowhere/libmine.so"), HasSubstr("/nowhere/libmine.so: no such file"));
  EXPECT_THAT(error_of(test::source_path("README.md")), HasSubstr("cannot load"));
  EXPECT_THAT(error_of(test::build_path("lib/libdtrain_core.so")), HasSubstr("is no plugin of dtrain"));
}

}  // namespace
}  // namespace dtrain
