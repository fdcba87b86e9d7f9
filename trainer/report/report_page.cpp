#include "trainer/report/report_page.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "configs/config_text.h"
#include "configs/setting.h"
#include "trainer/callbacks/progress_bar.h"
#include "trainer/evaluation.h"
#include "trainer/report/html.h"
#include "trainer/report/report_charts.h"

namespace dtrain {
namespace {

constexpr std::size_t kMostRows = 500;  // of the table of evaluations
constexpr std::size_t kMostCards = 6;   // of evaluation results

std::string run_name(const RunFiles& run) {
  const std::filesystem::path path = std::filesystem::absolute(run.folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

std::string head(const RunFiles& run) {
  return fmt::format(
      R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '{}'">
<title>{} · dtrain report</title>
<style>{}</style>
</head>
<body>
)",
      kReportScriptDigest, escape_html(run_name(run)), kReportStyle);
}

std::string state_line(const RunFiles& run) {
  if (!run.record) return R"(<p><span class="state">state not known</span></p>)";
  const RunRecord& record = *run.record;
  const char* kind = record.state == "done" ? " done" : record.state == "failed" ? " failed" : "";
  std::string line = fmt::format(R"(<p><span class="state{}">{}</span>)", kind, escape_html(record.state));
  if (record.exit) line += fmt::format(" exit code {}", *record.exit);
  if (!record.reason.empty()) line += ": " + escape_html(record.reason);
  for (const std::string& suspect : record.suspects) line += fmt::format(" <b>{}</b>", escape_html(suspect));
  return line + "</p>\n";
}

std::string header(const RunFiles& run) {
  std::string model = run.config ? run.config->model.path : "";
  if (!run.model_type.empty()) model += (model.empty() ? "" : ", ") + run.model_type;
  return fmt::format("<header>\n<h1>{}</h1>\n<p class=\"quiet\">{}{}</p>\n{}</header>\n", escape_html(run_name(run)),
                     escape_html(run.folder.string()), model.empty() ? "" : " · model " + escape_html(model),
                     state_line(run));
}

std::string notes_list(const RunFiles& run) {
  std::vector<std::string> notes = run.notes;
  if (!run.record) notes.emplace_back("there is no run.json: how the run ended is not known");
  if (run.record && run.record->state == "running") {
    notes.emplace_back("run.json says that the run goes on; a run that was killed could not change that");
  }
  if (const Series* loss = run.log.find("loss")) {
    const auto lost = std::count_if(loss->values.begin(), loss->values.end(), [](double v) { return std::isnan(v); });
    if (lost > 0) {
      const auto first = std::find_if(loss->values.begin(), loss->values.end(), [](double v) { return std::isnan(v); });
      notes.push_back(
          fmt::format("the training loss is not a number in {} of {} records, first at step {}: gaps in the chart",
                      lost, loss->values.size(), loss->steps[static_cast<std::size_t>(first - loss->values.begin())]));
    }
  }
  if (run.log.evaluations.empty()) notes.emplace_back("the run has not been evaluated");
  std::string list = "<ul class=\"notes\" aria-label=\"Notes\">\n";
  for (const std::string& note : notes) list += fmt::format("<li>{}</li>\n", escape_html(note));
  return notes.empty() ? "" : list + "</ul>\n";
}

// `value` is HTML already.
std::string card(const std::string& label, const std::string& value, const std::string& more = {}) {
  return fmt::format("<div><dt>{}</dt><dd>{}{}</dd></div>\n", escape_html(label), value,
                     more.empty() ? "" : fmt::format("<small>{}</small>", escape_html(more)));
}

std::string data_value(double value) {
  return fmt::format(R"(<data value="{}">{}</data>)", exact_text(value), number_text(value));
}

double sum_of(const Series* series) {
  double sum = 0;
  if (series == nullptr) return sum;
  for (const double value : series->values) sum += std::isfinite(value) ? value : 0;
  return sum;
}

double span_seconds(const RunLog& log) {
  double seconds = 0;
  for (const Series& series : log.training) {
    if (series.name.starts_with("seconds.")) seconds += sum_of(&series);
  }
  return seconds;
}

std::string duration(double seconds) {
  return seconds < 60 ? fmt::format("{:.1f} s", seconds) : format_duration(seconds);
}

std::string step_card(const RunFiles& run) {
  double step = run.record ? static_cast<double>(run.record->step) : 0;
  for (const Series& series : run.log.training) {
    if (!series.steps.empty()) step = std::max(step, series.steps.back());
  }
  const auto epoch = run.log.summary.find("epoch");
  return card("steps", count_text(step),
              (run.max_steps ? fmt::format("of {}", count_text(static_cast<double>(*run.max_steps))) : "") +
                  (epoch == run.log.summary.end() ? "" : fmt::format(" · epoch {}", number_text(epoch->second, 4))));
}

std::string speed_cards(const RunLog& log) {
  std::string cards;
  const auto runtime = log.summary.find("train_runtime");
  const double seconds = span_seconds(log);
  if (runtime != log.summary.end()) {
    cards += card("wall time", duration(runtime->second), "of the training");
  } else if (seconds > 0) {
    cards += card("wall time", duration(seconds), "of the logged steps");
  }
  const auto rate = log.summary.find("train_samples_per_second");
  if (rate != log.summary.end()) cards += card("samples/s", data_value(rate->second), "of the training");
  const double tokens = sum_of(log.find("tokens"));
  const double elements = sum_of(log.find("input_elements"));
  if (seconds > 0 && tokens > 0) {
    cards += card("tokens/s", number_text(tokens / seconds, 4),
                  elements > 0 ? fmt::format("{:.0f} % of the batches is padding", 100 * (1 - tokens / elements)) : "");
  }
  return cards;
}

std::string cards(const RunFiles& run) {
  std::string list = "<dl class=\"cards\">\n" + step_card(run);
  if (run.record && run.record->best_metric) {
    const std::string name = run.config && run.config->training.metric_for_best_model
                                 ? short_metric_name(best_metric_name(run.config->training))
                                 : "metric";
    list += card("best " + name, data_value(*run.record->best_metric),
                 run.record->best_step ? "step " + count_text(static_cast<double>(*run.record->best_step)) : "");
  }
  const bool has_results = !run.final_evaluation.empty();
  const std::map<std::string, double> none;
  const auto& results = has_results                   ? run.final_evaluation
                        : run.log.evaluations.empty() ? none
                                                      : run.log.evaluations.back().values;
  std::size_t shown = 0;
  for (const std::string& key : metric_keys(run.log)) {
    const auto found = results.find(key);
    if (found == results.end() || shown == kMostCards) continue;
    ++shown;
    list += card("eval " + short_metric_name(key), data_value(found->second),
                 has_results ? "final model" : fmt::format("step {}", count_text(run.log.evaluations.back().step)));
  }
  return list + speed_cards(run.log) + "</dl>\n";
}

std::string evaluation_row(const EvaluationRow& row, const std::vector<std::string>& keys, bool is_best) {
  std::string cells = fmt::format(R"(<tr{}><th scope="row">{}{}</th>)", is_best ? " class=\"marked\"" : "",
                                  count_text(row.step), is_best ? " best" : "");
  const auto cell = [&](std::optional<double> value) {
    cells += fmt::format("<td>{}</td>", value ? data_value(*value) : "–");
  };
  cell(row.epoch);
  cell(row.train_loss);
  for (const std::string& key : keys) {
    const auto found = row.values.find(key);
    cell(found == row.values.end() ? std::nullopt : std::optional(found->second));
  }
  return cells + "</tr>\n";
}

std::string evaluation_table(const RunFiles& run) {
  const std::vector<EvaluationRow>& rows = run.log.evaluations;
  if (rows.empty()) return "";
  std::vector<std::string> keys = metric_keys(run.log);
  keys.emplace_back("eval_runtime");
  const BestStep best = best_step(run);
  // Thinned evenly; the best one always stays.
  std::set<std::size_t> shown;
  const std::size_t wanted = std::min(rows.size(), kMostRows);
  for (std::size_t i = 0; i < wanted; ++i) shown.insert(wanted == 1 ? 0 : i * (rows.size() - 1) / (wanted - 1));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (best.step == rows[i].step) shown.insert(i);
  }
  std::string table = "<h2>Evaluations</h2>\n";
  if (best.step) table += fmt::format("<p class=\"quiet\">Marked: {}.</p>\n", escape_html(best.reason));
  if (shown.size() < rows.size()) {
    table += fmt::format("<p class=\"quiet\">{} of {} are shown.</p>\n", shown.size(), rows.size());
  }
  table +=
      "<div class=\"scroll\" role=\"region\" aria-label=\"Evaluations\" tabindex=\"0\">\n<table id=\"evaluations\">\n"
      "<thead><tr><th scope=\"col\">step</th><th scope=\"col\">epoch</th><th scope=\"col\">train loss</th>";
  for (const std::string& key : keys) {
    table += fmt::format(R"(<th scope="col">{}</th>)",
                         key == "eval_runtime" ? "seconds" : escape_html(short_metric_name(key)));
  }
  table += "</tr></thead>\n<tbody>\n";
  for (const std::size_t i : shown) table += evaluation_row(rows[i], keys, best.step == rows[i].step);
  return table + "</tbody>\n</table>\n</div>\n";
}

// One table a section: of the settings that differ from their defaults, or of all, with those marked.
std::string settings_tables(const TrainConfig& config, bool all) {
  std::string tables;
  for (const SettingSection& section : all_sections()) {
    std::string rows;
    for (const Setting& setting : all_settings()) {
      const Json value = setting.get(config);
      const bool is_default = value == setting.default_value;
      if (setting.section != section.name || (is_default && !all)) continue;
      rows += fmt::format("<tr{}><th scope=\"row\">{}</th><td><code>{}</code></td></tr>\n",
                          all && !is_default ? " class=\"marked\"" : "", escape_html(setting.key),
                          escape_html(value.is_null() ? "not set" : value_text(setting, value)));
    }
    if (rows.empty()) continue;
    tables += fmt::format("<h3>{0}</h3>\n<div class=\"scroll settings\"><table><tbody>\n{1}</tbody></table></div>\n",
                          escape_html(section.name), rows);
  }
  return tables;
}

std::string settings(const RunFiles& run) {
  if (!run.config) return "";
  return fmt::format(
      "<h2>Settings</h2>\n<p class=\"quiet\">From {}. These differ from the defaults:</p>\n{}"
      "<details>\n<summary>All {} settings</summary>\n{}</details>\n",
      escape_html(run.config_file), settings_tables(*run.config, false), all_settings().size(),
      settings_tables(*run.config, true));
}

}  // namespace

std::string report_html(const RunFiles& run) {
  const std::string charts = charts_html(run);
  return head(run) + header(run) + notes_list(run) + cards(run) +
         (charts.empty() ? "" : "<h2>Charts</h2>\n<div class=\"charts\">\n" + charts + "</div>\n") +
         evaluation_table(run) + settings(run) + "<footer class=\"quiet\">dtrain report</footer>\n" +
         fmt::format("<script>{}</script>\n</body>\n</html>\n", kReportScript);
}

}  // namespace dtrain
