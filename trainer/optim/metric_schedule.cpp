#include "trainer/optim/metric_schedule.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include <ATen/ops/empty.h>

#include "core/error.h"
#include "trainer/optim/schedule_kwargs.h"

namespace dtrain {
namespace {

template <class Value>
at::Tensor row(const std::vector<Value>& values, at::ScalarType type) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<Value>());
  return tensor;
}

// The values of tensor `name`, `least` of them or more.
template <class Value>
std::vector<Value> values_of(const SafetensorsFile& file, const std::string& name, at::ScalarType type,
                             std::size_t least) {
  const at::Tensor tensor = file.has(name) ? file.tensor(name) : at::Tensor();
  if (!tensor.defined() || tensor.scalar_type() != type || tensor.dim() != 1 ||
      tensor.numel() < static_cast<std::int64_t>(least)) {
    throw data_error(fmt::format("optimizer.safetensors: tensor \"{}\" is missing or has another type or shape", name),
                     "the checkpoint was not written by this version of dtrain");
  }
  const Value* first = tensor.const_data_ptr<Value>();
  return {first, first + tensor.numel()};
}

}  // namespace

MetricSchedule::MetricSchedule(std::string name, std::vector<double> peaks, const Options& options)
    : name_(std::move(name)), peaks_(std::move(peaks)), rates_(peaks_), options_(options) {
  for (const double peak : peaks_) {
    if (peak >= options_.min_rate) continue;
    throw usage_error(
        fmt::format("training.lr_scheduler_kwargs.min_lr: {} is above the learning rate {}, which could never fall",
                    options_.min_rate, peak),
        name_ == "greedy" ? "its default is 0.001; set lr_scheduler_kwargs = { min_lr = 1e-7 } or raise learning_rate"
                          : "lower min_lr, or raise learning_rate");
  }
  forget();
}

void MetricSchedule::forget() {
  best_ = options_.greater ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  counters_ = {.until_reset = counters_.until_reset};
}

bool MetricSchedule::is_better(double metric) const {
  if (options_.greater) {
    return metric > (options_.relative ? best_ * (1 + options_.threshold) : best_ + options_.threshold);
  }
  return metric < (options_.relative ? best_ * (1 - options_.threshold) : best_ - options_.threshold);
}

void MetricSchedule::lower_rates() {
  for (double& rate : rates_) {
    const double lower = std::max(rate * options_.factor, options_.min_rate);
    if (rate - lower > options_.epsilon) rate = lower;
  }
}

NamedTensors MetricSchedule::state() const {
  std::vector<double> rates = rates_;
  rates.insert(rates.end(), peaks_.begin(), peaks_.end());
  std::vector<double> metrics = {best_, window_sum_};
  metrics.insert(metrics.end(), window_.begin(), window_.end());
  const std::vector<std::int64_t> counts = {counters_.bad, counters_.good, counters_.cooldown, counters_.warmup,
                                            counters_.until_reset};
  return {{fmt::format("schedule.{}.rates", name_), row(rates, at::kDouble)},
          {fmt::format("schedule.{}.metrics", name_), row(metrics, at::kDouble)},
          {fmt::format("schedule.{}.counts", name_), row(counts, at::kLong)}};
}

void MetricSchedule::load_state(const SafetensorsFile& file) {
  const std::string rates_name = fmt::format("schedule.{}.rates", name_);
  if (!file.has(rates_name)) return;
  constexpr std::size_t kMetrics = 2;
  constexpr std::size_t kCounts = 5;
  const auto rates = values_of<double>(file, rates_name, at::kDouble, 2);
  const auto metrics = values_of<double>(file, fmt::format("schedule.{}.metrics", name_), at::kDouble, kMetrics);
  const auto counts = values_of<std::int64_t>(file, fmt::format("schedule.{}.counts", name_), at::kLong, kCounts);
  const std::size_t groups = rates_.size();
  if (rates.size() != 2 * groups) {
    throw data_error(fmt::format("the checkpoint has learning rates of {} parameter groups, this run has {}",
                                 rates.size() / 2, groups),
                     "undo the change of training.parameter_groups, or start a new run");
  }
  for (std::size_t group = 0; group < groups; ++group) {
    const double old_peak = rates[groups + group];
    if (old_peak == peaks_[group]) {
      rates_[group] = rates[group];
    } else {
      rates_[group] = old_peak > 0 ? rates[group] * (peaks_[group] / old_peak) : peaks_[group];
    }
  }
  best_ = metrics[0];
  window_sum_ = metrics[1];
  window_.assign(metrics.begin() + kMetrics, metrics.end());
  counters_ = {counts[0], counts[1], counts[2], counts[3], counts[4]};
}

namespace {

class Plateau final : public MetricSchedule {
 public:
  Plateau(const Json& kwargs, std::vector<double> peaks)
      : MetricSchedule("reduce_lr_on_plateau", std::move(peaks),
                       {.greater = kwargs.value("mode", "min") == "max",
                        .factor = kwargs.value("factor", 0.1),
                        .patience = kwargs.value<std::int64_t>("patience", 10),
                        .threshold = kwargs.value("threshold", 1e-4),
                        .relative = kwargs.value("threshold_mode", "rel") == "rel",
                        .cooldown = kwargs.value<std::int64_t>("cooldown", 0),
                        .min_rate = kwargs.value("min_lr", 0.0),
                        .epsilon = kwargs.value("eps", 1e-8)}) {}

  void step(double metric) override {
    if (is_better(metric)) {
      best_ = metric;
      counters_.bad = 0;
    } else {
      ++counters_.bad;
    }
    if (counters_.cooldown > 0) {
      --counters_.cooldown;
      counters_.bad = 0;
    }
    if (counters_.bad > options_.patience) {
      lower_rates();
      counters_.cooldown = options_.cooldown;
      counters_.bad = 0;
    }
  }
};

class Greedy final : public MetricSchedule {
 public:
  Greedy(const Json& kwargs, std::vector<double> peaks)
      : MetricSchedule("greedy", std::move(peaks),
                       {.greater = kwargs.value("mode", "min") == "max",
                        .factor = kwargs.value("factor", 0.95),
                        .patience = kwargs.value<std::int64_t>("patience", 10),
                        .threshold = kwargs.value("threshold", 1e-6),
                        .relative = kwargs.value("threshold_mode", "abs") == "rel",
                        .cooldown = kwargs.value<std::int64_t>("cooldown", 0),
                        .min_rate = kwargs.value("min_lr", 1e-3),
                        .epsilon = kwargs.value("eps", 1e-8)}),
        warmup_(kwargs.value<std::int64_t>("warmup", 0)),
        max_rate_(kwargs.value("max_lr", 1.0)),
        smooth_(kwargs.value("smooth", false)),
        window_size_(kwargs.value<std::int64_t>("window_size", 50)),
        reset_start_(kwargs.value<std::int64_t>("reset_start", 500)) {
    for (const double peak : peaks_) {
      if (peak <= max_rate_) continue;
      throw usage_error(
          fmt::format("training.lr_scheduler_kwargs.max_lr: {} is below the learning rate {}", max_rate_, peak),
          "raise max_lr, or lower learning_rate");
    }
    if (smooth_ && window_size_ == 0) {
      throw usage_error("training.lr_scheduler_kwargs.window_size: 0 values have no average", "set it to 1 or more");
    }
    counters_.until_reset = reset_start_;
  }

  void step(double metric) override {
    const double value = smooth_ ? average_with(metric) : metric;
    if (counters_.cooldown > 0 || counters_.warmup > 0) {
      --(counters_.cooldown > 0 ? counters_.cooldown : counters_.warmup);
      counters_.bad = 0;
      counters_.good = 0;
      return;
    }
    if (is_better(value)) {
      best_ = value;
      counters_.bad = 0;
      ++counters_.good;
    } else {
      ++counters_.bad;
      counters_.good = 0;
    }
    if (counters_.good > options_.patience) {
      raise_rates();
      counters_.warmup = warmup_;
      counters_.good = 0;
    } else if (counters_.bad > options_.patience) {
      lower_rates();
      if (std::all_of(rates_.begin(), rates_.end(), [&](double rate) { return rate <= options_.min_rate; })) {
        if (--counters_.until_reset <= 0) start_again();
      }
      counters_.cooldown = options_.cooldown;
      counters_.bad = 0;
    }
  }

 private:
  double average_with(double metric) {
    window_.push_back(metric);
    window_sum_ += metric;
    while (std::ssize(window_) > window_size_) {
      window_sum_ -= window_.front();
      window_.pop_front();
    }
    return window_sum_ / static_cast<double>(window_.size());
  }

  void raise_rates() {
    for (double& rate : rates_) {
      const double higher = std::min(rate / options_.factor, max_rate_);
      if (higher - rate > options_.epsilon) rate = higher;
    }
    counters_.until_reset = reset_start_;
  }

  // After a long time at the lowest rate.
  void start_again() {
    rates_ = peaks_;
    forget();
    counters_.until_reset = reset_start_;
    window_.clear();
    window_sum_ = 0;
  }

  std::int64_t warmup_;
  double max_rate_;
  bool smooth_;
  std::int64_t window_size_;
  std::int64_t reset_start_;
};

}  // namespace

std::unique_ptr<MetricSchedule> make_metric_schedule(const ScheduleOptions& options, std::vector<double> peaks) {
  const bool greedy = options.name == "greedy";
  if (!greedy && options.name != "reduce_lr_on_plateau") return nullptr;
  check_schedule_kwargs(options.name, options.kwargs);
  if (greedy) return std::make_unique<Greedy>(options.kwargs, std::move(peaks));
  return std::make_unique<Plateau>(options.kwargs, std::move(peaks));
}

}  // namespace dtrain
