// logits_of FOLDER ROWS.jsonl MAX_LENGTH [TASK]: prints a JSON list with what the model says of each row, one row at a
// time so that no padding is involved. The integration tests compare it with what transformers computes. A row has a
// "text" or "ids".
//
// Classification: the logits, token by token where tokens have classes. Language models: for each position i the log
// probability of the word (7 x its id + i) modulo the size of the vocabulary, which no training ever asked for.
#include <cstdio>
#include <fstream>
#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/json.h"
#include "datasets/tokenizers/tokenizer.h"
#include "trainer/models/model.h"

namespace dtrain {
namespace {

std::vector<float> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

// `copies` of the row.
Batch batch_of(const std::vector<std::int32_t>& ids, std::int64_t copies) {
  const auto length = static_cast<std::int64_t>(ids.size());
  Batch batch;
  batch.size = copies;
  for (std::int64_t i = 0; i < copies; ++i) batch.example_index.push_back(i);
  batch.slot = batch.example_index;
  batch.example_weight.assign(static_cast<std::size_t>(copies), 1);
  batch.weight = static_cast<double>(copies);
  batch.tensors["input_ids"] = at::tensor(ids).to(at::kLong).reshape({1, length}).repeat({copies, 1});
  batch.tensors["attention_mask"] = at::ones({copies, length}, at::kLong);
  return batch;
}

Json logits(Model& model, Task task, const std::vector<std::int32_t>& ids) {
  const auto length = static_cast<std::int64_t>(ids.size());
  if (task == Task::kSequenceClassification) return values(model.forward(batch_of(ids, 1)).logits);
  if (task == Task::kTokenClassification) {
    Batch batch = batch_of(ids, 1);
    batch.tensors["targets"] = at::arange(length, at::kLong);
    batch.tensors["labels"] = at::zeros({length}, at::kLong);
    batch.target_count = {length};
    return values(model.forward(batch).logits);
  }
  // Losses are told apart by example: one copy of the row for each position.
  Batch batch = batch_of(ids, length);
  const at::Tensor at = at::arange(length, at::kLong);
  batch.tensors["targets"] = at.mul(length + 1);
  batch.tensors["labels"] = batch["input_ids"][0].mul(7).add(at).remainder(model.vocab_size());
  batch.target_count.assign(ids.size(), 1);
  return values(model.forward(batch).loss_each.neg());
}

int run(const std::string& folder, const std::string& rows, std::int64_t max_length, const std::string& task) {
  const at::NoGradGuard no_grad;
  ModelOptions options;
  options.folder = folder;
  options.task = task_named(task);
  const LoadedModel loaded = load_model(options);
  loaded.model->eval();
  const auto tokenizer = load_tokenizer(folder);
  Json result = Json::array();
  std::ifstream lines(rows);
  for (std::string line; std::getline(lines, line);) {
    const Json row = parse_json(line, rows);
    const auto ids = row.contains("ids")
                         ? row.at("ids").get<std::vector<std::int32_t>>()
                         : tokenizer->encode(row.at("text").get<std::string>(), {.max_length = max_length});
    result.push_back(logits(*loaded.model, options.task, ids));
  }
  fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace
}  // namespace dtrain

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 64;
  try {
    return dtrain::run(argv[1], argv[2], std::stol(argv[3]), argc == 5 ? argv[4] : "sequence-classification");
  } catch (const dtrain::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
