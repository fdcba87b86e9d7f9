// Comma- and tab-separated values as RFC 4180 describes them: a header row, fields in double quotes may hold
// separators, line ends and doubled quotes. Lines may end in CRLF.
#include <algorithm>
#include <charconv>
#include <optional>

#include "datasets/readers/examples.h"

namespace dtrain {
namespace {

// Reads one record at a time; `line` is the line on which the last record began.
class Fields {
 public:
  Fields(std::string_view bytes, char separator, const std::string& file)
      : rest_(bytes), separator_(separator), file_(file) {}

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
      if (end == std::string_view::npos)
        throw place().error("a quoted field has no closing quote", "quotes inside quotes are doubled");
      field += rest_.substr(0, end);
      rest_.remove_prefix(end + 1);
      if (!rest_.starts_with('"')) break;
      field += '"';
      rest_.remove_prefix(1);
    }
    next_line_ += std::count(field.begin(), field.end(), '\n');
    if (rest_.starts_with("\r\n") || rest_ == "\r") rest_.remove_prefix(1);
    if (!rest_.empty() && rest_.front() != separator_ && rest_.front() != '\n') {
      throw place().error("text after the closing quote of a field", "quotes inside quotes are doubled");
    }
    return field;
  }

  std::string_view rest_;
  char separator_;
  const std::string& file_;
  std::int64_t line_ = 1;
  std::int64_t next_line_ = 1;
};

std::size_t column_of(const std::vector<std::string>& header, const std::string& name, RecordKind kind,
                      const RecordPlace& place) {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found == header.end()) {
    throw place.error(fmt::format("no column \"{}\"; there are: {}", name, join_names(header)),
                      column_hint(kind) + "; the first row must be the header");
  }
  if (std::find(found + 1, header.end(), name) != header.end()) {
    throw place.error(fmt::format("column \"{}\" stands twice in the header", name));
  }
  return static_cast<std::size_t>(found - header.begin());
}

std::optional<double> number_of(std::string_view field) {
  double number = 0;
  const auto [end, code] = std::from_chars(field.data(), field.data() + field.size(), number);
  if (code != std::errc() || end != field.data() + field.size()) return std::nullopt;
  return number;
}

// A number or a word; for several labels a list of them ("0 1 1", "4,12", "fun;sad"). A name of data.labels wins over a
// number.
RawLabel label_of(const std::string& field, const ReaderOptions& options) {
  const auto is_name = [&](const std::string& word) {
    return std::find(options.class_names.begin(), options.class_names.end(), word) != options.class_names.end();
  };
  const bool is_list = options.label_kind == LabelKind::kMultiLabel ||
                       (options.label_kind == LabelKind::kRegression && options.num_labels > 1);
  if (!is_list) {
    const auto number = number_of(field);
    if (!number || is_name(field)) return field;
    return *number;
  }
  std::vector<double> numbers;
  std::vector<std::string> words;
  std::string_view rest = field;
  while (true) {
    rest.remove_prefix(std::min(rest.find_first_not_of(" ,;"), rest.size()));
    if (rest.empty()) break;
    const std::string item(rest.substr(0, rest.find_first_of(" ,;")));
    rest.remove_prefix(item.size());
    words.push_back(item);
    if (const auto number = number_of(item)) numbers.push_back(*number);
  }
  if (numbers.size() == words.size() && std::none_of(words.begin(), words.end(), is_name)) return numbers;
  return words;
}

class SeparatedRecord final : public Record {
 public:
  SeparatedRecord(const std::vector<std::string>& header, const RecordPlace& header_place,
                  const std::vector<std::string>& fields, const RecordPlace& place, const ReaderOptions& options)
      : header_(header), header_place_(header_place), fields_(fields), place_(place), options_(options) {}

  [[nodiscard]] std::string text(const std::string& column) const override {
    return checked_utf8(fields_[column_of(header_, column, options_.record, header_place_)], options_, place_);
  }
  [[nodiscard]] RawLabel label(const std::string& column) const override { return label_of(text(column), options_); }
  [[nodiscard]] std::vector<std::string> words(const std::string& column) const override {
    throw place_.error(fmt::format("column \"{}\" is one text, and a list of words is needed", column));
  }

 private:
  const std::vector<std::string>& header_;
  const RecordPlace& header_place_;
  const std::vector<std::string>& fields_;
  const RecordPlace& place_;
  const ReaderOptions& options_;
};

}  // namespace

void read_separated(std::string_view bytes, char separator, Examples& examples) {
  Fields rows(without_byte_order_mark(bytes), separator, examples.place(0).file);
  std::vector<std::string> header;
  if (!rows.next(header)) return;
  const RecordPlace header_place = rows.place();
  std::vector<std::string> fields;
  while (rows.next(fields)) {
    const RecordPlace place = rows.place();
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (fields.size() != header.size()) {
      throw place.error(fmt::format("{} fields, and the header has {}", fields.size(), header.size()),
                        "a field that holds the separator must be in double quotes");
    }
    examples.add(SeparatedRecord(header, header_place, fields, place, examples.options()), place.line);
  }
}

}  // namespace dtrain
