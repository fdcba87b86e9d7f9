#include "trainer/report/series.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "trainer/report/html.h"

namespace dtrain {
namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

// The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is at least `step`.
double nice_step(double step) {
  const double power = std::pow(10, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

// Ticks at the multiples of `step` from low to high, with as many digits as tell them apart.
std::vector<Axis::Tick> ticks_between(double low, double high, double step) {
  std::vector<Axis::Tick> ticks;
  const double first = std::ceil(low / step - 1e-6);
  const double last = std::floor(high / step + 1e-6);
  // Counted, not added up: beyond 2^53 a step may vanish in the sum.
  for (int i = 0; i <= 50 && first + i <= last; ++i) {
    const double value = (first + i) * step;
    ticks.push_back({value, tick_text(value, step)});
  }
  return ticks;
}

std::vector<double> finite(std::span<const double> values) {
  std::vector<double> kept;
  std::copy_if(values.begin(), values.end(), std::back_inserter(kept), [](double v) { return std::isfinite(v); });
  return kept;
}

}  // namespace

std::vector<std::size_t> sample_for_display(std::span<const double> values, std::size_t limit) {
  std::vector<std::size_t> kept;
  const std::size_t count = values.size();
  if (count <= limit) {
    for (std::size_t i = 0; i < count; ++i) kept.push_back(i);
    return kept;
  }
  const std::size_t buckets = std::max<std::size_t>(limit / 3, 1);
  kept.push_back(0);
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
    const std::size_t end = count * (bucket + 1) / buckets;
    std::size_t low = kNone;
    std::size_t high = kNone;
    std::size_t gap = kNone;
    for (std::size_t i = count * bucket / buckets; i < end; ++i) {
      if (std::isnan(values[i])) {
        if (gap == kNone) gap = i;
        continue;
      }
      if (low == kNone || values[i] < values[low]) low = i;
      if (high == kNone || values[i] > values[high]) high = i;
    }
    for (const std::size_t index : {low, high, gap}) {
      if (index != kNone) kept.push_back(index);
    }
  }
  kept.push_back(count - 1);
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

Series at_indices(const Series& series, std::span<const std::size_t> indices) {
  Series sampled{.name = series.name, .steps = {}, .values = {}};
  for (const std::size_t index : indices) sampled.add(series.steps[index], series.values[index]);
  return sampled;
}

Series means_of(const Series& series, std::size_t buckets) {
  Series means{.name = series.name, .steps = {}, .values = {}};
  const std::size_t count = series.values.size();
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
    const std::size_t first = count * bucket / buckets;
    const std::size_t end = count * (bucket + 1) / buckets;
    double sum = 0;
    double numbers = 0;
    for (std::size_t i = first; i < end; ++i) {
      if (!std::isfinite(series.values[i])) continue;
      sum += series.values[i];
      ++numbers;
    }
    if (end > first) means.add(series.steps[(first + end) / 2], sum / numbers);  // 0 / 0: NaN
  }
  return means;
}

double Axis::position(double value) const {
  if (logarithmic) return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
  return (value - low) / (high - low);
}

Axis value_axis(std::span<const double> values, bool from_zero, int wanted) {
  const std::vector<double> known = finite(values);
  if (known.empty()) return {.low = 0, .high = 1, .ticks = {{0, "0"}, {1, "1"}}};
  double low = *std::min_element(known.begin(), known.end());
  double high = *std::max_element(known.begin(), known.end());
  if (from_zero) {
    low = std::min(low, 0.0);
    high = std::max(high, 0.0);
  }
  // Values that differ by less than their own rounding are one value.
  const double size = std::max(std::abs(low), std::abs(high));
  if (high - low <= size * 1e-12) {
    const double room = size > 0 ? size * 0.1 : 1;
    if (!from_zero) low -= room;
    high += room;
  }
  const double step = nice_step((high - low) / wanted);
  Axis axis{.low = std::floor(low / step + 1e-6) * step, .high = std::ceil(high / step - 1e-6) * step, .ticks = {}};
  axis.ticks = ticks_between(axis.low, axis.high, step);
  return axis;
}

Axis spread_axis(std::span<const double> values, bool from_zero) {
  std::vector<double> known = finite(values);
  if (known.empty()) return value_axis(values, from_zero);
  const auto middle = known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2);
  std::nth_element(known.begin(), middle, known.end());
  const double median = *middle;
  const double low = *std::min_element(known.begin(), known.end());
  const double high = *std::max_element(known.begin(), known.end());
  if (low <= 0 || high <= 50 * median) return value_axis(values, from_zero);
  const double first = std::floor(std::log10(low));
  const double last = std::ceil(std::log10(high));
  const double step = std::max(1.0, std::ceil((last - first) / 5));
  Axis axis{.low = std::pow(10, first), .high = std::pow(10, last), .logarithmic = true, .ticks = {}};
  for (double power = first; power <= last; power += step) {
    const double value = std::pow(10, power);
    axis.ticks.push_back({value, tick_text(value, value)});
  }
  return axis;
}

Axis step_axis(double first, double last, int wanted) {
  if (!(last > first)) return {.low = first - 1, .high = first + 1, .ticks = {{first, tick_text(first, 1)}}};
  const double step = std::max(1.0, nice_step((last - first) / wanted));
  return {.low = first, .high = last, .ticks = ticks_between(first, last, step)};
}

}  // namespace dtrain
