#include "dist/shared_memory.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"

namespace dtrain {
namespace {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

int create_block(std::size_t bytes) {
  const int fd = ::memfd_create("dtrain", MFD_CLOEXEC);
  if (fd < 0) throw system_error("cannot create shared memory", errno);
  const int result = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (result != 0) {
    ::close(fd);
    throw system_error(fmt::format("cannot allocate {} bytes of shared memory", bytes), result);
  }
  return fd;
}

// Identifies an open file; a path through /proc could lead to another one where process namespaces differ.
std::string identity(int fd) {
  struct stat status = {};
  if (::fstat(fd, &status) != 0) throw system_error("cannot examine shared memory", errno);
  return fmt::format("{}:{}:{}", status.st_dev, status.st_ino, status.st_size);
}

}  // namespace

SharedMemory::SharedMemory(int fd, std::size_t bytes) : bytes_(bytes) {
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) throw system_error("cannot map shared memory", errno);
  data_ = static_cast<std::byte*>(address);
}

SharedMemory::~SharedMemory() { ::munmap(data_, bytes_); }

std::shared_ptr<SharedMemory> share_memory(const World& world, HostComm& host, std::size_t bytes) {
  std::shared_ptr<SharedMemory> memory;
  std::int64_t failed = 0;
  const auto attempt = [&](const auto& action) {
    try {
      action();
    } catch (const Error& error) {
      log::warning("no shared memory on {}: {}", world.host, error.what());
      failed = 1;
    }
  };

  Descriptor created(world.is_first_on_node() ? [&] {
    int fd = -1;
    attempt([&] { fd = create_block(bytes); });
    return fd;
  }()
                                              : -1);
  std::string mine;
  if (created.get() >= 0) {
    attempt([&] {
      mine = fmt::format("{} {} /proc/{}/fd/{}", world.node_rank, identity(created.get()), ::getpid(), created.get());
    });
  }
  const auto places = host.all_gather("shared memory", mine);
  attempt([&] {
    if (created.get() >= 0) {
      memory = std::make_shared<SharedMemory>(created.get(), bytes);
      return;
    }
    const std::string prefix = fmt::format("{} ", world.node_rank);
    for (const std::string& place : places) {
      if (!place.starts_with(prefix)) continue;
      const std::size_t space = place.find(' ', prefix.size());
      const std::string path = place.substr(space + 1);
      const Descriptor fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
      if (fd.get() < 0) throw system_error(fmt::format("cannot open {}", path), errno);
      if (identity(fd.get()) != place.substr(prefix.size(), space - prefix.size())) {
        throw io_error(fmt::format("{} is another file in this rank's process namespace", path));
      }
      memory = std::make_shared<SharedMemory>(fd.get(), bytes);
      return;
    }
    failed = 1;  // the first rank of the node has logged the reason
  });
  // Also the barrier that keeps the first rank's descriptor open until all have mapped it.
  host.all_reduce_max("shared memory", std::span(&failed, 1));
  return failed == 0 ? memory : nullptr;
}

std::shared_ptr<std::byte> private_block(std::size_t bytes) {
  constexpr std::align_val_t kLine{64};
  auto* memory = static_cast<std::byte*>(::operator new(bytes, kLine));
  std::memset(memory, 0, bytes);
  return {memory, [](std::byte* block) { ::operator delete(block, kLine); }};
}

}  // namespace dtrain
