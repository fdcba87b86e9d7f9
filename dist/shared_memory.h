// SharedMemory: one zeroed block of memory that all ranks of a node map.
//
// It is an anonymous file (memfd) of the node's first rank, which the others open through /proc/<pid>/fd: it never has
// a name in any folder, so nothing is left behind however the processes end, and the often small /dev/shm of containers
// does not limit it. Its pages are allocated at creation, so a full memory is an error there and not a SIGBUS later.
#pragma once

#include <cstddef>
#include <memory>

#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain {

class SharedMemory {
 public:
  SharedMemory(int fd, std::size_t bytes);  // maps `fd`; throws Error(kIo)
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Collective over all ranks of the job; each node gets a block of its own. nullptr on all ranks when any node cannot
// share memory (separate process namespaces, memory full); the reason is logged on the rank that found it.
[[nodiscard]] std::shared_ptr<SharedMemory> share_memory(const World& world, HostComm& host, std::size_t bytes);

// A zeroed block on a cache line of this process's own memory: the same thing for ranks that are threads.
[[nodiscard]] std::shared_ptr<std::byte> private_block(std::size_t bytes);

}  // namespace dtrain
