// Comma- and tab-separated values as RFC 4180 describes them: a header row, fields in double quotes may hold separators,
// line ends and doubled quotes. Lines may end in CRLF.
#include <algorithm>
#include <charconv>

#include "datasets/readers/record.h"

namespace dtrain {
namespace {

// Reads one record at a time; `line` is the line on which the last record began.
class Fields {
 public:
  Fields(std::string_view bytes, char separator, const std::string& file) : rest_(bytes), separator_(separator), file_(file) {}

  [[nodiscard]] bool next(std::vector<std::string>& fields) {
    fields.clear();
    if (rest_.empty()) return false;
    line_ = next_line_;
    while (true) {
      fields.push_back(rest_.starts_with('"') ? quoted() : plain());
      if (rest_.empty()) return true;
      const char end = rest_.front();
      rest_.remove_prefix(1);
      if (end == '\n') {
        ++next_line_;
        return true;
      }
    }
  }

  [[nodiscard]] RecordPlace place() const { return {file_, line_}; }

 private:
  std::string plain() {
    const std::size_t end = std::min(rest_.find(separator_), rest_.find('\n'));
    std::string_view field = rest_.substr(0, end);
    rest_.remove_prefix(field.size());
    if (rest_.starts_with('\n') || rest_.empty()) {
      if (field.ends_with('\r')) field.remove_suffix(1);
    }
    return std::string(field);
  }

  std::string quoted() {
    std::string field;
    rest_.remove_prefix(1);
    while (true) {
      const std::size_t end = rest_.find('"');
      if (end == std::string_view::npos) throw place().error("a quoted field has no closing quote");
      field += rest_.substr(0, end);
      rest_.remove_prefix(end + 1);
      if (!rest_.starts_with('"')) break;
      field += '"';
      rest_.remove_prefix(1);
    }
    next_line_ += std::count(field.begin(), field.end(), '\n');
    if (rest_.starts_with("\r\n") || rest_ == "\r") rest_.remove_prefix(1);
    if (!rest_.empty() && rest_.front() != separator_ && rest_.front() != '\n') {
      throw place().error("text after the closing quote of a field");
    }
    return field;
  }

  std::string_view rest_;
  char separator_;
  const std::string& file_;
  std::int64_t line_ = 1;
  std::int64_t next_line_ = 1;
};

std::size_t column_of(const std::vector<std::string>& header, const std::string& name, const RecordPlace& place) {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found == header.end()) {
    throw place.error(fmt::format("no column \"{}\"; there are: {}", name, join_names(header)),
                      "name the columns with data.text and data.label; the first row must be the header");
  }
  return static_cast<std::size_t>(found - header.begin());
}

// "1", "0.5", "word", or for several labels "0 1 1".
RawLabel label_of(const std::string& field, LabelKind kind) {
  std::vector<double> numbers;
  const char* position = field.data();
  const char* const end = field.data() + field.size();
  while (position != end) {
    if (*position == ' ' || *position == ',') {
      ++position;
      continue;
    }
    double number = 0;
    const auto [after, code] = std::from_chars(position, end, number);
    if (code != std::errc()) return field;
    numbers.push_back(number);
    position = after;
  }
  if (kind == LabelKind::kClass) return numbers.size() == 1 ? RawLabel(numbers[0]) : RawLabel(field);
  return numbers;
}

}  // namespace

void read_separated(std::string_view bytes, char separator, const ReaderOptions& options, std::int64_t file, RawDataset& dataset) {
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);  // spreadsheet programs begin with a byte order mark
  Fields rows(bytes, separator, dataset.files[static_cast<std::size_t>(file)]);
  std::vector<std::string> header;
  if (!rows.next(header)) return;
  const std::size_t text = column_of(header, options.text_column, rows.place());
  const std::size_t label = column_of(header, options.label_column, rows.place());
  std::vector<std::string> fields;
  while (rows.next(fields)) {
    const RecordPlace place = rows.place();
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (fields.size() != header.size()) {
      throw place.error(fmt::format("{} fields, and the header has {}", fields.size(), header.size()),
                        "a field that holds the separator must be in double quotes");
    }
    RawExample example;
    example.text = checked_utf8(fields[text], options, place);
    example.labels = checked_label(label_of(checked_utf8(fields[label], options, place), options.label_kind), options, place);
    example.file = file;
    example.line = place.line;
    dataset.examples.push_back(std::move(example));
  }
}

}  // namespace dtrain
