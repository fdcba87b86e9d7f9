// Charts as HTML: an SVG that stretches with the page, with text beside it that does not. Each has a caption, a legend,
// a title and a description for screen readers, and a line that says the last values; the script of the page makes that
// line follow the pointer. Pure functions; all names are escaped here.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/report/series.h"

namespace dtrain {

// Points drawn per line at most, about.
inline constexpr std::size_t kPointsOfLine = 1000;

struct LineChart {
  std::string title = {};
  std::string unit = {};  // "tokens/s", or "" for none
  std::vector<Series> lines = {};
  bool from_zero = false;
  bool may_be_logarithmic = false;                 // see spread_axis
  std::optional<double> best_step = std::nullopt;  // marked by a vertical line
  bool wide = false;                               // as wide as the page
};

struct StackedChart {
  std::string title;
  std::string unit;
  std::vector<double> starts;  // each bar stands from starts[i] to the step of its values
  std::vector<Series> parts;   // from bottom to top; all have the same steps
};

// `number`: unique in the page, for ids. The steps of all charts of a page have one axis.
[[nodiscard]] std::string line_chart_html(const LineChart& chart, const Axis& steps, int number);
[[nodiscard]] std::string stacked_chart_html(const StackedChart& chart, const Axis& steps, int number);

// The d attribute of the line through all points: a new part after each NaN, and a dot for a point without neighbours.
// Coordinates are from 0 to 1000, y downwards.
[[nodiscard]] std::string path_of(const Series& line, const Axis& steps, const Axis& values);

}  // namespace dtrain
