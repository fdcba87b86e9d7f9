// Series: the values of one key of log.jsonl over the steps, and what charts need of them. Plain values and functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace dtrain {

struct Series {
  std::string name;
  std::vector<double> steps;   // ascending
  std::vector<double> values;  // as many; NaN: not a number in the log, a gap in the chart

  void add(double step, double value) {
    steps.push_back(step);
    values.push_back(value);
  }
};

// Indices, ascending, of about `limit` elements at most that draw the same picture: the first and the last, and of each
// bucket of neighbours the smallest, the largest and one NaN. All of them when there are no more than `limit`.
[[nodiscard]] std::vector<std::size_t> sample_for_display(std::span<const double> values, std::size_t limit);

// The elements of `series` at `indices`.
[[nodiscard]] Series at_indices(const Series& series, std::span<const std::size_t> indices);

// The means of `buckets` parts of the series, each at the step in the middle of its part; values that are no numbers
// are left out, and a part without any is NaN.
[[nodiscard]] Series means_of(const Series& series, std::size_t buckets);

// An axis: its ends, which are among its ticks where `nice`, and the ticks with their text.
struct Axis {
  struct Tick {
    double value = 0;
    std::string text;
  };
  double low = 0;
  double high = 1;
  bool logarithmic = false;
  std::vector<Tick> ticks;

  // Where `value` stands between low (0) and high (1).
  [[nodiscard]] double position(double value) const;
};

// Ticks at 1, 2, 2.5 or 5 times a power of ten, about `wanted` of them, and ends that are ticks. A constant gets room
// on both sides; from_zero includes 0. Not finite values are ignored; without any the axis is 0 to 1.
[[nodiscard]] Axis value_axis(std::span<const double> values, bool from_zero, int wanted = 4);

// The same for values of which the largest dwarf the rest: logarithmic when all are positive and the largest is more
// than 50 times their median, else value_axis.
[[nodiscard]] Axis spread_axis(std::span<const double> values, bool from_zero);

// Steps: whole numbers at the ticks, ends at the first and last step. A single step stands in the middle.
[[nodiscard]] Axis step_axis(double first, double last, int wanted = 5);

}  // namespace dtrain
