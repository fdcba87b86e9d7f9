#include "dist/framed_host_comm.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace dtrain {

std::string FramedHostComm::describe(const Frame& frame) {
  static constexpr const char* kFunctions[] = {
      "broadcast", "all_gather", "all_reduce_sum", "all_reduce_max", "all_reduce_sum of doubles", "barrier"};
  const auto index = std::min<std::size_t>(static_cast<std::size_t>(frame.function), std::size(kFunctions) - 1);
  const std::string_view name(frame.name, std::min<std::size_t>(frame.name_length, kNameBytes));
  return fmt::format("{} \"{}\"", kFunctions[index], name);
}

std::vector<FramedHostComm::Frame> FramedHostComm::exchange_frames(Function function, std::string_view name, int root,
                                                                   std::span<const std::byte> payload) {
  DTRAIN_CHECK(root >= 0 && root < size(), "root {} of {} ranks in \"{}\"", root, size(), name);
  Frame mine;
  mine.function = function;
  mine.root = root;
  mine.size = static_cast<std::int64_t>(payload.size());
  mine.name_length = static_cast<std::uint8_t>(std::min(name.size(), kNameBytes));
  std::memcpy(mine.name, name.data(), mine.name_length);
  if (payload.size() <= kInlineBytes && !payload.empty()) std::memcpy(mine.payload, payload.data(), payload.size());

  std::vector<Frame> frames(static_cast<std::size_t>(size()));
  const std::vector<std::size_t> sizes(frames.size(), kFrameBytes);
  exchange(describe(mine), std::as_bytes(std::span(&mine, 1)), sizes, reinterpret_cast<std::byte*>(frames.data()));

  // All ranks see the same frames, so all throw the same error.
  const Frame& first = frames.front();
  const bool same_size = function != Function::kBroadcast && function != Function::kAllGather;
  for (std::size_t r = 1; r < frames.size(); ++r) {
    const Frame& other = frames[r];
    const bool equal = other.function == first.function && other.root == first.root &&
                       other.name_length == first.name_length && std::memcmp(other.name, first.name, kNameBytes) == 0;
    if (!equal) {
      throw disagree_error(
          fmt::format("ranks do different things: rank 0 is in {} from root {}, rank {} in {} from root {}",
                      describe(first), first.root, r, describe(other), other.root),
          "the ranks took different ways through the program: this is a defect in dtrain or in a callback");
    }
    if (same_size && other.size != first.size) {
      throw disagree_error(
          fmt::format("{}: rank 0 gives {} bytes, rank {} gives {}", describe(first), first.size, r, other.size),
          "all ranks must give the same number of values");
    }
  }
  return frames;
}

void FramedHostComm::broadcast(std::string_view name, std::string& bytes, int root) {
  const bool sender = rank() == root;
  const auto payload = sender ? std::as_bytes(std::span(bytes)) : std::span<const std::byte>();
  const auto frames = exchange_frames(Function::kBroadcast, name, root, payload);
  const Frame& source = frames[static_cast<std::size_t>(root)];
  const auto count = static_cast<std::size_t>(source.size);
  if (!sender) bytes.resize(count);
  if (count <= kInlineBytes) {
    if (!sender && count > 0) std::memcpy(bytes.data(), source.payload, count);
  } else {
    send_from(describe(source), root, std::as_writable_bytes(std::span(bytes)));
  }
}

std::vector<std::string> FramedHostComm::all_gather(std::string_view name, std::string_view bytes) {
  const auto payload = std::as_bytes(std::span(bytes));
  const auto frames = exchange_frames(Function::kAllGather, name, 0, payload);
  std::vector<std::size_t> sizes(frames.size());
  std::transform(frames.begin(), frames.end(), sizes.begin(),
                 [](const Frame& frame) { return static_cast<std::size_t>(frame.size); });
  std::vector<std::string> result(frames.size());
  if (*std::max_element(sizes.begin(), sizes.end()) <= kInlineBytes) {
    for (std::size_t r = 0; r < frames.size(); ++r) {
      result[r].assign(reinterpret_cast<const char*>(frames[r].payload), sizes[r]);
    }
    return result;
  }
  std::string all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), '\0');
  exchange(describe(frames.front()), payload, sizes, reinterpret_cast<std::byte*>(all.data()));
  std::size_t offset = 0;
  for (std::size_t r = 0; r < frames.size(); ++r) {
    result[r] = all.substr(offset, sizes[r]);
    offset += sizes[r];
  }
  return result;
}

template <class T, class Combine>
void FramedHostComm::reduce(Function function, std::string_view name, std::span<T> values, Combine combine) {
  const auto payload = std::as_bytes(values);
  const auto frames = exchange_frames(function, name, 0, payload);
  std::vector<T> all(values.size() * frames.size());
  if (payload.size() <= kInlineBytes) {
    for (std::size_t r = 0; r < frames.size() && !values.empty(); ++r) {
      std::memcpy(all.data() + r * values.size(), frames[r].payload, payload.size());
    }
  } else {
    const std::vector<std::size_t> sizes(frames.size(), payload.size());
    exchange(describe(frames.front()), payload, sizes, reinterpret_cast<std::byte*>(all.data()));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value = all[i];
    for (std::size_t r = 1; r < frames.size(); ++r) value = combine(value, all[r * values.size() + i]);
    values[i] = value;
  }
}

void FramedHostComm::all_reduce_sum(std::string_view name, std::span<std::int64_t> values) {
  reduce(Function::kSumIntegers, name, values, [](std::int64_t a, std::int64_t b) { return a + b; });
}

void FramedHostComm::all_reduce_max(std::string_view name, std::span<std::int64_t> values) {
  reduce(Function::kMaxIntegers, name, values, [](std::int64_t a, std::int64_t b) { return std::max(a, b); });
}

void FramedHostComm::all_reduce_sum(std::string_view name, std::span<double> values) {
  reduce(Function::kSumDoubles, name, values, [](double a, double b) { return a + b; });
}

void FramedHostComm::barrier(std::string_view name) { exchange_frames(Function::kBarrier, name, 0, {}); }

bool SingleHostComm::report_failure(ExitCode /*code*/) noexcept { return true; }
ExitCode SingleHostComm::reported_failure() const noexcept { return ExitCode::kDone; }

void SingleHostComm::exchange(const std::string& /*call*/, std::span<const std::byte> mine,
                              std::span<const std::size_t> /*sizes*/, std::byte* all) {
  if (!mine.empty()) std::memcpy(all, mine.data(), mine.size());
}

void SingleHostComm::send_from(const std::string& /*call*/, int /*root*/, std::span<std::byte> /*data*/) {}

}  // namespace dtrain
