// Loading and saving of models: the spellings of names that files have, what is drawn anew, and what is refused.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "tests/unit/trainer/models_support.h"

namespace dtrain {
namespace {

using Names = std::vector<std::string>;

std::map<std::string, at::Tensor> weights_of(const Model& model) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& entry : model.named_parameters()) weights[entry.key()] = entry.value();
  return weights;
}

LoadedModel load(const std::filesystem::path& folder, std::int64_t num_labels = 0) {
  ModelOptions options;
  options.folder = folder;
  options.num_labels = num_labels;
  return load_model(options);
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  if (const std::size_t at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

void expect_same_weights(const Model& model, const Model& expected,
                         const std::function<bool(const std::string&)>& skip) {
  const auto others = weights_of(expected);
  for (const auto& [name, value] : weights_of(model)) {
    if (!skip(name)) {
      EXPECT_TRUE(at::equal(value, others.at(name))) << name;
    }
  }
}

TEST(ModelFiles, ReadsTheOldSpellingOfBert) {
  const test::TempFolder folder;
  test::write_variant("bert", folder.path(), [](NamedTensors& tensors) {
    std::erase_if(tensors, [](const auto& each) { return each.first.starts_with("classifier."); });
    for (auto& [name, tensor] : tensors) {
      replace_all(name, "bert.", "");
      replace_all(name, "LayerNorm.weight", "LayerNorm.gamma");
      replace_all(name, "LayerNorm.bias", "LayerNorm.beta");
    }
    tensors.emplace_back("embeddings.position_ids", at::zeros({1, 16}, at::kLong));
    tensors.emplace_back("cls.predictions.bias", at::zeros({50}, at::kFloat));
    tensors.emplace_back("cls.predictions.transform.LayerNorm.gamma", at::zeros({32}, at::kFloat));
  });
  const LoadedModel loaded = load(folder.path());
  EXPECT_EQ(loaded.report.missing, (Names{"classifier.bias", "classifier.weight"}));
  Names unexpected = loaded.report.unexpected;
  std::sort(unexpected.begin(), unexpected.end());
  EXPECT_EQ(unexpected, (Names{"cls.predictions.bias", "cls.predictions.transform.LayerNorm.gamma"}));
  expect_same_weights(*loaded.model, *load(test::model_folder("bert")).model,
                      [](const std::string& name) { return name.starts_with("classifier."); });
}

TEST(ModelFiles, ReadsTheOriginalSpellingOfGpt2) {
  const test::TempFolder folder;
  test::write_variant("gpt2", folder.path(), [](NamedTensors& tensors) {
    std::erase_if(tensors, [](const auto& each) { return each.first == "score.weight"; });
    for (auto& [name, tensor] : tensors) replace_all(name, "transformer.", "");
    tensors.emplace_back("h.0.attn.bias", at::full({1, 1, 16, 16}, 1, at::kByte));
    tensors.emplace_back("h.1.attn.masked_bias", at::full({}, -10000.0, at::kFloat));
    tensors.emplace_back("lm_head.weight", at::zeros({50, 32}, at::kFloat));
  });
  const LoadedModel loaded = load(folder.path());
  EXPECT_EQ(loaded.report.missing, Names{"score.weight"});
  EXPECT_EQ(loaded.report.unexpected, Names{"lm_head.weight"});
  expect_same_weights(*loaded.model, *load(test::model_folder("gpt2")).model,
                      [](const std::string& name) { return name == "score.weight"; });
}

TEST(ModelFiles, ReadsHalfPrecision) {
  const test::TempFolder folder;
  test::write_variant("bert", folder.path(), [](NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kBFloat16);
  });
  const auto exact = weights_of(*load(test::model_folder("bert")).model);
  for (const auto& [name, value] : weights_of(*load(folder.path()).model)) {
    EXPECT_EQ(value.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(value, exact.at(name).to(at::kBFloat16).to(at::kFloat))) << name;
  }
}

TEST(ModelFiles, ReadsShards) {
  const test::TempFolder folder;
  test::write_variant("gpt2", folder.path(), {});
  const SafetensorsFile whole(test::model_folder("gpt2") / "model.safetensors");
  std::array<NamedTensors, 2> parts;
  Json map = Json::object();
  for (std::size_t i = 0; i < whole.names().size(); ++i) {
    const std::string& name = whole.names()[i];
    parts[i % 2].emplace_back(name, whole.tensor(name));
    map[name] = i % 2 == 0 ? "a.safetensors" : "b.safetensors";
  }
  std::filesystem::remove(folder.path() / "model.safetensors");
  write_safetensors(folder.path() / "a.safetensors", parts[0], {});
  write_safetensors(folder.path() / "b.safetensors", parts[1], {});
  folder.write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  const LoadedModel loaded = load(folder.path());
  EXPECT_TRUE(loaded.report.missing.empty() && loaded.report.unexpected.empty());
  expect_same_weights(*loaded.model, *load(test::model_folder("gpt2")).model, [](const std::string&) { return false; });

  map[whole.names()[0]] = "../a.safetensors";
  folder.write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  EXPECT_NE(test::error_of(ExitCode::kData, [&] { (void)load(folder.path()); }).find("../a"), std::string::npos);
}

TEST(ModelFiles, DrawsWhatIsMissingFromTheSeed) {
  const test::TempFolder folder;
  test::write_variant("bert", folder.path(), [](NamedTensors& tensors) {
    std::erase_if(tensors, [](const auto& each) {
      return each.first.starts_with("classifier.") || each.first.starts_with("bert.pooler.");
    });
  });
  ModelOptions options;
  options.folder = folder.path();
  const LoadedModel first = load_model(options);
  EXPECT_EQ(first.report.missing.size(), 4U);
  expect_same_weights(*load_model(options).model, *first.model, [](const std::string&) { return false; });
  const auto weights = weights_of(*first.model);
  const at::Tensor pooler = weights.at("bert.pooler.dense.weight");
  EXPECT_NEAR(pooler.std().item<double>(), 0.02, 0.002);
  EXPECT_NEAR(pooler.mean().item<double>(), 0, 0.002);
  EXPECT_EQ(weights.at("classifier.bias").abs().max().item<float>(), 0);
  options.seed = 43;
  EXPECT_FALSE(at::equal(weights_of(*load_model(options).model).at("bert.pooler.dense.weight"), pooler));
}

TEST(ModelFiles, DrawsWholeModels) {
  const test::TempFolder folder;
  for (const char* type : {"bert", "gpt2"}) {
    folder.write("config.json", read_file(test::model_folder(type) / "config.json"));
    ModelOptions options;
    options.folder = folder.path();
    options.random_init = true;
    const LoadedModel loaded = load_model(options);
    const auto weights = weights_of(*loaded.model);
    EXPECT_EQ(loaded.report.missing.size(), weights.size());
    for (const auto& [name, value] : weights) {
      if (name.ends_with(".bias")) {
        EXPECT_EQ(value.abs().max().item<float>(), 0) << name;
      } else if (value.dim() == 1) {
        EXPECT_TRUE(at::equal(value, at::full_like(value, 1))) << name;
      } else {
        const double deviation = name.ends_with("c_proj.weight") ? 0.01 : 0.02;  // 0.02 / sqrt(2 * 2 layers)
        EXPECT_NEAR(value.norm().item<double>() / std::sqrt(static_cast<double>(value.numel())), deviation,
                    0.25 * deviation)
            << name;
      }
    }
    if (weights.contains("bert.embeddings.word_embeddings.weight")) {
      EXPECT_EQ(weights.at("bert.embeddings.word_embeddings.weight")[0].abs().max().item<float>(), 0);
    }
  }
}

TEST(ModelFiles, SavedModelsLoadAgain) {
  for (const char* type : {"bert", "gpt2"}) {
    const test::TempFolder source;
    const test::TempFolder target;
    test::write_variant(type, source.path(), {}, [](Json& config) { config["a_key_of_tomorrow"] = {1, "two"}; });
    const LoadedModel loaded = load(source.path());
    EXPECT_TRUE(loaded.report.missing.empty());
    EXPECT_TRUE(loaded.report.unexpected.empty());
    save_model(*loaded.model, target.path());
    EXPECT_TRUE(read_file(target.path() / "model.safetensors") ==
                read_file(test::model_folder(type) / "model.safetensors"));
    const Json config = read_json_file(target.path() / "config.json");
    EXPECT_EQ(config.at("a_key_of_tomorrow"), (Json{1, "two"}));
    EXPECT_EQ(config.at("problem_type"), "single_label_classification");
    EXPECT_EQ(config.at("dtype"), "float32");
    EXPECT_EQ(config.at("id2label").size(), 3U);
    EXPECT_EQ(config.at("label2id").size(), 3U);
    EXPECT_EQ(config.at("pad_token_id"), std::string(type) == "bert" ? 0 : 1);
    EXPECT_EQ(config.at("architectures"),
              (Json{std::string(type) == "bert" ? "BertForSequenceClassification" : "GPT2ForSequenceClassification"}));

    const std::shared_ptr<Model> again = load(target.path()).model;
    const auto changed = weights_of(*again);
    {
      const c10::AutoGradMode no_gradient(false);
      for (auto [name, value] : changed) value.zero_();
    }
    load_weights(*again, target.path());
    expect_same_weights(*again, *loaded.model, [](const std::string&) { return false; });
  }
}

TEST(ModelFiles, LoadWeightsWantsEveryParameter) {
  const test::TempFolder folder;
  test::write_variant("gpt2", folder.path(), [](NamedTensors& tensors) {
    std::erase_if(tensors, [](const auto& each) { return each.first == "score.weight"; });
  });
  const std::shared_ptr<Model> model = load(test::model_folder("gpt2")).model;
  EXPECT_NE(test::error_of(ExitCode::kData, [&] { load_weights(*model, folder.path()); }).find("score.weight"),
            std::string::npos);
}

struct Refusal {
  const char* type;
  std::function<void(NamedTensors&)> edit;
  std::function<void(Json&)> edit_config;
  std::vector<std::string> said;  // parts of the message
};

at::Tensor& tensor_named(NamedTensors& tensors, const std::string& name) {
  return std::find_if(tensors.begin(), tensors.end(), [&](const auto& each) { return each.first == name; })->second;
}

TEST(ModelFiles, RefusesWhatDoesNotFit) {
  const std::string inner = "bert.encoder.layer.0.intermediate.dense.weight";
  const std::vector<Refusal> refusals{
      {"bert",
       [&](NamedTensors& tensors) {
         tensor_named(tensors, inner) = at::zeros({64, 32}, at::kFloat);
       },
       {},
       {"model.safetensors", inner, "[64, 32]", "[48, 32]"}},
      {"bert",
       [&](NamedTensors& tensors) {
         tensor_named(tensors, inner) = at::zeros({48, 32}, at::kLong);
       },
       {},
       {inner}},
      {"bert",
       [&](NamedTensors& tensors) { std::erase_if(tensors, [&](const auto& each) { return each.first == inner; }); },
       {},
       {inner}},
      {"bert",
       [](NamedTensors& tensors) {
         tensors = {{"something.else", at::zeros({3}, at::kFloat)}};
       },
       {},
       {"model.safetensors", "something.else"}},
      {"bert",
       [&](NamedTensors& tensors) {
         tensors.emplace_back(inner.substr(5), at::zeros({48, 32}, at::kFloat));
       },
       {},
       {inner}},
      {"bert", {}, [](Json& config) { config["model_type"] = "roberta"; }, {"config.json", "roberta"}},
      {"bert", {}, [](Json& config) { config.erase("model_type"); }, {"config.json", "model_type"}},
      {"bert", {}, [](Json& config) { config["hidden_act"] = "mish"; }, {"hidden_act", "mish"}},
      {"bert", {}, [](Json& config) { config["position_embedding_type"] = "relative_key"; }, {"relative_key"}},
      {"bert", {}, [](Json& config) { config["num_attention_heads"] = 5; }, {"32", "5"}},
      {"bert", {}, [](Json& config) { config["hidden_size"] = "32"; }, {"hidden_size"}},
      {"bert", {}, [](Json& config) { config["hidden_dropout_prob"] = 1.5; }, {"hidden_dropout_prob"}},
      {"bert", {}, [](Json& config) { config["vocab_size"] = -4; }, {"vocab_size"}},
      {"gpt2", {}, [](Json& config) { config["activation_function"] = "mish"; }, {"activation_function", "mish"}},
      {"gpt2", {}, [](Json& config) { config["add_cross_attention"] = true; }, {"add_cross_attention"}},
      {"gpt2", {}, [](Json& config) { config = Json::array(); }, {"config.json"}},
  };
  for (const Refusal& refusal : refusals) {
    const test::TempFolder folder;
    test::write_variant(refusal.type, folder.path(), refusal.edit, refusal.edit_config);
    const std::string message = test::error_of(ExitCode::kData, [&] { (void)load(folder.path()); });
    for (const std::string& part : refusal.said) EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(ModelFiles, RefusesAHeadForAnotherNumberOfLabels) {
  for (const char* type : {"bert", "gpt2"}) {
    const std::string message = test::error_of(ExitCode::kData, [&] { (void)load(test::model_folder(type), 5); });
    EXPECT_NE(message.find("num_labels"), std::string::npos) << message;
    EXPECT_NE(message.find('3'), std::string::npos) << message;
  }
}

TEST(ModelFiles, SaysWhichFilesAreMissing) {
  const test::TempFolder folder;
  EXPECT_NE(test::error_of(ExitCode::kData, [&] { (void)load(folder.path()); }).find("config.json"), std::string::npos);
  folder.write("config.json", read_file(test::model_folder("bert") / "config.json"));
  EXPECT_NE(test::error_of(ExitCode::kData, [&] { (void)load(folder.path()); }).find("model.safetensors"),
            std::string::npos);
  folder.write("pytorch_model.bin", "x");
  EXPECT_NE(test::error_of(ExitCode::kData, [&] { (void)load(folder.path()); }).find("save_pretrained"),
            std::string::npos);
}

}  // namespace
}  // namespace dtrain
