#include "trainer/report/chart.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "trainer/report/html.h"

namespace dtrain {
namespace {

constexpr double kSize = 1000;           // of the coordinates, both ways
constexpr std::size_t kDottedUpTo = 60;  // a line of no more points shows each as a dot
constexpr std::size_t kRoughFrom = 300;  // a line of more points is drawn faintly, and the means of its parts on it
constexpr std::size_t kMeans = 100;
constexpr std::size_t kDenseFrom = 100;  // bars, which would be too thin for an edge of their own
constexpr std::size_t kColours = 6;      // of the page's style sheet

double x_of(double step, const Axis& steps) { return kSize * std::clamp(steps.position(step), -1.0, 2.0); }
double y_of(double value, const Axis& values) { return kSize * (1 - std::clamp(values.position(value), -1.0, 2.0)); }

// With one decimal where it is not 0.
std::string coordinate(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string point(double x, double y) { return coordinate(x) + " " + coordinate(y); }

bool drawable(double value, const Axis& values) { return std::isfinite(value) && (!values.logarithmic || value > 0); }

std::string dots_of(const Series& line, const Axis& steps, const Axis& values) {
  std::string path;
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    if (drawable(line.values[i], values)) {
      path += "M" + point(x_of(line.steps[i], steps), y_of(line.values[i], values)) + "h0";
    }
  }
  return path;
}

std::string title_with_unit(const std::string& title, const std::string& unit) {
  return unit.empty() ? title : fmt::format("{}, {}", title, unit);
}

// Attributes with the numbers of a line, for the script.
std::string data_attributes(const Series& line) {
  std::string steps;
  std::string values;
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    const char* separator = i == 0 ? "" : " ";
    steps += fmt::format("{}{}", separator, line.steps[i]);
    values += separator + (std::isfinite(line.values[i]) ? fmt::format("{:.6g}", line.values[i]) : "-");
  }
  return fmt::format(R"( data-name="{}" data-steps="{}" data-values="{}")", escape_html(line.name), steps, values);
}

struct Extremes {
  std::size_t low = 0;
  std::size_t high = 0;
  std::size_t last = 0;
  bool any = false;
};

Extremes extremes_of(const Series& line) {
  Extremes found;
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    if (!std::isfinite(line.values[i])) continue;
    if (!found.any || line.values[i] < line.values[found.low]) found.low = i;
    if (!found.any || line.values[i] > line.values[found.high]) found.high = i;
    found.last = i;
    found.any = true;
  }
  return found;
}

// What the picture says, in a sentence a line.
std::string description_of(const std::vector<Series>& lines) {
  std::string text;
  for (const Series& line : lines) {
    const Extremes found = extremes_of(line);
    if (!found.any) {
      text += fmt::format("{}: no number. ", line.name);
      continue;
    }
    text += fmt::format("{}: {} values, smallest {} at step {}, largest {} at step {}, last {} at step {}. ", line.name,
                        line.values.size(), number_text(line.values[found.low]), count_text(line.steps[found.low]),
                        number_text(line.values[found.high]), count_text(line.steps[found.high]),
                        number_text(line.values[found.last]), count_text(line.steps[found.last]));
  }
  if (text.ends_with(' ')) text.pop_back();
  return text;
}

// The line below a chart before the pointer has been anywhere.
std::string last_values(const std::vector<Series>& lines) {
  std::string text;
  double step = 0;
  for (const Series& line : lines) {
    const Extremes found = extremes_of(line);
    if (!found.any) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : " · ", line.name, number_text(line.values[found.last], 4));
    step = std::max(step, line.steps[found.last]);
  }
  return text.empty() ? "no number was logged" : fmt::format("step {}: {}", count_text(step), text);
}

std::string legend_entry(const std::string& swatch, const std::string& name) {
  return fmt::format(R"(<li><svg class="swatch" viewBox="0 0 24 10" aria-hidden="true">{}</svg>{}</li>)", swatch,
                     escape_html(name));
}

std::string grid(const Axis& steps, const Axis& values) {
  std::string path;
  for (const Axis::Tick& tick : values.ticks) path += fmt::format("M0 {}H1000", coordinate(y_of(tick.value, values)));
  for (const Axis::Tick& tick : steps.ticks) path += fmt::format("M{} 0V1000", coordinate(x_of(tick.value, steps)));
  return fmt::format(R"(<path class="grid" d="{}"/>)", path);
}

std::string tick_labels(const Axis& axis, const char* edge) {
  std::string labels;
  for (const Axis::Tick& tick : axis.ticks) {
    labels += fmt::format(R"(<span style="{}:{:.2f}%">{}</span>)", edge, 100 * axis.position(tick.value), tick.text);
  }
  return labels;
}

// What both kinds of chart have around their marks.
std::string figure(const std::string& title, const std::string& unit, const std::vector<Series>& lines,
                   const std::string& legend, const std::string& marks, const Axis& steps, const Axis& values,
                   int number, bool wide, bool has_means) {
  std::vector<std::string> notes;
  if (!unit.empty()) notes.push_back(unit);
  if (values.logarithmic) notes.emplace_back("logarithmic scale");
  if (has_means) notes.emplace_back("bold: means");
  const std::string note = fmt::format("{}", fmt::join(notes, ", "));
  return fmt::format(
      R"(<figure class="chart{wide}">
<figcaption>{title} <small>{note}</small></figcaption>
<ul class="legend">{legend}</ul>
<div class="plot">
<div class="values" aria-hidden="true">{value_labels}</div>
<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-labelledby="t{number} d{number}" data-low="{low}" data-high="{high}">
<title id="t{number}">{full_title}</title><desc id="d{number}">{description}</desc>
{grid}{marks}<path class="cursor" d=""/></svg>
<div class="steps" aria-hidden="true"><b>step</b>{step_labels}</div>
</div>
<p class="readout">{last}</p>
</figure>
)",
      fmt::arg("wide", wide ? " wide" : ""), fmt::arg("title", escape_html(title)), fmt::arg("note", escape_html(note)),
      fmt::arg("legend", legend), fmt::arg("value_labels", tick_labels(values, "bottom")), fmt::arg("number", number),
      fmt::arg("low", steps.low), fmt::arg("high", steps.high),
      fmt::arg("full_title", escape_html(title_with_unit(title, unit) + " over steps")),
      fmt::arg("description", escape_html(description_of(lines))), fmt::arg("grid", grid(steps, values)),
      fmt::arg("marks", marks), fmt::arg("step_labels", tick_labels(steps, "left")),
      fmt::arg("last", escape_html(last_values(lines))));
}

}  // namespace

std::string path_of(const Series& line, const Axis& steps, const Axis& values) {
  std::string path;
  const std::size_t count = line.values.size();
  const auto has = [&](std::size_t i) { return i < count && drawable(line.values[i], values); };
  for (std::size_t i = 0; i < count; ++i) {
    if (!has(i)) continue;
    const bool goes_on = i > 0 && has(i - 1);
    path += (goes_on ? "L" : "M") + point(x_of(line.steps[i], steps), y_of(line.values[i], values));
    if (!goes_on && !has(i + 1)) path += "h0";
  }
  return path;
}

std::string line_chart_html(const LineChart& chart, const Axis& steps, int number) {
  std::vector<double> all;
  for (const Series& line : chart.lines) all.insert(all.end(), line.values.begin(), line.values.end());
  const Axis values = chart.may_be_logarithmic ? spread_axis(all, chart.from_zero) : value_axis(all, chart.from_zero);
  std::string marks;
  std::string legend;
  bool has_means = false;
  if (chart.best_step) {
    const std::string x = coordinate(x_of(*chart.best_step, steps));
    marks += fmt::format(R"(<path class="best" d="M{} 0V1000"/>)", x);
  }
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    const Series line = at_indices(chart.lines[i], sample_for_display(chart.lines[i].values, kPointsOfLine));
    const std::size_t colour = i % kColours;
    const bool is_rough = chart.lines[i].values.size() > kRoughFrom;
    marks += fmt::format(R"(<path class="line{} c{}"{} d="{}"/>)", is_rough ? " faint" : "", colour,
                         data_attributes(line), path_of(line, steps, values));
    if (is_rough) {
      has_means = true;
      marks += fmt::format(R"(<path class="line c{}" d="{}"/>)", colour,
                           path_of(means_of(chart.lines[i], kMeans), steps, values));
    }
    if (line.values.size() <= kDottedUpTo) {
      marks += fmt::format(R"(<path class="dots c{}" d="{}"/>)", colour, dots_of(line, steps, values));
    }
    if (chart.lines.size() > 1 || chart.best_step) {
      legend += legend_entry(fmt::format(R"(<path class="line c{}" d="M0 5H24"/>)", colour), line.name);
    }
  }
  if (chart.best_step) {
    legend += legend_entry(R"(<path class="best" d="M12 0V10"/>)",
                           fmt::format("best: step {}", count_text(*chart.best_step)));
  }
  return figure(chart.title, chart.unit, chart.lines, legend, marks, steps, values, number, chart.wide, has_means);
}

std::string stacked_chart_html(const StackedChart& chart, const Axis& steps, int number) {
  // The parts are thinned together, by their sum: the tallest bars stay.
  std::vector<double> sums(chart.starts.size(), 0.0);
  for (const Series& part : chart.parts) {
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += part.values[i];
  }
  const std::vector<std::size_t> shown = sample_for_display(sums, kPointsOfLine);
  const Axis values = value_axis(sums, /*from_zero=*/true);
  std::vector<double> floor(shown.size(), 0.0);
  std::string marks;
  std::string legend;
  for (std::size_t p = 0; p < chart.parts.size(); ++p) {
    const Series part = at_indices(chart.parts[p], shown);
    // One outline: along the top to the right, and along the bottom back.
    std::string top;
    std::string bottom;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      const double start = i == 0 || shown[i] == shown[i - 1] + 1 ? chart.starts[shown[i]] : part.steps[i - 1];
      const std::string left = coordinate(std::max(0.0, x_of(start, steps)));
      const std::string right = coordinate(x_of(part.steps[i], steps));
      const double height = std::isfinite(part.values[i]) ? part.values[i] : 0;
      const std::string low = coordinate(y_of(floor[i], values));
      floor[i] += height;
      const std::string high = coordinate(y_of(floor[i], values));
      top += fmt::format("{}{} {}H{}", i == 0 ? "M" : "L", left, high, right);
      bottom = fmt::format("L{} {}H{}", right, low, left) + bottom;
    }
    // From top to bottom: the edges of a thin bar show the colours of its tall parts, and the legend stands as they do.
    const std::size_t colour = p % kColours;
    marks = fmt::format(R"(<path class="area{} c{}"{} d="{}{}Z"/>)", shown.size() > kDenseFrom ? " dense" : "", colour,
                        data_attributes(part), top, bottom) +
            marks;
    legend = legend_entry(fmt::format(R"(<path class="area c{}" d="M4 0H20V10H4Z"/>)", colour), part.name) + legend;
  }
  const std::vector<Series> from_top(chart.parts.rbegin(), chart.parts.rend());
  return figure(chart.title, chart.unit, from_top, legend, marks, steps, values, number, /*wide=*/false,
                /*has_means=*/false);
}

}  // namespace dtrain
