// A store that is four times as large as the memory a process may have is read all the same.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "datasets/batch_loader.h"
#include "datasets/collators/token_collator.h"
#include "datasets/sample_order.h"
#include "datasets/token_store.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

constexpr std::int64_t kMega = std::int64_t{1} << 20;
constexpr std::int64_t kBudget = 24 * kMega;
constexpr std::int64_t kExamples = 48 * 1024;
constexpr std::int64_t kLength = 512;  // ids of four bytes: 96 MB
const TokenOrigin kOrigin{"source", "tokenizer", "options"};

std::int32_t id_of(std::int64_t example, std::int64_t position) {
  return static_cast<std::int32_t>((example * 31 + position * 7) % 30000);
}

void write_large_store(const std::filesystem::path& path) {
  TokenTable table;
  table.ids.resize(static_cast<std::size_t>(kExamples * kLength));
  for (std::int64_t i = 0; i < kExamples; ++i) {
    for (std::int64_t k = 0; k < kLength; ++k) table.ids[static_cast<std::size_t>(i * kLength + k)] = id_of(i, k);
  }
  for (std::int64_t i = 0; i <= kExamples; ++i) table.offsets.push_back(i * kLength);
  table.label_offsets.assign(table.offsets.size(), 0);
  write_token_store(path, kOrigin, table);
}

// Bytes of a line of /proc/self/status.
std::int64_t status(const std::string& name) {
  std::ifstream lines("/proc/self/status");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return -1;
}

// In a process of its own. What is wrong, or nothing.
std::string read_with_little_memory(const std::filesystem::path& path) {
  const rlimit limit{static_cast<rlim_t>(status("VmData") + kBudget), RLIM_INFINITY};
  if (::setrlimit(RLIMIT_DATA, &limit) != 0) return "no limit";
  // The limit is one: the ids do not fit.
  try {
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(kExamples * kLength));
    return "the limit does not hold";
  } catch (const std::bad_alloc&) {
  }
  const std::int64_t before = status("RssAnon");
  const std::shared_ptr<const Dataset> data = open_token_store(path, kOrigin);
  if (data->size() != kExamples) return "another size";
  // An epoch in random order, as training reads it.
  std::vector<std::int64_t> order(static_cast<std::size_t>(kExamples));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = 0; i < kExamples; ++i) {
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(i * 7919 % kExamples)]);
  }
  const ShardOptions options{.batch_size = 32, .rank = 0, .world_size = 1};
  BatchLoader loader(data, make_causal_collator({}), shard(order, options), options, 1, 0, 2, 0);
  std::int64_t examples = 0;
  std::int64_t most = 0;
  while (const std::optional<Batch> batch = loader.next()) {
    const at::Tensor ids = (*batch)["input_ids"];
    for (std::int64_t i = 0; i < batch->size; ++i, ++examples) {
      const std::int64_t position = examples % kLength;
      if (ids[i][position].item<std::int64_t>() != id_of(batch->example_index[static_cast<std::size_t>(i)], position)) {
        return "another id";
      }
    }
    most = std::max(most, status("RssAnon"));
  }
  if (examples != kExamples) return "another number of examples";
  if (most - before > kBudget) return "memory rose by " + std::to_string((most - before) / kMega) + " MB";
  return "";
}

TEST(TokenMemory, StaysFlatWithAStoreOfFourTimesTheLimit) {
  const test::TempFolder folder;
  const std::filesystem::path path = folder.path() / "large.h5";
  write_large_store(path);
  ASSERT_GE(std::filesystem::file_size(path), static_cast<std::uintmax_t>(4 * kBudget));
  const std::filesystem::path report = folder.path() / "report";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::string wrong;
    try {
      wrong = read_with_little_memory(path);
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    std::ofstream(report) << wrong;
    ::_exit(wrong.empty() ? 0 : 1);
  }
  int code = 0;
  ASSERT_EQ(::waitpid(child, &code, 0), child);
  std::string wrong;
  std::getline(std::ifstream(report), wrong);
  EXPECT_EQ(code, 0) << wrong;
}

}  // namespace
}  // namespace dtrain
