// Encodes the texts of a file with one thread and says how long it took; tokenizer_bench.py compares that with Python.
//   tokenizer_bench FOLDER TEXTS [IDS]
// TEXTS: for each text its length in bytes (4 bytes, little-endian) and its bytes. IDS: for each text the number of its
// ids and the ids, as 4-byte little-endian integers. Prints one line of JSON.
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/file.h"
#include "datasets/tokenizers/tokenizer.h"

namespace {

std::vector<std::string_view> split_texts(std::string_view bytes) {
  std::vector<std::string_view> texts;
  while (!bytes.empty()) {
    std::uint32_t size = 0;
    if (bytes.size() < sizeof size) throw dtrain::data_error("the file of texts is cut short");
    std::memcpy(&size, bytes.data(), sizeof size);
    bytes.remove_prefix(sizeof size);
    if (bytes.size() < size) throw dtrain::data_error("the file of texts is cut short");
    texts.push_back(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return texts;
}

int run(int argc, char** argv) {
  if (argc < 3) throw dtrain::usage_error("usage: tokenizer_bench FOLDER TEXTS [IDS]");
  const dtrain::Stopwatch loading;
  const auto tokenizer = dtrain::load_tokenizer(argv[1]);
  const double load_seconds = loading.seconds();
  const dtrain::MappedFile file(argv[2]);
  const auto texts = split_texts(file.text());

  std::vector<std::int32_t> all;
  all.reserve(file.text().size() / 2 + texts.size());
  const dtrain::Stopwatch encoding;
  for (const std::string_view text : texts) {
    const std::size_t place = all.size();
    all.push_back(0);
    tokenizer->encode(text, {}, all);
    all[place] = static_cast<std::int32_t>(all.size() - place - 1);
  }
  const double seconds = encoding.seconds();
  if (argc > 3) {
    dtrain::write_file_synced(argv[3], {reinterpret_cast<const char*>(all.data()), all.size() * sizeof(all[0])});
  }
  std::cout << fmt::format("{{\"texts\":{},\"bytes\":{},\"ids\":{},\"load_seconds\":{:.6f},\"seconds\":{:.6f}}}\n",
                           texts.size(), file.text().size() - 4 * texts.size(), all.size() - texts.size(), load_seconds,
                           seconds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const dtrain::Error& error) {
    std::cerr << error.what() << '\n' << error.hint() << '\n';
    return static_cast<int>(error.code());
  }
}
