#include "trainer/models/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/json.h"

namespace dtrain {
namespace {

constexpr std::size_t kMaxHeader = 100'000'000;

struct DtypeName {
  std::string_view name;
  c10::ScalarType dtype;
};

// In the order in which the reference implementation declares them (crate safetensors, enum Dtype).
constexpr std::array<DtypeName, 10> kDtypes{{{"BOOL", c10::ScalarType::Bool},
                                             {"U8", c10::ScalarType::Byte},
                                             {"I8", c10::ScalarType::Char},
                                             {"I16", c10::ScalarType::Short},
                                             {"F16", c10::ScalarType::Half},
                                             {"BF16", c10::ScalarType::BFloat16},
                                             {"I32", c10::ScalarType::Int},
                                             {"F32", c10::ScalarType::Float},
                                             {"F64", c10::ScalarType::Double},
                                             {"I64", c10::ScalarType::Long}}};

[[noreturn]] void fail(const std::string& path, const std::string& reason) {
  throw data_error(fmt::format("{}: not a valid safetensors file: {}", path, reason),
                   "the file is damaged or was not written completely; copy or download it again");
}

// Receives the events of the JSON parser and accepts exactly the grammar of the header:
//   {"__metadata__": {string: string}, name: {"dtype": string, "shape": [n...], "data_offsets": [n, n]}, ...}
// Working on events keeps memory proportional to the header and lets duplicate names be seen.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(const std::string& path, SafetensorsHeader& header) : path_(path), header_(header) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { unexpected(fmt::format("the number {}", value)); }
  bool number_float(number_float_t, const string_t& text) override { unexpected("the number " + text); }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) {
      unexpected(fmt::format("the number {}, which is too large", value));
    }
    if (place_ == Place::kShape) {
      entry_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (place_ == Place::kOffsets && num_offsets_ < 2) {
      (num_offsets_ == 0 ? entry_.begin : entry_.end) = value;
      ++num_offsets_;
    } else {
      unexpected(fmt::format("the number {}", value));
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[key_] = value;
      return true;
    }
    if (place_ != Place::kEntry || key_ != "dtype") unexpected("a string");
    const auto* found =
        std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeName& known) { return known.name == value; });
    if (found == kDtypes.end()) {
      throw data_error(fmt::format("{}: tensor {:?} has the type {:?}, which is not supported", path_, entry_.name,
                                   value.substr(0, 20)),
                       "convert the file to F32, F16 or BF16");
    }
    entry_.dtype = found->dtype;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kNowhere:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kEntry;
        return true;
      default:
        unexpected("an object");
    }
  }

  bool key(string_t& name) override {
    if (place_ == Place::kTop) {
      if (!names_.insert(name).second) fail(path_, fmt::format("tensor {:?} is there twice", name));
      entry_ = {};
      entry_.name = name;
      fields_.clear();
      num_offsets_ = 0;
    } else if (!fields_.insert(name).second) {
      fail(path_, fmt::format("{:?} of {:?} is there twice", name, entry_.name));
    }
    key_ = name;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kEntry) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!fields_.contains(field)) fail(path_, fmt::format("tensor {:?} lacks {:?}", entry_.name, field));
      }
      header_.entries.push_back(entry_);
    }
    if (place_ == Place::kMetadata || place_ == Place::kEntry) fields_.clear();
    place_ = place_ == Place::kTop ? Place::kNowhere : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kEntry || (key_ != "shape" && key_ != "data_offsets")) unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && num_offsets_ != 2) {
      fail(path_, fmt::format("tensor {:?} needs two data_offsets", entry_.name));
    }
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(path_, fmt::format("the header is not valid JSON at byte {}", 8 + position));
  }

 private:
  enum class Place { kNowhere, kTop, kMetadata, kEntry, kShape, kOffsets };

  [[noreturn]] void unexpected(const std::string& what) const {
    fail(path_, entry_.name.empty() ? fmt::format("the header holds {} where an object is due", what)
                                    : fmt::format("the header holds {} at {:?} of {:?}", what, key_, entry_.name));
  }

  const std::string& path_;
  SafetensorsHeader& header_;
  Place place_ = Place::kNowhere;
  std::string key_;
  SafetensorsEntry entry_;
  int num_offsets_ = 0;
  std::set<std::string> names_;
  std::set<std::string> fields_;
};

// Bytes of a tensor; false when they do not fit. Extents of 0 hide no others that are too large: LibTorch multiplies
// them for the strides.
bool byte_count(const SafetensorsEntry& entry, std::size_t& count) {
  std::int64_t product = static_cast<std::int64_t>(c10::elementSize(entry.dtype));
  bool empty = false;
  for (const std::int64_t extent : entry.shape) {
    empty = empty || extent == 0;
    if (extent != 0 && __builtin_mul_overflow(product, extent, &product)) return false;
  }
  count = empty ? 0 : static_cast<std::size_t>(product);
  return true;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& path) {
  if (file.size() < 8) fail(path, fmt::format("it has {} bytes; the length of the header alone takes 8", file.size()));
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length > kMaxHeader) fail(path, fmt::format("a header of {} bytes is announced; 100 MB is the limit", length));
  if (length > file.size() - 8) {
    fail(path, fmt::format("a header of {} bytes is announced but only {} follow", length, file.size() - 8));
  }
  const std::string_view text = file.substr(8, length);
  if (text.empty() || text.front() != '{') fail(path, "the header does not start with '{'");
  // For the JSON library a zero byte is the end, whatever follows.
  if (text.find('\0') != std::string_view::npos) fail(path, "the header holds a zero byte");

  SafetensorsHeader header;
  header.data_start = 8 + length;
  HeaderReader reader(path, header);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) fail(path, "the header is not valid JSON");

  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  const std::size_t data_size = file.size() - header.data_start;
  std::size_t expected = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.begin != expected || entry.end < entry.begin) {
      fail(path, fmt::format("tensor {:?} has the byte range {} to {} but should start at {}", entry.name, entry.begin,
                             entry.end, expected));
    }
    std::size_t count = 0;
    if (!byte_count(entry, count) || count != entry.end - entry.begin) {
      fail(path, fmt::format("tensor {:?} of shape [{}] does not fill the {} bytes of its range", entry.name,
                             fmt::join(entry.shape, ", "), entry.end - entry.begin));
    }
    if (entry.end > data_size) {
      fail(path, fmt::format("tensor {:?} ends at data byte {} but the file has {}", entry.name, entry.end, data_size));
    }
    expected = entry.end;
  }
  if (expected != data_size) {
    fail(path, fmt::format("{} bytes belong to tensors but the file has {}", expected, data_size));
  }
  return header;
}

std::string safetensors_dtype_name(c10::ScalarType dtype, const std::string& where) {
  for (const DtypeName& known : kDtypes) {
    if (known.dtype == dtype) return std::string(known.name);
  }
  throw data_error(fmt::format("{}: type {} has no place in a safetensors file", where, c10::toString(dtype)));
}

int safetensors_dtype_rank(c10::ScalarType dtype) {
  const auto* found =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeName& known) { return known.dtype == dtype; });
  return static_cast<int>(found - kDtypes.begin());
}

}  // namespace dtrain
