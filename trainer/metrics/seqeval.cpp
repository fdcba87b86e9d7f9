// Entities in tag sequences as the Python package seqeval 1.2.2 counts them.
#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <tuple>
#include <unordered_map>

#include "core/error.h"
#include "trainer/metrics/metric_parts.h"

namespace dtrain {
namespace {

enum class Average { kMicro, kMacro, kWeighted };

// A label of the model: "B-PER" begins with 'B' and is of type "PER".
struct Tag {
  char first;        // of B, I, E, S, O and '.'; 'x': any other
  std::size_t type;  // number of it
};

struct Entity {
  std::size_t type;
  std::size_t begin;
  std::size_t end;
  bool operator<(const Entity& other) const {
    return std::tie(type, begin, end) < std::tie(other.type, other.begin, other.end);
  }
};

bool any_of(char first, std::string_view choices) { return choices.find(first) != std::string_view::npos; }

// The rules of conlleval.pl: an I without a B begins an entity, and so does a change of type. An entity that never
// began (a label that is nothing but one letter can do that) begins where the one before it did, or with the sentence.
std::vector<Entity> lenient_entities(std::span<const Tag> tags, std::size_t no_type) {
  std::vector<Entity> entities;
  Tag before = {'O', std::numeric_limits<std::size_t>::max()};  // of no type at all
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= tags.size(); ++i) {
    const Tag tag = i < tags.size() ? tags[i] : Tag{'O', no_type};
    const bool change = before.type != tag.type;
    const bool ends = any_of(before.first, "ES") || (any_of(before.first, "BI") && any_of(tag.first, "BSO")) ||
                      (!any_of(before.first, "O.") && change);
    if (ends) entities.push_back({before.type, begin, i});
    const bool begins = any_of(tag.first, "BS") || (any_of(before.first, "ESO") && any_of(tag.first, "EI")) ||
                        (!any_of(tag.first, "O.") && change);
    if (begins) begin = i;
    before = tag;
  }
  return entities;
}

// IOB2 to the letter: a B and the I of its type that follow. All other I are nothing.
std::vector<Entity> strict_entities(std::span<const Tag> tags) {
  std::vector<Entity> entities;
  for (std::size_t i = 0; i < tags.size();) {
    std::size_t end = i + 1;
    if (tags[i].first == 'B') {
      while (end < tags.size() && tags[end].first == 'I' && tags[end].type == tags[i].type) ++end;
      entities.push_back({tags[i].type, i, end});
    }
    i = end;
  }
  return entities;
}

// counts: [right labels, labels], then of each type [right, predicted, actual] entities.
class Seqeval final : public StatefulMetric {
 public:
  Seqeval(std::vector<Tag> tags, std::size_t types, std::size_t no_type, bool strict, Average average)
      : StatefulMetric(2 + 3 * types, 0),
        tags_(std::move(tags)),
        no_type_(no_type),
        strict_(strict),
        average_(average) {}

  void add(const Predictions& given) override {
    const ClassBatch batch(given.logits, given.labels, static_cast<std::int64_t>(tags_.size()), false);
    std::int64_t begin = 0;
    const auto add_sentence = [&](std::int64_t length) {
      DTRAIN_CHECK(length >= 0 && begin + length <= batch.size(), "sentences have more than {} labels", batch.size());
      std::vector<Tag> predicted;
      std::vector<Tag> actual;
      for (std::int64_t i = begin; i < begin + length; ++i) {
        const std::int64_t said = batch.predicted_class(i);
        const std::int64_t is = batch.true_class(i);
        state_.counts[0] += said == is ? 1 : 0;
        predicted.push_back(tags_[static_cast<std::size_t>(said)]);
        actual.push_back(tags_[static_cast<std::size_t>(is)]);
      }
      count(entities(predicted), entities(actual));
      begin += length;
    };
    for (const std::int64_t length : given.label_counts) add_sentence(length);
    while (given.label_counts.empty() && begin < batch.size()) add_sentence(1);
    DTRAIN_CHECK(begin == batch.size(), "sentences have {} of {} labels", begin, batch.size());
    state_.counts[1] += batch.size();
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    const auto [precision, recall, f1] = averaged();
    const double accuracy = state_.counts[1] == 0
                                ? std::numeric_limits<double>::quiet_NaN()
                                : static_cast<double>(state_.counts[0]) / static_cast<double>(state_.counts[1]);
    return {{"precision", precision}, {"recall", recall}, {"f1", f1}, {"accuracy", accuracy}};
  }

 private:
  using Scores = std::array<double, 3>;  // precision, recall, F1

  [[nodiscard]] std::vector<Entity> entities(std::span<const Tag> tags) const {
    return strict_ ? strict_entities(tags) : lenient_entities(tags, no_type_);
  }

  void count(const std::vector<Entity>& predicted, const std::vector<Entity>& actual) {
    const std::set<Entity> truth(actual.begin(), actual.end());
    for (const Entity& each : predicted) {
      std::int64_t* counts = &state_.counts[2 + 3 * each.type];
      counts[0] += truth.contains(each) ? 1 : 0;
      ++counts[1];
    }
    for (const Entity& each : actual) ++state_.counts[2 + 3 * each.type + 2];
  }

  static Scores scores(double right, double predicted, double actual) {
    const double precision = predicted == 0 ? 0.0 : right / predicted;
    const double recall = actual == 0 ? 0.0 : right / actual;
    return {precision, recall, right == 0 ? 0.0 : 2 * precision * recall / (precision + recall)};
  }

  // Types that occur neither in the data nor in the predictions do not count.
  [[nodiscard]] Scores averaged() const {
    std::array<double, 3> all = {0, 0, 0};
    Scores sum = {0, 0, 0};
    double weights = 0;
    for (std::size_t i = 2; i < state_.counts.size(); i += 3) {
      const std::array<double, 3> each = {static_cast<double>(state_.counts[i]),
                                          static_cast<double>(state_.counts[i + 1]),
                                          static_cast<double>(state_.counts[i + 2])};
      if (each[1] == 0 && each[2] == 0) continue;
      const double weight = average_ == Average::kWeighted ? each[2] : 1.0;
      const Scores of_type = scores(each[0], each[1], each[2]);
      for (std::size_t k = 0; k < 3; ++k) {
        all[k] += each[k];
        sum[k] += weight * of_type[k];
      }
      weights += weight;
    }
    if (average_ == Average::kMicro) return scores(all[0], all[1], all[2]);
    // The mean of no types is not defined; weighted by nothing it is 0.
    if (weights == 0 && average_ == Average::kWeighted) return {0, 0, 0};
    for (double& each : sum) each /= weights;
    return sum;
  }

  std::vector<Tag> tags_;  // by label
  std::size_t no_type_;
  bool strict_;
  Average average_;
};

}  // namespace

std::unique_ptr<Metric> make_seqeval(const std::string& variant, const std::vector<std::string>& tag_names) {
  const bool strict = variant == "strict";
  std::unordered_map<std::string, std::size_t> types;
  const auto number_of = [&](std::string_view type) {
    return types.try_emplace(type.empty() ? "_" : std::string(type), types.size()).first->second;
  };
  const std::size_t no_type = number_of("");
  std::vector<Tag> tags;
  for (const std::string& name : tag_names) {
    if (name.empty() || (strict && !any_of(name.front(), "BIO"))) {
      throw usage_error(
          fmt::format("metrics.compute: \"seqeval{}\" cannot read the label \"{}\"", strict ? ":strict" : "", name),
          strict ? "all labels must begin with B-, I- or O; or write \"seqeval\"" : "give every label a name");
    }
    // What follows the first character: up to its first hyphen it is of no interest ("B-PER", but also "NPER").
    std::size_t begin = 1;
    while (begin < name.size() && (static_cast<unsigned char>(name[begin]) & 0xC0) == 0x80) ++begin;
    std::string_view type = std::string_view(name).substr(begin);
    if (strict) {
      type.remove_prefix(std::min(type.find_first_not_of('-'), type.size()));
      type.remove_suffix(type.size() - std::min(type.find_last_not_of('-') + 1, type.size()));
    } else if (const std::size_t hyphen = type.find('-'); hyphen != std::string_view::npos) {
      type.remove_prefix(hyphen + 1);
    }
    tags.push_back({any_of(name.front(), "BIESO.") ? name.front() : 'x', number_of(type)});
  }
  const Average average = variant == "macro"      ? Average::kMacro
                          : variant == "weighted" ? Average::kWeighted
                                                  : Average::kMicro;
  const std::size_t count = types.size();
  return std::make_unique<Seqeval>(std::move(tags), count, no_type, strict, average);
}

}  // namespace dtrain
