// The readers of data. The first two bytes of the input choose format and options, the rest is the file.
#include <algorithm>
#include <array>

#include "core/json.h"
#include "datasets/readers/raw_dataset.h"
#include "datasets/tokenizers/unicode.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

using fuzz::require;

// The last two: a folder with a folder per class, and two files.
constexpr std::array<const char*, 10> kFiles = {"x.jsonl",    "x.csv",    "x.tsv",      "x.txt",  "x.conll",
                                                "x.jsonl.gz", "x.csv.gz", "x.conll.gz", "folder", "*.jsonl"};

ReaderOptions options_of(std::uint8_t file, std::uint8_t bits) {
  ReaderOptions options;
  options.path = fuzz::fresh_folder() / kFiles[file % kFiles.size()];
  options.invalid_utf8 = (bits & 1U) != 0 ? InvalidUtf8::kReplace : InvalidUtf8::kError;
  options.has_labels = (bits & 2U) == 0;
  const std::string format = options.path.string();
  switch ((bits >> 2U) % 4) {
    case 0:
      options.label_kind = LabelKind::kClass;
      break;
    case 1:
      options.label_kind = LabelKind::kRegression;
      options.num_labels = 1 + (bits >> 6U);
      break;
    case 2:
      options.label_kind = LabelKind::kMultiLabel;
      options.num_labels = 3;
      break;
    default:
      options.record = RecordKind::kPair;
      options.source_column = "translation.en";
      options.target_column = "translation.de";
  }
  if ((bits & 16U) != 0 && options.label_kind == LabelKind::kClass) options.record = RecordKind::kWords;
  if (format.find(".conll") != std::string::npos) options.record = RecordKind::kWords;
  if ((bits & 32U) != 0 && options.label_kind != LabelKind::kRegression) {
    options.class_names = {"neg", "pos", "O"};
    options.num_labels = 3;
  }
  if (format.ends_with(".txt")) options.has_labels = false;
  return options;
}

void write_files(const std::filesystem::path& path, fuzz::Input input) {
  if (path.filename() == "folder") {
    for (const char* name : {"neg", "pos"}) {
      std::filesystem::create_directories(path / name);
      test::write_file(path / name / "a.txt", input.until("\n---\n"));
    }
  } else if (path.filename() == "*.jsonl") {
    test::write_file(path.parent_path() / "1.jsonl", input.until("\n---\n"));
    test::write_file(path.parent_path() / "2.jsonl", input.rest());
  } else {
    test::write_file(path, input.rest());
  }
}

void check_text(std::string_view text, std::string_view where) {
  require(unicode::is_valid_utf8(text), "a text that is none", where);
}

void check_labels(const RawExample& example, const ReaderOptions& options, std::size_t names, std::string_view where) {
  const auto count = static_cast<std::int64_t>(example.labels.size());
  if (options.record == RecordKind::kWords) {
    require(!example.words.empty() && example.words.size() == example.labels.size(), "words and tags differ", where);
  } else if (options.record == RecordKind::kText) {
    require(count == (options.label_kind == LabelKind::kClass ? 1 : options.num_labels), "number of labels", where);
  }
  if (options.label_kind == LabelKind::kRegression) return;
  const double end = names > 0 ? static_cast<double>(names) : static_cast<double>(options.num_labels);
  for (const double label : example.labels) require(label >= 0 && label < end, "a label out of range", where);
}

// What was read, as JSON Lines, reads back as the same.
void check_again(const RawDataset& dataset, ReaderOptions options) {
  std::string lines;
  for (const RawExample& example : dataset.examples) {
    Json record = Json::object();
    if (options.record == RecordKind::kWords) {
      record = {{"tokens", example.words}, {"ner_tags", example.labels}};
    } else if (options.record == RecordKind::kPair) {
      record = {{"translation", {{"en", example.text}, {"de", example.target}}}};
    } else {
      record = {{"text", example.text}};
      if (options.label_kind == LabelKind::kClass) {
        record["label"] = example.labels[0];
      } else {
        record["label"] = example.labels;
      }
    }
    lines += record.dump() + "\n";
  }
  options.path = fuzz::fresh_folder() / "again.jsonl";
  if (!dataset.class_names.empty()) options.num_labels = std::ssize(dataset.class_names);
  test::write_file(options.path, lines);
  require(fuzz::accepts([&] {
            const RawDataset again = read_raw_dataset(options);
            require(again.examples.size() == dataset.examples.size(), "another number of examples");
            for (std::size_t i = 0; i < again.examples.size(); ++i) {
              const RawExample& a = again.examples[i];
              const RawExample& b = dataset.examples[i];
              require(a.text == b.text && a.target == b.target && a.words == b.words && a.labels == b.labels,
                      "another example", dataset.location(static_cast<std::int64_t>(i)));
            }
          }),
          "what was read is refused", lines);
}

void check(fuzz::Input input) {
  const std::uint8_t file = input.byte();
  const ReaderOptions options = options_of(file, input.byte());
  write_files(options.path, input);
  RawDataset dataset;
  if (!fuzz::accepts([&] { dataset = read_raw_dataset(options); })) return;
  require(!dataset.examples.empty() && dataset.source_digest == source_digest(options),
          "no examples, or another digest");
  const bool one_file = dataset.files.size() == 1;
  std::int64_t line = 0;
  for (std::size_t i = 0; i < dataset.examples.size(); ++i) {
    const RawExample& example = dataset.examples[i];
    const std::string where = dataset.location(static_cast<std::int64_t>(i));
    require(!one_file || example.line > line, "lines do not rise", where);
    line = example.line;
    check_text(example.text, where);
    check_text(example.target, where);
    for (const std::string& word : example.words) check_text(word, where);
    check_labels(example, options, dataset.class_names.size(), where);
  }
  check_again(dataset, options);
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({data, size});
  return 0;
}
