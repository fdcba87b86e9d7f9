#include "trainer/registry.h"

#include <algorithm>
#include <utility>

#include <fmt/ranges.h>

#include "configs/collator_names.h"
#include "configs/metric_names.h"
#include "core/error.h"

namespace dtrain {
namespace {

template <class Make>
void add(std::map<std::string, Make>& known, const char* what, const std::string& name, Make make) {
  if (name.empty()) throw usage_error(fmt::format("the plugin registers a {} without a name", what));
  if (!known.emplace(name, std::move(make)).second) {
    throw usage_error(fmt::format("the plugin registers the {} \"{}\" twice", what, name));
  }
}

template <class Make>
const Make* find(const std::map<std::string, Make>& known, const std::string& name) {
  const auto found = known.find(name);
  return found == known.end() ? nullptr : &found->second;
}

template <class Make>
std::string names_of(const std::map<std::string, Make>& known) {
  std::vector<std::string> names;
  for (const auto& [name, make] : known) names.push_back(name);
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

void Registry::add_model(const std::string& name, MakeModel make) { add(models_, "model", name, std::move(make)); }

void Registry::add_collator(const std::string& name, MakeCollator make) {
  if (is_collator_name(name)) {
    throw usage_error(fmt::format("the plugin registers a collator \"{}\", which dtrain has itself", name),
                      "give it another name");
  }
  add(collators_, "collator", name, std::move(make));
}

void Registry::add_metric(const std::string& name, MakeMetric make) {
  if (dtrain::find_metric(name) != nullptr) {
    throw usage_error(fmt::format("the plugin registers a metric \"{}\", which dtrain has itself", name),
                      "give it another name");
  }
  add(metrics_, "metric", name, std::move(make));
}

const Registry::MakeModel* Registry::find_model(const std::string& name) const { return find(models_, name); }
const Registry::MakeCollator* Registry::find_collator(const std::string& name) const { return find(collators_, name); }
const Registry::MakeMetric* Registry::find_metric(const std::string& name) const { return find(metrics_, name); }

std::string Registry::text() const {
  return fmt::format("models {}; collators {}; metrics {}", names_of(models_), names_of(collators_),
                     names_of(metrics_));
}

}  // namespace dtrain
