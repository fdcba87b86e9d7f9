#include "trainer/models/generation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"

namespace dtrain {
namespace {

using Ids = std::vector<std::int64_t>;

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr float kHopeless = -1e9F;  // what transformers adds to the scores of texts that must not be chosen

at::Tensor on_device(const Ids& values, const at::Device& device) {
  return at::tensor(at::IntArrayRef(values), at::kLong).to(device);
}

// The tokens that would end an n-gram which `ids` holds already.
Ids repeating_tokens(const Ids& ids, std::int64_t size) {
  Ids banned;
  const auto length = std::ssize(ids);
  const auto tail = ids.end() - std::min(length, size - 1);
  for (auto first = ids.begin(); length >= size && first + (size - 1) < ids.end(); ++first) {
    if (std::equal(tail, ids.end(), first)) banned.push_back(first[size - 1]);
  }
  return banned;
}

// transformers' LogitsProcessors in their order. `texts` are the ids so far, one text for each row of `scores`.
at::Tensor processed(at::Tensor scores, const std::vector<Ids>& texts, const GenerationOptions& options) {
  const auto length = std::ssize(texts.front());
  const auto only = [&](std::int64_t token) {
    scores = scores.fill_(kMinusInfinity);
    scores.select(1, token).zero_();
  };
  if (options.repetition_penalty != 1) {
    for (std::size_t row = 0; row < texts.size(); ++row) {
      Ids seen = texts[row];
      std::sort(seen.begin(), seen.end());
      seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
      const at::Tensor ids = on_device(seen, scores.device());
      at::Tensor line = scores.select(0, static_cast<std::int64_t>(row));
      const at::Tensor old = line.index_select(0, ids);
      line.index_copy_(0, ids,
                       at::where(old.lt(0), old.mul(options.repetition_penalty), old.div(options.repetition_penalty)));
    }
  }
  if (options.no_repeat_ngram_size > 0) {
    for (std::size_t row = 0; row < texts.size(); ++row) {
      const Ids banned = repeating_tokens(texts[row], options.no_repeat_ngram_size);
      if (banned.empty()) continue;
      scores.select(0, static_cast<std::int64_t>(row))
          .index_fill_(0, on_device(banned, scores.device()), kMinusInfinity);
    }
  }
  if (length < options.min_length && !options.eos_token_ids.empty()) {
    scores.index_fill_(1, on_device(options.eos_token_ids, scores.device()), kMinusInfinity);
  }
  if (options.forced_bos_token_id >= 0 && length == 1) only(options.forced_bos_token_id);
  if (options.forced_eos_token_id >= 0 && length == options.max_length - 1) only(options.forced_eos_token_id);
  return scores;
}

bool ends(std::int64_t token, const GenerationOptions& options) {
  const Ids& eos = options.eos_token_ids;
  return std::find(eos.begin(), eos.end(), token) != eos.end();
}

std::vector<std::int32_t> without_start(const Ids& ids) {
  std::vector<std::int32_t> written;
  for (std::size_t i = 1; i < ids.size(); ++i) written.push_back(static_cast<std::int32_t>(ids[i]));
  return written;
}

Ids last_tokens(const std::vector<Ids>& texts) {
  Ids newest;
  for (const Ids& ids : texts) newest.push_back(ids.back());
  return newest;
}

std::vector<Ids> write_greedily(TextGenerator& generator, const Batch& batch, const GenerationOptions& options) {
  const at::Device device = batch["input_ids"].device();
  const auto decoder = generator.start_decoder(batch);
  std::vector<Ids> texts(static_cast<std::size_t>(batch.size), Ids{options.decoder_start_token_id});
  std::vector<bool> done(texts.size(), false);
  // Texts that have ended stay in the batch, with any token, so that all have one length.
  std::vector<Ids> shown = texts;
  for (std::int64_t length = 1; length < options.max_length; ++length) {
    const at::Tensor scores = processed(decoder->step(on_device(last_tokens(texts), device)), texts, options);
    const at::Tensor chosen = scores.argmax(1).to(at::kCPU);
    const auto* token = chosen.const_data_ptr<std::int64_t>();
    bool all_done = true;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      texts[i].push_back(token[i]);
      if (!done[i]) {
        shown[i].push_back(token[i]);
        done[i] = ends(token[i], options);
      }
      all_done = all_done && done[i];
    }
    if (all_done) break;
  }
  return shown;
}

struct Beam {
  Ids ids;
  float score = kHopeless;
  bool finished = false;
};

// The beams of one example.
class BeamSearch {
 public:
  explicit BeamSearch(const GenerationOptions& options) : options_(options) {
    const auto beams = static_cast<std::size_t>(options.num_beams);
    running_.assign(beams, Beam{{options.decoder_start_token_id}});
    running_.front().score = 0;  // else all beams would begin alike
    best_.assign(beams, Beam{{options.decoder_start_token_id}});
  }

  struct Candidate {
    float score = 0;
    std::size_t beam = 0;
    std::int64_t token = 0;
  };

  // `candidates`, the best first. Returns which beam each of the new running ones continues.
  std::vector<std::size_t> advance(const std::vector<Candidate>& candidates) {
    const auto length = static_cast<std::int64_t>(running_.front().ids.size());  // without the new token
    std::vector<Beam> continued;
    std::vector<bool> hits;
    for (const Candidate& candidate : candidates) {
      Beam beam{running_[candidate.beam].ids, candidate.score, false};
      beam.ids.push_back(candidate.token);
      continued.push_back(std::move(beam));
      hits.push_back(ends(candidate.token, options_) || length + 1 >= options_.max_length);
    }
    all_end_ = std::all_of(hits.begin(), hits.end(), [](bool hit) { return hit; });
    keep_best(continued, hits, length);
    return go_on(continued, hits, candidates, length);
  }

  [[nodiscard]] const std::vector<Beam>& running() const { return running_; }
  [[nodiscard]] const Beam& best() const { return best_.front(); }
  [[nodiscard]] bool improvable() const { return improvable_; }
  [[nodiscard]] bool full() const {
    return std::all_of(best_.begin(), best_.end(), [](const Beam& beam) { return beam.finished; });
  }
  [[nodiscard]] bool all_end() const { return all_end_; }

 private:
  [[nodiscard]] float penalised(float score, std::int64_t length) const {
    return score / static_cast<float>(std::pow(static_cast<double>(length), options_.length_penalty));
  }

  static void sort_by_score(std::vector<Beam>& beams) {
    std::stable_sort(beams.begin(), beams.end(), [](const Beam& a, const Beam& b) { return a.score > b.score; });
  }

  // Texts that have ended now compete with those that had; only the first num_beams candidates can.
  void keep_best(const std::vector<Beam>& continued, const std::vector<bool>& hits, std::int64_t length) {
    const bool closed = !improvable_ || (options_.early_stopping == BeamStopping::kYes && full());
    if (closed) return;
    const std::size_t beams = best_.size();
    for (std::size_t i = 0; i < std::min(beams, continued.size()); ++i) {
      if (!hits[i]) continue;
      best_.push_back({continued[i].ids, penalised(continued[i].score, length), true});
    }
    sort_by_score(best_);
    best_.resize(beams);
  }

  std::vector<std::size_t> go_on(std::vector<Beam>& continued, const std::vector<bool>& hits,
                                 const std::vector<Candidate>& candidates, std::int64_t length) {
    std::vector<std::size_t> order(continued.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = 0; i < continued.size(); ++i) {
      if (hits[i]) continued[i].score += kHopeless;
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return continued[a].score > continued[b].score; });
    std::vector<std::size_t> parents;
    for (std::size_t i = 0; i < running_.size(); ++i) {
      running_[i] = continued[order[i]];
      parents.push_back(candidates[order[i]].beam);
    }
    // Could the best running text still become better than the worst of the ended ones?
    const bool hopes_for_longest = options_.early_stopping == BeamStopping::kNever && options_.length_penalty > 0;
    const float possible = penalised(running_.front().score, hopes_for_longest ? options_.max_length - 1 : length);
    float worst = best_.front().score;
    for (const Beam& beam : best_) worst = std::min(worst, beam.score);
    improvable_ = improvable_ && std::any_of(best_.begin(), best_.end(), [&](const Beam& beam) {
                    return possible > (beam.finished ? worst : kHopeless);
                  });
    return parents;
  }

  GenerationOptions options_;
  std::vector<Beam> running_;
  std::vector<Beam> best_;  // the best ended texts
  bool improvable_ = true;
  bool all_end_ = false;
};

std::vector<Ids> search_beams(TextGenerator& generator, const Batch& batch, const GenerationOptions& options) {
  const at::Device device = batch["input_ids"].device();
  const std::int64_t beams = options.num_beams;
  const auto decoder = generator.start_decoder(batch);
  std::vector<BeamSearch> searches(static_cast<std::size_t>(batch.size), BeamSearch(options));
  // Enough candidates that num_beams go on even when as many end.
  const std::int64_t wanted = std::max<std::int64_t>(2, 1 + std::ssize(options.eos_token_ids)) * beams;
  for (bool goes_on = options.max_length > 1; goes_on;) {
    std::vector<Ids> texts;
    std::vector<float> running;
    for (const BeamSearch& search : searches) {
      for (const Beam& beam : search.running()) {
        texts.push_back(beam.ids);
        running.push_back(beam.score);
      }
    }
    at::Tensor scores = at::log_softmax(decoder->step(on_device(last_tokens(texts), device)), 1);
    scores = processed(std::move(scores), texts, options);
    const std::int64_t vocab = scores.size(1);
    scores = scores.add(at::tensor(at::ArrayRef<float>(running)).to(device).unsqueeze(1)).view({batch.size, -1});
    const auto [values, places] = scores.topk(std::min(wanted, scores.size(1)), 1);
    const at::Tensor value = values.to(at::kCPU).contiguous();
    const at::Tensor place = places.to(at::kCPU).contiguous();
    const std::int64_t count = value.size(1);

    Ids order;
    for (std::size_t e = 0; e < searches.size(); ++e) {
      std::vector<BeamSearch::Candidate> candidates;
      for (std::int64_t i = static_cast<std::int64_t>(e) * count; i < static_cast<std::int64_t>(e + 1) * count; ++i) {
        const std::int64_t at = place.const_data_ptr<std::int64_t>()[i];
        candidates.push_back({value.const_data_ptr<float>()[i], static_cast<std::size_t>(at / vocab), at % vocab});
      }
      for (const std::size_t parent : searches[e].advance(candidates)) {
        order.push_back(static_cast<std::int64_t>(e) * beams + static_cast<std::int64_t>(parent));
      }
    }
    decoder->reorder(on_device(order, device));
    const auto any = [&](auto condition) { return std::any_of(searches.begin(), searches.end(), condition); };
    goes_on =
        any([](const BeamSearch& search) { return search.improvable(); }) &&
        any([](const BeamSearch& search) { return !search.all_end(); }) &&
        (options.early_stopping != BeamStopping::kYes || any([](const BeamSearch& search) { return !search.full(); }));
  }
  std::vector<Ids> texts;
  for (const BeamSearch& search : searches) texts.push_back(search.best().ids);
  return texts;
}

// Values of generation_config.json that are not read but must be these.
void refuse_others(const Json& json, const std::string& where) {
  struct Neutral {
    const char* key;
    Json value;
  };
  static const std::array<Neutral, 20> kNeutral{{{"do_sample", false},
                                                 {"num_return_sequences", 1},
                                                 {"num_beam_groups", 1},
                                                 {"diversity_penalty", 0.0},
                                                 {"encoder_no_repeat_ngram_size", 0},
                                                 {"encoder_repetition_penalty", 1.0},
                                                 {"remove_invalid_values", false},
                                                 {"renormalize_logits", false},
                                                 {"guidance_scale", 1.0},
                                                 {"bad_words_ids", nullptr},
                                                 {"force_words_ids", nullptr},
                                                 {"constraints", nullptr},
                                                 {"suppress_tokens", nullptr},
                                                 {"begin_suppress_tokens", nullptr},
                                                 {"sequence_bias", nullptr},
                                                 {"exponential_decay_length_penalty", nullptr},
                                                 {"stop_strings", nullptr},
                                                 {"max_time", nullptr},
                                                 {"penalty_alpha", nullptr},
                                                 {"watermarking_config", nullptr}}};
  for (const Neutral& neutral : kNeutral) {
    const auto found = json.find(neutral.key);
    if (found == json.end() || found->is_null() || *found == neutral.value) continue;
    throw data_error(fmt::format("{}: {} = {} is not supported", where, neutral.key, found->dump().substr(0, 60)),
                     "dtrain writes texts greedily or by beam search; take the key out");
  }
}

class Reader {
 public:
  Reader(const Json& json, const std::string& where) : json_(json), where_(where) {}

  [[nodiscard]] const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  [[nodiscard]] std::int64_t integer(const char* key, std::int64_t fallback, std::int64_t low,
                                     std::int64_t high) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number_integer() || value->get<std::int64_t>() < low || value->get<std::int64_t>() > high) {
      fail(key, *value, fmt::format("a whole number from {} to {}", low, high));
    }
    return value->get<std::int64_t>();
  }

  [[nodiscard]] double number(const char* key, double fallback, double low, double high) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
      fail(key, *value, fmt::format("a number from {} to {}", low, high));
    }
    return value->get<double>();
  }

  // One id or a list.
  [[nodiscard]] Ids ids(const char* key, std::int64_t vocab_size) const {
    const Json* value = find(key);
    if (value == nullptr) return {};
    Ids result;
    for (const Json& each : value->is_array() ? *value : Json::array({*value})) {
      if (!each.is_number_integer() || each.get<std::int64_t>() < 0 || each.get<std::int64_t>() >= vocab_size) {
        fail(key, *value, fmt::format("token ids below {}", vocab_size));
      }
      result.push_back(each.get<std::int64_t>());
    }
    return result;
  }

  [[noreturn]] void fail(const char* key, const Json& value, const std::string& expected) const {
    throw data_error(fmt::format("{}: {} is {}, expected {}", where_, key, value.dump().substr(0, 60), expected));
  }

 private:
  const Json& json_;
  std::string where_;
};

}  // namespace

GenerationOptions read_generation_options(const std::optional<std::filesystem::path>& file, const Json& model_json,
                                          std::int64_t max_positions) {
  Json json = file ? read_json_file(*file) : model_json;
  const std::string where = file ? file->string() : "config.json";
  if (!json.is_object()) throw data_error(where + ": expected a JSON object");
  if (!file) {
    // The defaults of BartConfig.
    for (const char* key : {"eos_token_id", "forced_eos_token_id", "decoder_start_token_id"}) {
      if (!json.contains(key)) json[key] = 2;
    }
  }
  refuse_others(json, where);
  const Reader reader(json, where);
  const Reader model(model_json, "config.json");
  constexpr std::int64_t kDefaultNewTokens = 20;
  GenerationOptions options;
  if (reader.find("max_new_tokens") != nullptr) {
    options.max_length = reader.integer("max_new_tokens", 0, 1, 1 << 24) + 1;
  } else {
    options.max_length = reader.integer("max_length", std::min(kDefaultNewTokens + 1, max_positions), 2, 1 << 24);
  }
  options.min_length = reader.find("min_new_tokens") != nullptr ? reader.integer("min_new_tokens", 0, 0, 1 << 24) + 1
                                                                : reader.integer("min_length", 0, 0, 1 << 24);
  options.num_beams = reader.integer("num_beams", 1, 1, 1024);
  options.length_penalty = reader.number("length_penalty", 1, -100, 100);
  options.no_repeat_ngram_size = reader.integer("no_repeat_ngram_size", 0, 0, 1 << 24);
  options.repetition_penalty = reader.number("repetition_penalty", 1, 1e-6, 1e6);
  if (const Json* early = reader.find("early_stopping"); early != nullptr) {
    if (early->is_boolean()) {
      options.early_stopping = early->get<bool>() ? BeamStopping::kYes : BeamStopping::kNo;
    } else if (*early == "never") {
      options.early_stopping = BeamStopping::kNever;
    } else {
      reader.fail("early_stopping", *early, "true, false or \"never\"");
    }
  }
  const auto vocab_size = model.integer("vocab_size", 1 << 24, 1, 1 << 24);
  const auto special = [&](const char* key) {
    Ids ids = reader.ids(key, vocab_size);
    return ids.empty() ? model.ids(key, vocab_size) : ids;
  };
  const auto first = [](const Ids& ids) { return ids.empty() ? -1 : ids.front(); };
  options.eos_token_ids = special("eos_token_id");
  options.forced_bos_token_id = first(reader.ids("forced_bos_token_id", vocab_size));
  options.forced_eos_token_id = first(reader.ids("forced_eos_token_id", vocab_size));
  options.decoder_start_token_id = first(special("decoder_start_token_id"));
  if (options.decoder_start_token_id < 0) {
    throw data_error(where + ": decoder_start_token_id is missing", "name the token that a text begins with");
  }
  return options;
}

std::vector<std::vector<std::int32_t>> generate(TextGenerator& generator, const Batch& batch,
                                                const GenerationOptions& options) {
  const std::vector<Ids> texts =
      options.num_beams == 1 ? write_greedily(generator, batch, options) : search_beams(generator, batch, options);
  std::vector<std::vector<std::int32_t>> written;
  for (const Ids& ids : texts) written.push_back(without_start(ids));
  return written;
}

}  // namespace dtrain
