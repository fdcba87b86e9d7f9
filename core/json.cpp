#include "core/json.h"

#include "core/error.h"
#include "core/file.h"

namespace dtrain {
namespace {

// The parser quotes the text, which need not be one.
std::string printable(std::string text) {
  for (char& character : text) {
    if (character < ' ' || character > '~') character = '?';
  }
  return text;
}

constexpr std::size_t kMaxDepth = 256;  // no file of ours, or of the Hub, comes near

// The library parses any depth, but copies and writes recursively: a megabyte of "[" would overflow the stack.
bool is_too_deep(std::string_view text) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  const std::string hint = "write the file again or fetch it anew";
  // For the library a zero byte is the end, whatever follows.
  if (text.find('\0') != std::string_view::npos) {
    throw data_error(fmt::format("{}: not valid JSON: it holds a zero byte", where), hint);
  }
  if (is_too_deep(text)) {
    throw data_error(fmt::format("{}: not valid JSON: more than {} levels deep", where, kMaxDepth), hint);
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    throw data_error(fmt::format("{}: not valid JSON: {}", where, printable(error.what())), hint);
  }
}

Json read_json_file(const std::filesystem::path& path) { return parse_json(MappedFile(path).text(), path.string()); }

}  // namespace dtrain
