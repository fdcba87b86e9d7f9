// Replays the committed corpus of a fuzz target as an ordinary test, and a fixed number of mutations of it: what a
// fuzzer has found once stays found, also where no fuzzer is. An input that ends the process is kept in the build
// folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/file.h"
#include "core/random.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"

namespace dtrain::fuzz {
namespace fs = std::filesystem;
namespace {

constexpr unsigned kSeconds = 20;  // for one input
const std::string kKept = test::build_path("crash-" DTRAIN_FUZZ_TARGET).string();

// What the handler of a fatal signal needs to know, set before each input.
std::string_view current_input;

void keep_input(int signal) {
  const int fd = ::open(kKept.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const auto say = [](int to, std::string_view text) {
    [[maybe_unused]] const auto done = ::write(to, text.data(), text.size());
  };
  if (fd >= 0) say(fd, current_input);
  say(STDERR_FILENO, "\nthe input is kept in ");
  say(STDERR_FILENO, kKept);
  say(STDERR_FILENO, signal == SIGALRM ? ": it takes too long\n" : "\n");
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

void run(std::string_view input) {
  // Of the exact size, so that sanitizers see a read behind the end.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  current_input = input;
  ::alarm(kSeconds);
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  ::alarm(0);
  current_input = {};
}

struct Entry {
  std::string name;
  std::string bytes;
};

const std::vector<Entry>& corpus() {
  static const std::vector<Entry> entries = [] {
    std::vector<Entry> found;
    for (const auto& entry : fs::directory_iterator(test::source_path("tests/fuzz/corpus/" DTRAIN_FUZZ_TARGET))) {
      found.push_back({entry.path().filename().string(), read_file(entry.path())});
    }
    std::sort(found.begin(), found.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return found;
  }();
  return entries;
}

// The changes that a fuzzer makes, drawn from a fixed sequence.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : seed_(seed) {}

  std::string mutate(std::string bytes) {
    for (std::uint64_t count = 1 + below(4); count > 0; --count) change(bytes);
    return bytes;
  }

 private:
  std::uint64_t below(std::uint64_t end) { return mix64(mix64(seed_) + count_++) % end; }

  void change(std::string& bytes) {
    static constexpr std::array<std::string_view, 12> kTokens = {std::string_view("\0", 1),
                                                                 "\xFF\xFF\xFF\xFF",
                                                                 "\xED\xB0\x80",
                                                                 "18446744073709551615",
                                                                 "-1",
                                                                 "1e999",
                                                                 "null",
                                                                 "[[[[",
                                                                 "\"",
                                                                 "\\u0000",
                                                                 "\n",
                                                                 "\xC3"};
    const std::size_t at = below(bytes.size() + 1);
    const std::size_t length = std::min<std::size_t>(1 + below(16), bytes.size() - at);
    switch (below(8)) {
      case 0:
        bytes.erase(at, length);
        break;
      case 1:
        bytes.insert(at, bytes.substr(below(bytes.size() + 1), 1 + below(32)));
        break;
      case 2:
        bytes.insert(at, kTokens[below(kTokens.size())]);
        break;
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.replace(at, length, kTokens[below(kTokens.size())]);
        break;
      case 5: {
        const std::string& other = corpus()[below(corpus().size())].bytes;
        const std::size_t from = below(other.size() + 1);
        bytes.insert(at, other.substr(from, 1 + below(64)));
        break;
      }
      default:
        if (at < bytes.size()) bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1U << below(8)));
    }
  }

  std::uint64_t seed_;
  std::uint64_t count_ = 0;
};

class Replay : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // A stack that has overflowed cannot run the handler.
    static std::array<char, 1 << 16> stack;
    stack_t alternative{};
    alternative.ss_sp = stack.data();
    alternative.ss_size = stack.size();
    ASSERT_EQ(::sigaltstack(&alternative, nullptr), 0);
    struct sigaction action {};
    action.sa_handler = keep_input;
    action.sa_flags = SA_ONSTACK;
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) {
      ASSERT_EQ(::sigaction(signal, &action, nullptr), 0);
    }
  }
};

TEST_F(Replay, EveryInputOfTheCorpusIsReadOrRefused) {
  ASSERT_GE(corpus().size(), 5U) << "the corpus is missing";
  run("");
  for (const Entry& entry : corpus()) {
    EXPECT_LE(entry.bytes.size(), 4096U) << entry.name << " is too large for the repository";
    run(entry.bytes);
  }
}

TEST_F(Replay, MutationsOfTheCorpusAreReadOrRefused) {
  ASSERT_FALSE(corpus().empty());
  for (std::uint64_t i = 0; i < DTRAIN_FUZZ_MUTATIONS; ++i) run(Mutator(i).mutate(corpus()[i % corpus().size()].bytes));
}

}  // namespace
}  // namespace dtrain::fuzz
