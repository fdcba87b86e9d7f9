#include "dist/framed_host_comm.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace dtrain {

// One call in the flight recorder, from its beginning to done(); a call that throws never ends there.
class FramedHostComm::Entry {
 public:
  Entry(FlightRecorder& recorder, Function function, std::string_view name, std::span<const std::byte> payload)
      : function_(function),
        recorder_(recorder),
        busy_seconds_(recorder.busy_seconds()),
        sequence_(recorder.started(kFunctionNames[static_cast<std::size_t>(function)], name,
                                   needs_same_size(function) ? static_cast<std::int64_t>(payload.size()) : -1)),
        wait_(recorder) {}
  void done() { recorder_.ended(sequence_); }
  [[nodiscard]] Function function() const { return function_; }
  [[nodiscard]] std::uint64_t sequence() const { return sequence_; }
  [[nodiscard]] float busy_seconds() const { return static_cast<float>(busy_seconds_); }

 private:
  Function function_;
  FlightRecorder& recorder_;
  double busy_seconds_;
  std::uint64_t sequence_;
  FlightRecorder::Wait wait_;
};

std::string FramedHostComm::describe(const Frame& frame) {
  const auto index = std::min<std::size_t>(static_cast<std::size_t>(frame.function), std::size(kFunctionNames) - 1);
  const std::string_view name(frame.name, std::min<std::size_t>(frame.name_length, kNameBytes));
  return fmt::format("{} \"{}\"", kFunctionNames[index], name);
}

bool FramedHostComm::needs_same_size(Function function) {
  return function != Function::kBroadcast && function != Function::kAllGather;
}

std::vector<FramedHostComm::Frame> FramedHostComm::exchange_frames(const Entry& entry, std::string_view name, int root,
                                                                   std::span<const std::byte> payload) {
  DTRAIN_CHECK(root >= 0 && root < size(), "root {} of {} ranks in \"{}\"", root, size(), name);
  Frame mine;
  mine.function = entry.function();
  mine.sequence = entry.sequence();
  mine.busy_seconds = entry.busy_seconds();
  mine.root = root;
  mine.size = static_cast<std::int64_t>(payload.size());
  mine.name_length = static_cast<std::uint8_t>(std::min(name.size(), kNameBytes));
  std::memcpy(mine.name, name.data(), mine.name_length);
  if (payload.size() <= kInlineBytes && !payload.empty()) std::memcpy(mine.payload, payload.data(), payload.size());

  std::vector<Frame> frames(static_cast<std::size_t>(size()));
  const std::vector<std::size_t> sizes(frames.size(), kFrameBytes);
  exchange(describe(mine), std::as_bytes(std::span(&mine, 1)), sizes, reinterpret_cast<std::byte*>(frames.data()));

  compare(frames);
  std::vector<float> busy(frames.size());
  std::transform(frames.begin(), frames.end(), busy.begin(), [](const Frame& frame) { return frame.busy_seconds; });
  recorder().set_busy_by_rank(std::move(busy));
  return frames;
}

// All ranks see the same frames, so all throw the same error.
void FramedHostComm::compare(const std::vector<Frame>& frames) const {
  const Frame& first = frames.front();
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
    if (needs_same_size(first.function) && other.size != first.size) {
      throw disagree_error(
          fmt::format("{}: rank 0 gives {} bytes, rank {} gives {}", describe(first), first.size, r, other.size),
          "all ranks must give the same number of values");
    }
    if (other.sequence != first.sequence) {
      throw disagree_error(
          fmt::format(
              "{} is collective {} of rank 0 and collective {} of rank {}: rank {} has left out {}", describe(first),
              first.sequence, other.sequence, r, other.sequence < first.sequence ? r : 0,
              other.sequence < first.sequence ? first.sequence - other.sequence : other.sequence - first.sequence),
          "the ranks took different ways through the program: this is a defect in dtrain or in a callback");
    }
  }
}

void FramedHostComm::broadcast(std::string_view name, std::string& bytes, int root) {
  const bool sender = rank() == root;
  const auto payload = sender ? std::as_bytes(std::span(bytes)) : std::span<const std::byte>();
  Entry entry(recorder(), Function::kBroadcast, name, payload);
  const auto frames = exchange_frames(entry, name, root, payload);
  const Frame& source = frames[static_cast<std::size_t>(root)];
  const auto count = static_cast<std::size_t>(source.size);
  if (!sender) bytes.resize(count);
  if (count <= kInlineBytes) {
    if (!sender && count > 0) std::memcpy(bytes.data(), source.payload, count);
  } else {
    send_from(describe(source), root, std::as_writable_bytes(std::span(bytes)));
  }
  entry.done();
}

std::vector<std::string> FramedHostComm::all_gather(std::string_view name, std::string_view bytes) {
  const auto payload = std::as_bytes(std::span(bytes));
  Entry entry(recorder(), Function::kAllGather, name, payload);
  const auto frames = exchange_frames(entry, name, 0, payload);
  std::vector<std::size_t> sizes(frames.size());
  std::transform(frames.begin(), frames.end(), sizes.begin(),
                 [](const Frame& frame) { return static_cast<std::size_t>(frame.size); });
  std::vector<std::string> result(frames.size());
  if (*std::max_element(sizes.begin(), sizes.end()) <= kInlineBytes) {
    for (std::size_t r = 0; r < frames.size(); ++r) {
      result[r].assign(reinterpret_cast<const char*>(frames[r].payload), sizes[r]);
    }
    entry.done();
    return result;
  }
  std::string all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), '\0');
  exchange(describe(frames.front()), payload, sizes, reinterpret_cast<std::byte*>(all.data()));
  std::size_t offset = 0;
  for (std::size_t r = 0; r < frames.size(); ++r) {
    result[r] = all.substr(offset, sizes[r]);
    offset += sizes[r];
  }
  entry.done();
  return result;
}

template <class T, class Combine>
void FramedHostComm::reduce(Function function, std::string_view name, std::span<T> values, Combine combine) {
  const auto payload = std::as_bytes(values);
  Entry entry(recorder(), function, name, payload);
  const auto frames = exchange_frames(entry, name, 0, payload);
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
  entry.done();
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

void FramedHostComm::barrier(std::string_view name) {
  Entry entry(recorder(), Function::kBarrier, name, {});
  exchange_frames(entry, name, 0, {});
  entry.done();
}

bool SingleHostComm::report_failure(ExitCode /*code*/) noexcept { return true; }
ExitCode SingleHostComm::reported_failure() const noexcept { return ExitCode::kDone; }

void SingleHostComm::exchange(const std::string& /*call*/, std::span<const std::byte> mine,
                              std::span<const std::size_t> /*sizes*/, std::byte* all) {
  if (!mine.empty()) std::memcpy(all, mine.data(), mine.size());
}

void SingleHostComm::send_from(const std::string& /*call*/, int /*root*/, std::span<std::byte> /*data*/) {}

}  // namespace dtrain
