// Loading and saving: every naming trap of the files on the Hub, what is missing, what is refused and how it says so.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/models_support.h"
#include "trainer/models/model.h"

namespace dtrain::test {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::string without(const std::string& name, const std::string& prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

std::string replaced(std::string name, const std::string& from, const std::string& to) {
  const std::size_t at = name.find(from);
  return at == std::string::npos ? name : name.replace(at, from.size(), to);
}

void rename_all(NamedTensors& tensors, const std::function<std::string(const std::string&)>& rename) {
  for (auto& named : tensors) named.first = rename(named.first);
}

void remove_if(NamedTensors& tensors, const std::function<bool(const std::string&)>& condition) {
  std::erase_if(tensors, [&](const auto& named) { return condition(named.first); });
}

class ModelLoad : public ::testing::Test {
 protected:
  ModelOptions options(const std::string& model, const ModelChange& change = {}) {
    const auto folder = temp_.path() / ("m" + std::to_string(++count_));
    copy_model(test_data("models/" + model), folder, change);
    ModelOptions result;
    result.folder = folder;
    return result;
  }

  LoadedModel load(const std::string& model, const ModelChange& change = {}) {
    return load_model(options(model, change));
  }

  // The message and hint with which loading fails.
  static std::string failure(const ModelOptions& options, ExitCode code = ExitCode::kData) {
    try {
      (void)load_model(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return std::string(error.what()) + " | " + error.hint();
    }
    return "nothing failed";
  }

  std::string failure(const std::string& model, const ModelChange& change, ExitCode code = ExitCode::kData) {
    return failure(options(model, change), code);
  }

  static void expect_equal(const Model& a, const Model& b) {
    const auto parameters = b.named_parameters();
    EXPECT_EQ(a.named_parameters().size(), parameters.size());
    for (const auto& item : a.named_parameters()) {
      EXPECT_TRUE(at::equal(item.value(), parameters[item.key()])) << item.key();
    }
  }

  TempFolder temp_;
  int count_ = 0;
};

TEST_F(ModelLoad, BertWithoutPrefixAndWithOldLayerNormNames) {
  const LoadedModel plain = load("tiny-bert");
  const LoadedModel old =
      load("tiny-bert", {{}, [](NamedTensors& tensors) {
                           rename_all(tensors, [](const std::string& name) {
                             std::string result = without(name, "bert.");
                             result = replaced(result, "LayerNorm.weight", "LayerNorm.gamma");
                             return replaced(result, "LayerNorm.bias", "LayerNorm.beta");
                           });
                           tensors.emplace_back("embeddings.position_ids", at::zeros({1, 16}, at::kLong));
                         }});
  expect_equal(*plain.model, *old.model);
  EXPECT_THAT(old.report.missing, IsEmpty());
  EXPECT_THAT(old.report.unexpected, IsEmpty());
}

TEST_F(ModelLoad, BertOfTheHubLacksTheHeadAndHasAnother) {
  const LoadedModel loaded =
      load("tiny-bert", {{}, [](NamedTensors& tensors) {
                           remove_if(tensors, [](const std::string& name) {
                             return name.starts_with("classifier.") || name.find("pooler") < 99;
                           });
                           tensors.emplace_back("cls.predictions.bias", at::zeros({50}, at::kFloat));
                           tensors.emplace_back("cls.seq_relationship.weight", at::zeros({2, 32}, at::kFloat));
                         }});
  EXPECT_THAT(loaded.report.missing, UnorderedElementsAre("classifier.weight", "classifier.bias",
                                                          "bert.pooler.dense.weight", "bert.pooler.dense.bias"));
  EXPECT_THAT(loaded.report.unexpected, UnorderedElementsAre("cls.predictions.bias", "cls.seq_relationship.weight"));
  const auto parameters = test::stored_parameters(*loaded.model);
  EXPECT_EQ(parameters.at("classifier.bias").abs().sum().item<float>(), 0);
  const at::Tensor drawn = parameters.at("bert.pooler.dense.weight");
  EXPECT_NEAR(drawn.std().item<float>(), 0.02, 0.003);
  EXPECT_NEAR(drawn.mean().item<float>(), 0, 0.003);
}

TEST_F(ModelLoad, Gpt2OfTheHubHasNoPrefixAndOldBuffers) {
  const LoadedModel plain = load("tiny-gpt2");
  const LoadedModel old = load(
      "tiny-gpt2", {{}, [](NamedTensors& tensors) {
                      rename_all(tensors, [](const std::string& name) { return without(name, "transformer."); });
                      for (const char* layer : {"h.0", "h.1"}) {
                        tensors.emplace_back(std::string(layer) + ".attn.bias", at::ones({1, 1, 16, 16}, at::kFloat));
                        tensors.emplace_back(std::string(layer) + ".attn.masked_bias", at::ones({}, at::kFloat));
                      }
                      tensors.emplace_back("lm_head.weight", at::ones({50, 32}, at::kFloat));
                    }});
  expect_equal(*plain.model, *old.model);
  EXPECT_THAT(old.report.missing, IsEmpty());
  EXPECT_THAT(old.report.unexpected, ElementsAre("lm_head.weight"));
}

TEST_F(ModelLoad, HalfPrecisionFilesBecomeFloat) {
  const LoadedModel plain = load("tiny-gpt2");
  for (const auto type : {at::kHalf, at::kBFloat16, at::kDouble}) {
    const LoadedModel low = load("tiny-gpt2", {{}, [&](NamedTensors& tensors) {
                                                 for (auto& named : tensors) named.second = named.second.to(type);
                                               }});
    for (const auto& item : low.model->named_parameters()) {
      EXPECT_EQ(item.value().scalar_type(), at::kFloat);
      EXPECT_TRUE(at::equal(item.value(), plain.model->named_parameters()[item.key()].to(type).to(at::kFloat)));
    }
  }
}

TEST_F(ModelLoad, ShardsAreOneModel) {
  const LoadedModel plain = load("tiny-bert");
  ModelOptions sharded = options("tiny-bert");
  const auto folder = sharded.folder;
  Json map = Json::object();
  {
    const SafetensorsFile file(folder / "model.safetensors");
    NamedTensors halves[2];
    for (std::size_t i = 0; i < file.names().size(); ++i) {
      halves[i % 2].emplace_back(file.names()[i], file.tensor(file.names()[i]));
      map[file.names()[i]] = i % 2 == 0 ? "model-1.safetensors" : "model-2.safetensors";
    }
    write_safetensors(folder / "model-1.safetensors", halves[0], {});
    write_safetensors(folder / "model-2.safetensors", halves[1], {});
  }
  std::filesystem::remove(folder / "model.safetensors");
  const auto index = folder / "model.safetensors.index.json";
  write_file_synced(index, Json{{"metadata", Json::object()}, {"weight_map", map}}.dump());
  expect_equal(*plain.model, *load_model(sharded).model);

  const auto with_map = [&](const Json& changed) {
    write_file_synced(index, Json{{"weight_map", changed}}.dump());
    return failure(sharded);
  };
  Json wrong = map;
  wrong["classifier.bias"] =
      map["classifier.bias"] == "model-1.safetensors" ? "model-2.safetensors" : "model-1.safetensors";
  EXPECT_THAT(with_map(wrong), HasSubstr("\"classifier.bias\" should be in"));
  wrong["classifier.bias"] = "../model-1.safetensors";
  EXPECT_THAT(with_map(wrong), HasSubstr("in the same folder"));
  wrong["classifier.bias"] = 3;
  EXPECT_THAT(with_map(wrong), HasSubstr("in the same folder"));
  EXPECT_THAT(with_map(Json::array()), HasSubstr("weight_map"));
  std::filesystem::remove(folder / "model-2.safetensors");
  EXPECT_THROW((void)load_model(sharded), Error);
}

TEST_F(ModelLoad, WrongWeightsAreRefused) {
  const auto bert = options("tiny-bert");
  std::filesystem::copy_file(test_data("models/tiny-gpt2/model.safetensors"), bert.folder / "model.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(failure(bert), HasSubstr("no tensor belongs to a bert model"));

  EXPECT_THAT(
      failure("tiny-gpt2", {{},
                            [](NamedTensors& tensors) {
                              remove_if(tensors, [](const std::string& name) {
                                return name == "transformer.h.1.mlp.c_fc.weight";
                              });
                            }}),
      HasSubstr("1 of the 28 tensors of the model are missing, the first is \"transformer.h.1.mlp.c_fc.weight\""));
  // A transposed Conv1D weight, as a conversion to nn::Linear would leave it.
  EXPECT_THAT(failure("tiny-gpt2", {{},
                                    [](NamedTensors& tensors) {
                                      for (auto& [name, value] : tensors) {
                                        if (name == "transformer.h.0.attn.c_attn.weight") value = value.t();
                                      }
                                    }}),
              HasSubstr("\"transformer.h.0.attn.c_attn.weight\" has shape [96, 32], and config.json asks for"));
  EXPECT_THAT(
      failure("tiny-gpt2", {{}, [](NamedTensors& tensors) { tensors[0].second = tensors[0].second.to(at::kInt); }}),
      HasSubstr("needs floating-point numbers"));
  EXPECT_THAT(
      failure(
          "tiny-bert",
          {{}, [](NamedTensors& tensors) { tensors.emplace_back("pooler.dense.bias", at::zeros({32}, at::kFloat)); }}),
      HasSubstr("are both meant for bert.pooler.dense.bias"));
}

TEST_F(ModelLoad, TruncatedFileIsRefused) {
  const auto truncated = options("tiny-bert");
  const std::string whole = read_file(truncated.folder / "model.safetensors");
  for (const std::size_t length : {std::size_t{0}, std::size_t{7}, std::size_t{500}, whole.size() - 1}) {
    test::write_file(truncated.folder / "model.safetensors", whole.substr(0, length));
    EXPECT_THAT(failure(truncated), HasSubstr("not a valid safetensors file"));
  }
}

TEST_F(ModelLoad, MissingFilesAreNamed) {
  auto missing = options("tiny-bert");
  std::filesystem::remove(missing.folder / "model.safetensors");
  EXPECT_THAT(failure(missing), HasSubstr("there is no model.safetensors"));
  write_file_synced(missing.folder / "pytorch_model.bin", "x");
  EXPECT_THAT(failure(missing), HasSubstr("convert it once in Python"));
  std::filesystem::remove(missing.folder / "config.json");
  EXPECT_THAT(failure(missing), HasSubstr("config.json: no such file"));
}

TEST_F(ModelLoad, NumberOfLabels) {
  auto chosen = options("tiny-bert");
  chosen.num_labels = 5;
  EXPECT_THAT(failure(chosen), HasSubstr("has 3 labels but the model shall have 5 | set model.num_labels = 3"));
  const auto headless = [](NamedTensors& tensors) {
    remove_if(tensors, [](const std::string& name) { return name.starts_with("score."); });
  };
  chosen = options("tiny-gpt2", {{}, headless});
  chosen.num_labels = 5;
  const LoadedModel five = load_model(chosen);
  EXPECT_EQ(five.model->named_parameters()["score.weight"].size(0), 5);
  EXPECT_EQ(five.model->config_json()["id2label"].size(), 5U);
  EXPECT_EQ(five.model->config_json()["label2id"]["LABEL_4"], 4);
  const auto no_names = [](Json& config) {
    config.erase("id2label");
    config.erase("label2id");
  };
  EXPECT_EQ(load("tiny-gpt2", {no_names, headless}).model->named_parameters()["score.weight"].size(0), 2);
  auto regression = options("tiny-gpt2", {no_names, headless});
  regression.problem_type = ProblemType::kRegression;
  EXPECT_EQ(load_model(regression).model->named_parameters()["score.weight"].size(0), 1);
  auto one = options("tiny-gpt2", {{}, headless});
  one.num_labels = 1;
  EXPECT_THAT(failure(one, ExitCode::kUsage), HasSubstr("nothing to choose from"));
}

TEST_F(ModelLoad, NamesOfLabelsAreKept) {
  const LoadedModel named = load("tiny-bert", {[](Json& config) {
                                                 config["id2label"] = {{"0", "bad"}, {"1", "fair"}, {"2", "good"}};
                                                 config["label2id"] = {{"bad", 0}, {"fair", 1}, {"good", 2}};
                                                 config["something_new"] = {1, 2};
                                                 config["torch_dtype"] = "float16";
                                               },
                                               {}});
  const Json config = named.model->config_json();
  EXPECT_EQ(config["id2label"]["1"], "fair");
  EXPECT_EQ(config["label2id"]["good"], 2);
  EXPECT_EQ(config["something_new"], Json({1, 2}));
  EXPECT_EQ(config["dtype"], "float32");
  EXPECT_FALSE(config.contains("torch_dtype"));
  EXPECT_EQ(config["architectures"], Json({"BertForSequenceClassification"}));
  EXPECT_EQ(config["problem_type"], "single_label_classification");
  EXPECT_EQ(config["pad_token_id"], 0);
}

TEST_F(ModelLoad, DropoutAndPadTokenAreOverridden) {
  auto chosen = options("tiny-gpt2", {[](Json& config) { config["pad_token_id"] = nullptr; }, {}});
  EXPECT_TRUE(load_model(chosen).model->config_json()["pad_token_id"].is_null());
  chosen.dropout = 0;
  chosen.pad_token_id = 2;
  const LoadedModel loaded = load_model(chosen);
  for (const char* key : {"embd_pdrop", "attn_pdrop", "resid_pdrop"}) EXPECT_EQ(loaded.model->config_json()[key], 0.0);
  EXPECT_EQ(loaded.model->config_json()["pad_token_id"], 2);
  // In training mode without dropout the result is that of evaluation.
  const Json golden = read_json_file(test_data("models/tiny-gpt2/golden.json"))[4];
  const Batch batch = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
  loaded.model->train();
  EXPECT_LT(difference(loaded.model->forward(batch).logits, tensor_of(golden["logits"], at::kFloat)), 1e-5);
  chosen.pad_token_id = 50;
  EXPECT_THAT(failure(chosen, ExitCode::kUsage), HasSubstr("pad token id 50"));
}

TEST_F(ModelLoad, Gpt2WithoutPadTokenUsesTheMask) {
  const LoadedModel loaded = load("tiny-gpt2", {[](Json& config) { config.erase("pad_token_id"); }, {}});
  loaded.model->eval();
  for (const std::size_t which : {0U, 1U}) {  // right and left padding
    const Json golden = read_json_file(test_data("models/tiny-gpt2/golden.json"))[which];
    Batch batch = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
    EXPECT_LT(difference(loaded.model->forward(batch).logits, tensor_of(golden["logits"], at::kFloat)), 1e-5);
    batch.tensors.erase("attention_mask");
    EXPECT_THROW((void)loaded.model->forward(batch), Error);
  }
}

struct Refusal {
  std::string name;
  std::string model;
  std::string key;
  Json value;
  std::string reason;
};

class RefusedConfig : public ModelLoad, public ::testing::WithParamInterface<Refusal> {};

TEST_P(RefusedConfig, SaysWhy) {
  const Refusal& refusal = GetParam();
  const std::string message =
      failure("tiny-" + refusal.model, {[&](Json& config) { config[refusal.key] = refusal.value; }, {}});
  EXPECT_THAT(message, HasSubstr("config.json"));
  EXPECT_THAT(message, HasSubstr(refusal.reason));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedConfig,
    ::testing::Values(Refusal{"ModelType", "bert", "model_type", "llama", "\"llama\" is not supported"},
                      Refusal{"NoModelType", "bert", "model_type", nullptr, "model_type is missing"},
                      Refusal{"Activation", "bert", "hidden_act", "mish", "hidden_act = \"mish\" is not supported"},
                      Refusal{"RelativePositions", "bert", "position_embedding_type", "relative_key", "relative_key"},
                      Refusal{"Decoder", "bert", "is_decoder", true, "is_decoder"},
                      Refusal{"CrossAttention", "gpt2", "add_cross_attention", true, "add_cross_attention"},
                      Refusal{"Quantised", "gpt2", "quantization_config", Json{{"bits", 4}}, "quantization_config"},
                      Refusal{"PrunedHeads", "bert", "pruned_heads", Json{{"0", {1}}}, "pruned_heads"},
                      Refusal{"ZeroLayers", "bert", "num_hidden_layers", 0, "num_hidden_layers is 0"},
                      Refusal{"FractionalSize", "bert", "hidden_size", 31.5, "hidden_size is 31.5"},
                      Refusal{"HugeSize", "gpt2", "n_embd", 1000000000, "n_embd"},
                      Refusal{"HugeModel", "gpt2", "n_layer", 16000000, "1e11 is the limit"},
                      Refusal{"Heads", "bert", "num_attention_heads", 5, "not a multiple"},
                      Refusal{"Probability", "gpt2", "attn_pdrop", 1.5, "attn_pdrop is 1.5"},
                      Refusal{"PadToken", "gpt2", "pad_token_id", 50, "pad_token_id is 50"},
                      Refusal{"Labels", "bert", "id2label", Json::array({1}), "id2label"}),
    [](const auto& each) { return each.param.name; });

TEST_F(ModelLoad, LayerwiseScaleChangesTheResult) {
  const Json golden = read_json_file(test_data("models/tiny-gpt2/golden.json"))[0];
  const Batch batch = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
  const auto run = [&](const char* key, bool value) {
    const LoadedModel loaded = load("tiny-gpt2", {[&](Json& config) { config[key] = value; }, {}});
    loaded.model->eval();
    return difference(loaded.model->forward(batch).logits, tensor_of(golden["logits"], at::kFloat));
  };
  EXPECT_GT(run("scale_attn_by_inverse_layer_idx", true), 1e-3);
  EXPECT_GT(run("scale_attn_weights", false), 1e-3);
  EXPECT_LT(run("reorder_and_upcast_attn", true), 1e-5);
}

class SavedModel : public ModelLoad, public ::testing::WithParamInterface<std::string> {};

TEST_P(SavedModel, ReadsBackBitByBit) {
  const LoadedModel loaded = load(GetParam());
  const auto folder = temp_.path() / "saved";
  save_model(*loaded.model, folder);
  // Names and values are those that transformers wrote.
  const SafetensorsFile ours(folder / "model.safetensors");
  const SafetensorsFile theirs(test_data("models/" + GetParam()) / "model.safetensors");
  EXPECT_EQ(ours.names(), theirs.names());
  EXPECT_EQ(ours.metadata().at("format"), "pt");
  for (const std::string& name : theirs.names()) EXPECT_TRUE(at::equal(ours.tensor(name), theirs.tensor(name)));
  Json config = read_json_file(folder / "config.json");
  EXPECT_EQ(config["problem_type"], "single_label_classification");
  config.erase("problem_type");
  EXPECT_EQ(config, read_json_file(test_data("models/" + GetParam()) / "config.json"));

  ModelOptions again;
  again.folder = folder;
  expect_equal(*loaded.model, *load_model(again).model);

  auto random = options(GetParam());
  random.random_init = true;
  const LoadedModel other = load_model(random);
  load_weights(*other.model, folder);
  expect_equal(*loaded.model, *other.model);
  write_safetensors(folder / "model.safetensors", {{"score.weight", at::zeros({3, 32}, at::kFloat)}}, {});
  EXPECT_THROW(load_weights(*other.model, folder), Error);
}

TEST_P(SavedModel, RandomWeightsFollowFromTheSeed) {
  auto random = options(GetParam());
  std::filesystem::remove(random.folder / "model.safetensors");
  random.random_init = true;
  const LoadedModel one = load_model(random);
  expect_equal(*one.model, *load_model(random).model);
  EXPECT_EQ(one.report.missing.size(), one.model->named_parameters().size());
  random.seed = 43;
  const LoadedModel other = load_model(random);
  std::set<float> first_values;
  for (const auto& item : one.model->named_parameters()) {
    const at::Tensor& value = item.value();
    if (item.key().ends_with(".bias")) {
      EXPECT_EQ(value.abs().sum().item<float>(), 0);
    } else if (value.dim() == 1) {
      EXPECT_TRUE(value.eq(1).all().item<bool>()) << item.key();
    } else {
      const double expected = item.key().ends_with("c_proj.weight") ? 0.02 / std::sqrt(4.0) : 0.02;
      EXPECT_NEAR(value.std().item<double>(), expected, expected * 0.25) << item.key();
      EXPECT_FALSE(at::equal(value, other.model->named_parameters()[item.key()]));
      first_values.insert(value[1][0].item<float>());
    }
    if (item.key().ends_with("word_embeddings.weight")) {
      EXPECT_EQ(value[0].abs().sum().item<float>(), 0);
    }
  }
  EXPECT_GT(first_values.size(), 10U);
}

INSTANTIATE_TEST_SUITE_P(Tiny, SavedModel, ::testing::Values("tiny-bert", "tiny-gpt2"),
                         [](const auto& each) { return each.param.substr(5); });

TEST_F(ModelLoad, DamagedBatchesAreRefused) {
  const LoadedModel loaded = load("tiny-bert");
  const Json golden = read_json_file(test_data("models/tiny-bert/golden.json"))[0];
  const auto message = [&](const std::function<void(Batch&)>& damage) {
    Batch batch = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
    for (auto& named : batch.tensors) named.second = named.second.clone();
    damage(batch);
    try {
      (void)loaded.model->forward(batch);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      return std::string(error.what());
    }
    return std::string("nothing failed");
  };
  EXPECT_THAT(message([](Batch& b) { b.tensors["input_ids"][1][2] = 50; }), HasSubstr("example 101: token id 50"));
  EXPECT_THAT(message([](Batch& b) { b.tensors["input_ids"][2][2] = -1; }), HasSubstr("example 102: token id -1"));
  EXPECT_THAT(message([](Batch& b) { b.tensors["token_type_ids"][0][0] = 2; }), HasSubstr("token type 2"));
  EXPECT_THAT(message([](Batch& b) { b.tensors["labels"][2] = 3; }), HasSubstr("example 102: label 3 is not in 0..2"));
  EXPECT_THAT(message([](Batch& b) { b.tensors["labels"] = at::zeros({3}, at::kFloat); }), HasSubstr("int64"));
  EXPECT_THAT(message([](Batch& b) {
                b.tensors = {{"input_ids", at::ones({3, 17}, at::kLong)}};
              }),
              HasSubstr("17 tokens per example but the model has 16 positions"));
}

}  // namespace
}  // namespace dtrain::test
