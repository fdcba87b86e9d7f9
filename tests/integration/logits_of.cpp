// logits_of FOLDER ROWS.jsonl MAX_LENGTH: prints the logits of each row's "text" as a JSON list of lists, one row at a
// time so that no padding is involved. The integration tests compare them with those of transformers.
#include <cstdio>
#include <fstream>
#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/json.h"
#include "datasets/tokenizers/tokenizer.h"
#include "trainer/models/model.h"

namespace dtrain {
namespace {

Json logits(Model& model, const std::vector<std::int32_t>& ids) {
  const auto length = static_cast<std::int64_t>(ids.size());
  Batch batch;
  batch.size = 1;
  batch.slot = {0};
  batch.example_index = {0};
  batch.example_weight = {1};
  batch.weight = 1;
  batch.tensors["input_ids"] = at::tensor(ids).to(at::kLong).reshape({1, length});
  batch.tensors["attention_mask"] = at::ones({1, length}, at::kLong);
  const at::Tensor row = model.forward(batch).logits.contiguous();
  return std::vector<float>(row.const_data_ptr<float>(), row.const_data_ptr<float>() + row.numel());
}

int run(const std::string& folder, const std::string& rows, std::int64_t max_length) {
  const at::NoGradGuard no_grad;
  ModelOptions options;
  options.folder = folder;
  const LoadedModel loaded = load_model(options);
  loaded.model->eval();
  const auto tokenizer = load_tokenizer(folder);
  Json result = Json::array();
  std::ifstream lines(rows);
  for (std::string line; std::getline(lines, line);) {
    const std::string text = parse_json(line, rows).at("text");
    result.push_back(logits(*loaded.model, tokenizer->encode(text, {.max_length = max_length})));
  }
  fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace
}  // namespace dtrain

int main(int argc, char** argv) {
  if (argc != 4) return 64;
  try {
    return dtrain::run(argv[1], argv[2], std::stol(argv[3]));
  } catch (const dtrain::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
