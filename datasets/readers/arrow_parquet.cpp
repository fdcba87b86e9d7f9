// Parquet through Apache Arrow: row group after row group, only the columns that the examples need. What a damaged file
// may hold (offsets, lengths and indices outside their buffers) is checked before it is used.
// The only file that includes Arrow. It becomes libdtrain_parquet.so, which is loaded for the first Parquet file:
// Arrow's libraries bring symbols that other libraries have too, and cost every start 60 MB of address space and 15 ms.
#include <algorithm>
#include <map>
#include <new>
#include <stdexcept>

#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include "datasets/readers/examples.h"

namespace dtrain {
namespace {

// Rows that are unpacked at a time.
constexpr std::int64_t kBatch = 1024;

Error damaged(const std::string& file, std::string_view reason) {
  return data_error(fmt::format("{}: not a readable Parquet file: {}", file, reason.substr(0, reason.find('\n'))),
                    "fetch the file anew");
}

void check(const arrow::Status& status, const std::string& file) {
  if (!status.ok()) throw damaged(file, status.message());
}

template <class T>
T value_of(arrow::Result<T> result, const std::string& file) {
  check(result.status(), file);
  return std::move(result).ValueUnsafe();
}

// "text", "translation.de", "translation.en", ...: what a column name can stand for.
void add_names(const arrow::FieldVector& fields, const std::string& around, std::vector<std::string>& names) {
  for (const auto& field : fields) {
    if (field->type()->id() == arrow::Type::STRUCT) {
      add_names(field->type()->fields(), around + field->name() + ".", names);
    } else {
      names.push_back(around + field->name());
    }
  }
}

// A column of a batch, from the outermost struct to the values ("translation.en" has two arrays); a row is null when it
// is null in any of them.
using Column = std::vector<std::shared_ptr<arrow::Array>>;

// Empty when there is no such column. Like the keys of JSON, a name with dots is a name or a way into structs.
Column find_column(const arrow::RecordBatch& batch, std::string_view name) {
  for (std::size_t end = name.size(); end != std::string_view::npos && end > 0; end = name.rfind('.', end - 1)) {
    const int index = batch.schema()->GetFieldIndex(std::string(name.substr(0, end)));
    if (index < 0) continue;
    Column column = {batch.column(index)};
    std::string_view rest = name.substr(end);
    while (!rest.empty()) {
      rest.remove_prefix(1);
      const auto* outer = dynamic_cast<const arrow::StructArray*>(column.back().get());
      if (outer == nullptr) return {};
      const std::size_t dot = rest.find('.');
      auto inner = outer->GetFieldByName(std::string(rest.substr(0, dot)));
      if (inner == nullptr) return {};
      column.push_back(std::move(inner));
      rest = dot == std::string_view::npos ? std::string_view{} : rest.substr(dot);
    }
    return column;
  }
  return {};
}

// The batch's row as a Record.
class ParquetRecord final : public Record {
 public:
  ParquetRecord(const std::map<std::string, Column>& columns, std::int64_t row, const ReaderOptions& options,
                const RecordPlace& place)
      : columns_(columns), row_(row), options_(options), place_(place) {}

  [[nodiscard]] std::string text(const std::string& column) const override {
    const arrow::Array& values = values_of(column);
    if (!holds_texts(*values.type())) throw wrong_type(column, values, "a text");
    return text_at(values, row_, column);
  }

  [[nodiscard]] RawLabel label(const std::string& column) const override {
    const arrow::Array& values = values_of(column);
    if (holds_texts(*values.type())) return text_at(values, row_, column);
    if (holds_numbers(*values.type())) return number_at(values, row_, column);
    const Items items = items_at(values, column, "a number, a text, or a list of them");
    if (holds_texts(*items.values->type())) return texts_in(items, column);
    if (!holds_numbers(*items.values->type())) throw wrong_type(column, values, "a list of numbers or texts");
    std::vector<double> numbers;
    for (std::int64_t i = items.begin; i < items.end; ++i) numbers.push_back(number_at(*items.values, i, column));
    return numbers;
  }

  [[nodiscard]] std::vector<std::string> words(const std::string& column) const override {
    const arrow::Array& values = values_of(column);
    const Items items = items_at(values, column, "a list of words");
    if (!holds_texts(*items.values->type())) throw wrong_type(column, values, "a list of words");
    return texts_in(items, column);
  }

 private:
  // The items of a list.
  struct Items {
    std::shared_ptr<arrow::Array> values;
    std::int64_t begin;
    std::int64_t end;
  };

  [[nodiscard]] Error wrong_type(const std::string& column, const arrow::Array& values, std::string_view wanted) const {
    return place_.error(
        fmt::format("column \"{}\" is of the type {}, and {} is needed", column, values.type()->ToString(), wanted),
        column_hint(options_.record));
  }
  [[nodiscard]] Error outside(const std::string& column) const {
    return place_.error(fmt::format("column \"{}\" is damaged: a value lies outside its data", column),
                        "fetch the file anew");
  }

  static bool holds_texts(const arrow::DataType& type) {
    if (type.id() == arrow::Type::DICTIONARY)
      return holds_texts(*static_cast<const arrow::DictionaryType&>(type).value_type());
    return type.id() == arrow::Type::STRING || type.id() == arrow::Type::LARGE_STRING;
  }
  static bool holds_numbers(const arrow::DataType& type) {
    return arrow::is_integer(type.id()) || type.id() == arrow::Type::FLOAT || type.id() == arrow::Type::DOUBLE ||
           type.id() == arrow::Type::BOOL;
  }

  void check_not_null(const arrow::Array& values, std::int64_t index, const std::string& column) const {
    if (index < 0 || index >= values.length()) throw outside(column);
    if (values.IsNull(index))
      throw place_.error(fmt::format("column \"{}\" is null, or holds a null", column), "leave such rows out");
  }

  [[nodiscard]] const arrow::Array& values_of(const std::string& column) const {
    const Column& arrays = columns_.at(column);
    for (const auto& array : arrays) check_not_null(*array, row_, column);
    return *arrays.back();
  }

  template <class Array>
  [[nodiscard]] std::string bytes_at(const Array& values, std::int64_t index, const std::string& column) const {
    const std::int64_t begin = values.value_offset(index);
    const std::int64_t size = values.value_length(index);
    const std::int64_t available = values.value_data() == nullptr ? 0 : values.value_data()->size();
    if (begin < 0 || size < 0 || begin > available || size > available - begin) throw outside(column);
    const auto* data = reinterpret_cast<const char*>(values.raw_data());
    return checked_utf8(std::string_view(size == 0 ? "" : data + begin, static_cast<std::size_t>(size)), options_,
                        place_);
  }

  [[nodiscard]] std::string text_at(const arrow::Array& values, std::int64_t index, const std::string& column) const {
    check_not_null(values, index, column);
    switch (values.type_id()) {
      case arrow::Type::STRING:
        return bytes_at(static_cast<const arrow::StringArray&>(values), index, column);
      case arrow::Type::LARGE_STRING:
        return bytes_at(static_cast<const arrow::LargeStringArray&>(values), index, column);
      default: {
        const auto& coded = static_cast<const arrow::DictionaryArray&>(values);
        return text_at(*coded.dictionary(), coded.GetValueIndex(index), column);
      }
    }
  }

  [[nodiscard]] std::vector<std::string> texts_in(const Items& items, const std::string& column) const {
    std::vector<std::string> texts;
    for (std::int64_t i = items.begin; i < items.end; ++i) texts.push_back(text_at(*items.values, i, column));
    return texts;
  }

  template <class Array>
  static double plain_number(const arrow::Array& values, std::int64_t index) {
    return static_cast<double>(static_cast<const Array&>(values).Value(index));
  }

  [[nodiscard]] double number_at(const arrow::Array& values, std::int64_t index, const std::string& column) const {
    check_not_null(values, index, column);
    switch (values.type_id()) {
      case arrow::Type::BOOL:
        return static_cast<const arrow::BooleanArray&>(values).Value(index) ? 1 : 0;
      case arrow::Type::INT8:
        return plain_number<arrow::Int8Array>(values, index);
      case arrow::Type::INT16:
        return plain_number<arrow::Int16Array>(values, index);
      case arrow::Type::INT32:
        return plain_number<arrow::Int32Array>(values, index);
      case arrow::Type::INT64:
        return plain_number<arrow::Int64Array>(values, index);
      case arrow::Type::UINT8:
        return plain_number<arrow::UInt8Array>(values, index);
      case arrow::Type::UINT16:
        return plain_number<arrow::UInt16Array>(values, index);
      case arrow::Type::UINT32:
        return plain_number<arrow::UInt32Array>(values, index);
      case arrow::Type::UINT64:
        return plain_number<arrow::UInt64Array>(values, index);
      case arrow::Type::FLOAT:
        return plain_number<arrow::FloatArray>(values, index);
      default:
        return plain_number<arrow::DoubleArray>(values, index);
    }
  }

  template <class Array>
  static Items plain_items(const arrow::Array& lists, std::int64_t index) {
    const auto& typed = static_cast<const Array&>(lists);
    const auto begin = static_cast<std::int64_t>(typed.value_offset(index));
    return {typed.values(), begin, begin + static_cast<std::int64_t>(typed.value_length(index))};
  }

  [[nodiscard]] Items items_at(const arrow::Array& lists, const std::string& column, std::string_view wanted) const {
    Items items;
    switch (lists.type_id()) {
      case arrow::Type::LIST:
        items = plain_items<arrow::ListArray>(lists, row_);
        break;
      case arrow::Type::LARGE_LIST:
        items = plain_items<arrow::LargeListArray>(lists, row_);
        break;
      case arrow::Type::FIXED_SIZE_LIST:
        items = plain_items<arrow::FixedSizeListArray>(lists, row_);
        break;
      default:
        throw wrong_type(column, lists, wanted);
    }
    if (items.begin < 0 || items.end < items.begin || items.end > items.values->length()) throw outside(column);
    return items;
  }

  const std::map<std::string, Column>& columns_;
  std::int64_t row_;
  const ReaderOptions& options_;
  const RecordPlace& place_;
};

// The columns of the file's pages ("leaves") that a wanted column consists of: its own, or those of its items.
std::vector<int> leaves_of(const parquet::SchemaDescriptor& schema, const std::vector<std::string>& wanted) {
  std::vector<int> leaves;
  for (int leaf = 0; leaf < schema.num_columns(); ++leaf) {
    const std::string path = schema.Column(leaf)->path()->ToDotString() + ".";
    if (std::any_of(wanted.begin(), wanted.end(),
                    [&](const std::string& name) { return path.starts_with(name + "."); }))
      leaves.push_back(leaf);
  }
  return leaves;
}

void add_batch(const arrow::RecordBatch& batch, std::int64_t rows_before, const arrow::Schema& schema,
               Examples& examples) {
  const ReaderOptions& options = examples.options();
  const RecordPlace file = examples.place(0);
  check(batch.Validate(), file.file);
  std::map<std::string, Column> columns;
  for (const std::string& name : columns_of(options)) {
    Column column = find_column(batch, name);
    if (column.empty()) {
      std::vector<std::string> names;
      add_names(schema.fields(), "", names);
      throw file.error(fmt::format("no column \"{}\"; there are: {}", name, names.empty() ? "none" : join_names(names)),
                       column_hint(options.record));
    }
    columns.emplace(name, std::move(column));
  }
  for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
    const RecordPlace place = examples.place(rows_before + row + 1);
    examples.add(ParquetRecord(columns, row, options, place), place.line);
  }
}

void read_row_groups(const std::string& file, Examples& examples) {
  arrow::MemoryPool* const pool = arrow::system_memory_pool();
  parquet::ReaderProperties properties(pool);
  properties.set_page_checksum_verification(true);
  parquet::ArrowReaderProperties arrow_properties(false);
  arrow_properties.set_pre_buffer(false);
  arrow_properties.set_batch_size(kBatch);

  auto input = value_of(arrow::io::ReadableFile::Open(file, pool), file);
  parquet::arrow::FileReaderBuilder builder;
  check(builder.Open(std::move(input), properties), file);
  builder.memory_pool(pool)->properties(arrow_properties);
  const std::unique_ptr<parquet::arrow::FileReader> reader = value_of(builder.Build(), file);
  std::shared_ptr<arrow::Schema> schema;
  check(reader->GetSchema(&schema), file);
  const auto metadata = reader->parquet_reader()->metadata();
  const std::vector<int> leaves = leaves_of(*metadata->schema(), columns_of(examples.options()));
  std::int64_t rows = 0;
  for (int group = 0; group < reader->num_row_groups(); ++group) {
    const std::int64_t expected = rows + metadata->RowGroup(group)->num_rows();
    const auto batches = value_of(reader->GetRecordBatchReader({group}, leaves), file);
    while (true) {
      std::shared_ptr<arrow::RecordBatch> batch;
      check(batches->ReadNext(&batch), file);
      if (batch == nullptr) break;
      add_batch(*batch, rows, *schema, examples);
      rows += batch->num_rows();
    }
    if (rows != expected) throw damaged(file, fmt::format("{} rows where {} are announced", rows, expected));
  }
}

}  // namespace

// The entry that read_parquet() loads.
extern "C" void dtrain_read_parquet(const std::string& file, Examples& examples);

void dtrain_read_parquet(const std::string& file, Examples& examples) {
  // Arrow reports damage in three ways: a status, its own exception, and what the library throws when a damaged number
  // asks for too much memory.
  try {
    read_row_groups(file, examples);
  } catch (const parquet::ParquetException& error) {
    throw damaged(file, error.what());
  } catch (const std::bad_alloc&) {
    throw damaged(file, "it asks for more memory than there is");
  } catch (const std::length_error& error) {
    throw damaged(file, error.what());
  }
}

}  // namespace dtrain
