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

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    throw data_error(fmt::format("{}: not valid JSON: {}", where, printable(error.what())),
                     "write the file again or fetch it anew");
  }
}

Json read_json_file(const std::filesystem::path& path) { return parse_json(MappedFile(path).text(), path.string()); }

}  // namespace dtrain
