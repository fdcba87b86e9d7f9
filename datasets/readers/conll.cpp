// Columns as the shared tasks of CoNLL have them: a word a line, the word in the first column and its tag in the last,
// an empty line after each sentence. Tabs separate columns in a line that has one, else spaces. Lines of the word
// -DOCSTART- mark documents and belong to no sentence.
#include <vector>

#include "datasets/readers/examples.h"

namespace dtrain {
namespace {

// First and last column; the last is empty when there is one column only.
struct Columns {
  std::string_view word;
  std::string_view tag;
};

Columns columns_in(std::string_view line) {
  const std::string_view separators = line.find('\t') == std::string_view::npos ? " " : "\t";
  const std::size_t first = line.find_first_of(separators);
  if (first == std::string_view::npos) return {line, {}};
  return {line.substr(0, first), line.substr(line.find_last_of(separators) + 1)};
}

}  // namespace

void read_conll(std::string_view bytes, Examples& examples) {
  const ReaderOptions& options = examples.options();
  std::vector<std::string> words;
  std::vector<double> tags;
  std::int64_t first_line = 0;
  const auto end_sentence = [&] {
    if (!words.empty()) examples.add_words(std::move(words), std::move(tags), first_line);
    words.clear();
    tags.clear();
  };
  Lines lines(bytes);
  std::string_view line;
  while (lines.next(line)) {
    line = line.substr(0, line.find_last_not_of(" \t") + 1);
    if (line.empty()) {
      end_sentence();
      continue;
    }
    const RecordPlace place = examples.place(lines.number());
    const std::string checked = checked_utf8(line, options, place);
    const Columns columns = columns_in(checked);
    if (columns.word == "-DOCSTART-") continue;
    if (columns.word.empty()) {
      throw place.error("no word in the first column", "delete the line, or leave it empty to end the sentence");
    }
    if (options.has_labels && columns.tag.empty()) {
      throw place.error(fmt::format("no tag after the word \"{}\"", columns.word),
                        "the last column is the tag; tabs or spaces separate columns");
    }
    if (words.empty()) first_line = lines.number();
    words.emplace_back(columns.word);
    tags.push_back(options.has_labels ? examples.tags().read(std::string(columns.tag), place) : 0);
  }
  end_sentence();
}

}  // namespace dtrain
