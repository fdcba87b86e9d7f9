// Files under signals: every write of a large text into a pipe is cut short or interrupted, and nothing of it is lost.
#include <atomic>
#include <csignal>
#include <functional>
#include <string>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/random.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

std::atomic<int> interruptions = 0;

// Signals every 0.2 ms that interrupt system calls: the handler is set without SA_RESTART.
class Interruptions {
 public:
  Interruptions() {
    struct sigaction action {};
    action.sa_handler = [](int) { ++interruptions; };
    ::sigaction(SIGALRM, &action, &before_);
    const itimerval period = {{0, 200}, {0, 200}};
    ::setitimer(ITIMER_REAL, &period, nullptr);
  }
  ~Interruptions() {
    const itimerval none = {};
    ::setitimer(ITIMER_REAL, &none, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_ {};
};

// Runs `other` in a thread that gets none of the signals.
std::thread undisturbed(const std::function<void()>& other) {
  sigset_t alarm;
  ::sigemptyset(&alarm);
  ::sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_BLOCK, &alarm, nullptr);
  std::thread thread(other);
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
  return thread;
}

std::string random_text(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(mix64(i) >> 32);
  return text;
}

TEST(File, WritesCutShortBySignalsLoseNothing) {
  const test::TempFolder folder;
  const std::string path = (folder.path() / "pipe").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text = random_text(std::size_t{4} << 20);
  std::string got;
  std::thread reader = undisturbed([&] {
    const int fd = ::open(path.c_str(), O_RDONLY);
    char chunk[1000];  // less than a page: the pipe is full most of the time
    for (ssize_t read = 1; read > 0;) {
      read = ::read(fd, chunk, sizeof chunk);
      if (read > 0) got.append(chunk, static_cast<std::size_t>(read));
    }
    ::close(fd);
  });
  interruptions = 0;
  {
    const Interruptions signals;
    OutputFile file(path, OutputFile::Mode::kAppend);
    file.write(text);
    file.close();
  }
  reader.join();
  EXPECT_GT(interruptions, 10);
  EXPECT_TRUE(got == text);
}

TEST(File, ReadsCutShortBySignalsLoseNothing) {
  const test::TempFolder folder;
  const std::string path = (folder.path() / "pipe").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text = random_text(std::size_t{1} << 20);
  std::thread writer = undisturbed([&] {
    OutputFile file(path, OutputFile::Mode::kAppend);
    for (std::size_t at = 0; at < text.size(); at += 777) file.write(std::string_view(text).substr(at, 777));
    file.close();
  });
  interruptions = 0;
  std::string got;
  {
    const Interruptions signals;
    got = read_file(path);
  }
  writer.join();
  EXPECT_GT(interruptions, 1);
  EXPECT_TRUE(got == text);
}

}  // namespace
}  // namespace dtrain
