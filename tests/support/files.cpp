#include "tests/support/files.h"

#include <fstream>
#include <ios>
#include <stdexcept>

namespace dtrain::test {
namespace fs = std::filesystem;

fs::path source_path(std::string_view relative) { return fs::path(DTRAIN_SOURCE_DIR) / relative; }

fs::path test_data(std::string_view relative) { return source_path("tests/data") / relative; }

fs::path build_path(std::string_view relative) { return fs::path(DTRAIN_BINARY_DIR) / relative; }

void write_file(const fs::path& path, std::string_view bytes) {
  fs::remove(path);  // ext4 writes a file to the disk at once when it was cut to nothing before
  std::ofstream file(path, std::ios::binary);
  if (!file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) {
    throw std::runtime_error("cannot write " + path.string());
  }
}

}  // namespace dtrain::test
