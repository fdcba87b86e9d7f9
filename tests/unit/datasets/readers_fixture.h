// Readers: reads data that a test writes, and checks what reading says about it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include "core/error.h"
#include "datasets/readers/raw_dataset.h"
#include "tests/support/temp_folder.h"

namespace dtrain::test {

// One gzip member.
inline std::string gzip(std::string_view bytes) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

class Readers : public ::testing::Test {
 protected:
  test::TempFolder folder_;
  ReaderOptions options_;

  RawDataset read(std::string_view name, std::string_view bytes) {
    options_.path = folder_.write(name, bytes);
    return read_raw_dataset(options_);
  }
  std::vector<std::string> texts(const RawDataset& dataset) {
    std::vector<std::string> all;
    for (const RawExample& example : dataset.examples) all.push_back(example.text);
    return all;
  }
  std::vector<double> labels(const RawDataset& dataset) {
    std::vector<double> all;
    for (const RawExample& example : dataset.examples)
      all.insert(all.end(), example.labels.begin(), example.labels.end());
    return all;
  }
  // Reading fails with this code and a message that holds all parts.
  void expect_error(ExitCode code, std::string_view name, std::string_view bytes,
                    const std::vector<std::string>& parts) {
    options_.path = folder_.write(name, bytes);
    expect_error(code, parts);
  }
  // `hint` must be in the hint.
  void expect_error(ExitCode code, const std::vector<std::string>& parts, const std::string& hint = {}) {
    try {
      const RawDataset dataset = read_raw_dataset(options_);
      ADD_FAILURE() << options_.path << " was read: " << dataset.examples.size() << " examples";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      for (const std::string& part : parts) EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
      EXPECT_THAT(error.hint(), ::testing::HasSubstr(hint));
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
    }
  }
};

}  // namespace dtrain::test
