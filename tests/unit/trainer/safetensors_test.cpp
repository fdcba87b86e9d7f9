// The safetensors reader and writer: byte for byte the files of the reference implementation, and every damage refused.
#include "trainer/models/safetensors.h"

#include <array>
#include <cstring>
#include <string>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_folder.h"
#include "trainer/models/safetensors_header.h"

namespace dtrain {
namespace {

std::string with_header(const std::string& header, std::size_t data_size) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_size, '\x01');
}

NamedTensors small_tensors() {
  return {{"b", at::arange(6, at::kFloat).view({2, 3})}, {"a", at::full({4}, 7, at::kLong)},
          {"half", at::full({3}, 0.5, at::kHalf)},       {"flag", at::full({1}, true, at::kBool)},
          {"nothing", at::empty({0, 5}, at::kFloat)},    {"scalar", at::full({}, -2.5, at::kDouble)}};
}

// The message of the Error(kData) that reading `bytes` throws; "" when they are accepted.
std::string refusal(const std::string& bytes) {
  try {
    (void)parse_safetensors_header(bytes, "x.safetensors");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    return error.what();
  }
  return "";
}

TEST(Safetensors, WritesTheBytesOfTheReferenceImplementation) {
  const test::TempFolder folder;
  for (const char* name : {"models/tiny-bert/model.safetensors", "models/tiny-gpt2/model.safetensors"}) {
    const SafetensorsFile reference(test::test_data(name));
    NamedTensors tensors;
    for (const std::string& tensor : reference.names())
      tensors.emplace(tensors.begin(), tensor, reference.tensor(tensor));
    write_safetensors(folder.path() / "copy", tensors, reference.metadata());
    EXPECT_TRUE(read_file(folder.path() / "copy") == read_file(test::test_data(name))) << name;
  }
}

TEST(Safetensors, KeepsTypesShapesAndValues) {
  const test::TempFolder folder;
  write_safetensors(folder.path() / "x", small_tensors(), {{"format", "pt"}, {"note", "a \"quoted\" one"}});
  at::Tensor outlives;
  {
    const SafetensorsFile file(folder.path() / "x");
    EXPECT_EQ(file.names().size(), small_tensors().size());
    EXPECT_EQ(file.metadata().at("note"), "a \"quoted\" one");
    for (const auto& [name, expected] : small_tensors()) {
      ASSERT_TRUE(file.has(name)) << name;
      const at::Tensor tensor = file.tensor(name);
      EXPECT_EQ(tensor.scalar_type(), expected.scalar_type()) << name;
      EXPECT_TRUE(at::equal(tensor, expected)) << name;
    }
    EXPECT_THROW((void)file.tensor("c"), Error);
    outlives = file.tensor("b");
  }
  EXPECT_TRUE(at::equal(outlives, small_tensors()[0].second));
}

TEST(Safetensors, RefusesEveryTruncation) {
  const test::TempFolder folder;
  write_safetensors(folder.path() / "x", small_tensors(), {{"format", "pt"}});
  const std::string bytes = read_file(folder.path() / "x");
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const auto path = folder.write("cut", bytes.substr(0, length));
    try {
      const SafetensorsFile file(path);
      FAIL() << "accepted with " << length << " of " << bytes.size() << " bytes";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    }
  }
  EXPECT_NE(refusal(bytes + "x"), "");
}

TEST(Safetensors, SurvivesEveryChangedByte) {
  const test::TempFolder folder;
  write_safetensors(folder.path() / "x", small_tensors(), {{"format", "pt"}});
  const std::string bytes = read_file(folder.path() / "x");
  std::size_t refused = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (const int change : {0x01, 0x10, 0x80, 0xff}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ change);
      refused += refusal(changed).empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, bytes.size());  // changes of names and values go unnoticed, those of the structure do not
}

TEST(Safetensors, RefusesHeadersThatTheReferenceRefuses) {
  const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  EXPECT_EQ(refusal(with_header("{" + a + "}", 8)), "");
  EXPECT_NE(refusal(with_header("{" + a + "," + a + "}", 8)), "");  // twice
  EXPECT_NE(refusal(with_header("{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12)), "");
  EXPECT_NE(refusal(with_header("{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", 20)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0)),
            "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8)), "");
  EXPECT_NE(refusal(with_header(R"({"__metadata__":{"n":1}})", 0)), "");
  EXPECT_NE(refusal(with_header("[]", 0)), "");
  EXPECT_NE(refusal(with_header("{" + a, 8)), "");
  EXPECT_NE(refusal(with_header("{" + std::string(100000, '['), 8)), "");
  EXPECT_NE(refusal(std::string(8, '\xff') + "{}"), "");
}

TEST(Safetensors, ReadsTensorsThatAreNotAligned) {
  const test::TempFolder folder;
  std::string bytes = with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )", 0);
  const std::array<float, 2> values{1.5F, -3.0F};
  bytes.append(reinterpret_cast<const char*>(values.data()), 8);
  ASSERT_NE((bytes.size() - 8) % 4, 0U);
  const SafetensorsFile file(folder.write("odd", bytes));
  EXPECT_EQ(file.tensor("a").data_ptr<float>()[1], -3.0F);
}

TEST(Safetensors, RefusesToWriteANameTwice) {
  const test::TempFolder folder;
  const at::Tensor one = at::full({1}, 1.0, at::kFloat);
  EXPECT_THROW(write_safetensors(folder.path() / "x", {{"a", one}, {"a", one}}, {}), Error);
}

}  // namespace
}  // namespace dtrain
