#include "datasets/readers/source_bytes.h"

#include <array>

#include <zlib.h>

#include "core/error.h"
#include "core/file.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

std::string unpack(const fs::path& path) {
  const MappedFile file(path);
  const auto damaged = [&](const char* reason) {
    return data_error(fmt::format("{}: {}", path.string(), reason), "fetch the file anew");
  };
  z_stream stream{};
  // 16: a gzip header is required.
  DTRAIN_CHECK(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK, "zlib cannot start");
  struct Ender {
    z_stream* stream;
    ~Ender() { inflateEnd(stream); }
  } const ender{&stream};

  std::string unpacked;
  std::array<char, 1 << 16> chunk{};
  std::string_view rest = file.text();
  if (rest.empty()) throw damaged("an empty file is not gzip");
  while (!rest.empty()) {
    int status = Z_OK;
    while (status != Z_STREAM_END) {
      if (stream.avail_in == 0) {
        if (rest.empty()) throw damaged("the gzip data is cut off");
        const std::size_t piece = std::min<std::size_t>(rest.size(), 1U << 30);
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(rest.data()));
        stream.avail_in = static_cast<uInt>(piece);
        rest.remove_prefix(piece);
      }
      stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
      stream.avail_out = static_cast<uInt>(chunk.size());
      status = inflate(&stream, Z_NO_FLUSH);
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) throw damaged("the gzip data is damaged");
      unpacked.append(chunk.data(), chunk.size() - stream.avail_out);
    }
    // What this member did not use belongs to the next one.
    rest = std::string_view(rest.data() - stream.avail_in, rest.size() + stream.avail_in);
    stream.avail_in = 0;
    if (!rest.empty()) inflateReset(&stream);
  }
  return unpacked;
}

}  // namespace

std::string read_source(const fs::path& path) {
  std::error_code code;
  if (!fs::exists(path, code)) {
    throw usage_error(fmt::format("no file {}", path.string()), "relative paths start at the current folder");
  }
  return path.extension() == ".gz" ? unpack(path) : read_file(path);
}

}  // namespace dtrain
