#include "dist/flight_recorder.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace dtrain {
namespace {

template <std::size_t N>
void fill(std::array<char, N>& field, std::string_view text) {
  const std::size_t count = std::min(text.size(), N - 1);
  std::memcpy(field.data(), text.data(), count);
  field[count] = '\0';
}

}  // namespace

double monotonic_seconds() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

FlightRecorder::FlightRecorder() : ring_(kCapacity) {}

std::uint64_t FlightRecorder::started(std::string_view operation, std::string_view name, std::int64_t bytes) {
  const double now = monotonic_seconds();
  const std::lock_guard lock(mutex_);
  CollectiveRecord& record = ring_[++last_ % kCapacity];
  record.sequence = last_;
  record.bytes = bytes;
  record.step = step();
  record.started = now;
  record.ended = 0;
  fill(record.operation, operation);
  fill(record.name, name);
  return last_;
}

void FlightRecorder::ended(std::uint64_t sequence) {
  const double now = monotonic_seconds();
  const std::lock_guard lock(mutex_);
  CollectiveRecord& record = ring_[sequence % kCapacity];
  if (record.sequence == sequence) record.ended = now;
}

std::uint64_t FlightRecorder::last_started() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

bool FlightRecorder::under_way() const {
  const std::lock_guard lock(mutex_);
  return last_ > 0 && ring_[last_ % kCapacity].ended == 0;
}

std::size_t FlightRecorder::copy(std::array<CollectiveRecord, kCapacity>& into) const {
  const std::lock_guard lock(mutex_);
  const std::uint64_t count = std::min<std::uint64_t>(last_, kCapacity);
  for (std::uint64_t i = 0; i < count; ++i) into[i] = ring_[(last_ - count + 1 + i) % kCapacity];
  return count;
}

void FlightRecorder::begin_step(std::int64_t step) {
  step_.store(step, std::memory_order_relaxed);
  waited_.store(0, std::memory_order_relaxed);
  step_began_.store(monotonic_seconds(), std::memory_order_relaxed);
}

double FlightRecorder::busy_seconds() const {
  const double began = step_began_.load(std::memory_order_relaxed);
  return began == 0 ? 0 : std::max(0.0, monotonic_seconds() - began - waited_.load(std::memory_order_relaxed));
}

}  // namespace dtrain
