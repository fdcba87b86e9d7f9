// safetensors: what is written reads back, and what is damaged is refused with path, tensor and reason.
#include "trainer/models/safetensors.h"

#include <cstring>
#include <functional>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string with_header(const std::string& header, const std::string& data = {}) {
  const std::uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes) {
    const auto path = folder_.path() / "x.safetensors";
    test::write_file(path, bytes);
    return path;
  }

  // The message with which reading `bytes` fails, or "" when it does not.
  std::string failure(const std::string& bytes) {
    const auto path = write(bytes);
    try {
      const SafetensorsFile file(path);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_THAT(error.what(), HasSubstr(path.string()));
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
  }

  test::TempFolder folder_;
};

TEST_F(SafetensorsTest, AllTypesReadBackAsWritten) {
  NamedTensors tensors;
  for (const auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kChar,
                          at::kByte, at::kBool}) {
    tensors.emplace_back(std::string("t.") + c10::toString(type), at::arange(6).view({2, 3}).to(type));
  }
  tensors.emplace_back("scalar", at::full({}, 2.5, at::kFloat));
  tensors.emplace_back("empty", at::empty({0, 3}, at::kFloat));
  tensors.emplace_back("transposed", at::arange(6).view({2, 3}).t());
  const auto path = folder_.path() / "all.safetensors";
  write_safetensors(path, tensors, {{"format", "pt"}});

  at::Tensor kept;
  {
    const SafetensorsFile file(path);
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ(file.names().size(), tensors.size());
    EXPECT_FALSE(file.has("other"));
    for (const auto& [name, value] : tensors) {
      ASSERT_TRUE(file.has(name));
      EXPECT_EQ(file.tensor(name).scalar_type(), value.scalar_type());
      EXPECT_TRUE(at::equal(file.tensor(name), value)) << name;
    }
    kept = file.tensor("transposed");
    EXPECT_THROW((void)file.tensor("other"), Error);
  }
  EXPECT_TRUE(at::equal(kept, tensors.back().second)) << "a tensor must outlive its file";
}

// The bytes that the safetensors library (Python, save_file) writes for {"b": float32 [1, 2], "a": float32 [3], "n":
// int64 [7]}, metadata format = pt.
TEST_F(SafetensorsTest, WritesTheBytesOfTheReference) {
  const auto path = folder_.path() / "r.safetensors";
  at::Tensor b = at::empty({2}, at::kFloat);
  b.select(0, 0).fill_(1);
  b.select(0, 1).fill_(2);
  write_safetensors(path, {{"b", b}, {"a", at::full({1}, 3, at::kFloat)}, {"n", at::full({1}, 7, at::kLong)}},
                    {{"format", "pt"}});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string data(20, '\0');
  const std::int64_t seven = 7;
  const float floats[3] = {3, 1, 2};
  std::memcpy(data.data(), &seven, 8);
  std::memcpy(data.data() + 8, floats, 12);
  EXPECT_EQ(read_file(path), with_header(header, data));
}

TEST_F(SafetensorsTest, RefusesToWriteWhatTheFormatCannotHold) {
  const auto path = folder_.path() / "w.safetensors";
  const at::Tensor one = at::zeros({1}, at::kFloat);
  EXPECT_THROW(write_safetensors(path, {{"a", one}, {"a", one}}, {}), Error);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", one}}, {}), Error);
  EXPECT_THROW(write_safetensors(path, {{"c", one.to(at::kComplexFloat)}}, {}), Error);
}

TEST_F(SafetensorsTest, MisalignedDataIsReadable) {
  const std::string header = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const float values[2] = {1.5F, -2};
  for (std::size_t spaces = 0; spaces < 8; ++spaces) {
    const SafetensorsFile file(
        write(with_header(header + std::string(spaces, ' '), std::string(reinterpret_cast<const char*>(values), 8))));
    const at::Tensor x = file.tensor("x");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 4, 0U);
    EXPECT_EQ(x.sum().item<float>(), -0.5F);
  }
}

TEST_F(SafetensorsTest, TensorsAreInOrderOfOffset) {
  const SafetensorsFile file(write(with_header(
      R"({"late":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"early":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      "ab")));
  EXPECT_THAT(file.names(), ElementsAre("early", "late"));
  EXPECT_EQ(file.tensor("late").item<int>(), 'b');
}

struct Damage {
  std::string name;
  std::string bytes;
  std::string reason;  // part of the message
};

std::vector<Damage> damages() {
  const auto one = [](const std::string& entry, const std::string& data = "abcd") {
    return with_header(R"({"x":)" + entry + "}", data);
  };
  std::string huge(8, '\xFF');
  std::string deep = "{\"x\":";
  for (int i = 0; i < 200000; ++i) deep += "[";
  return {
      {"Empty", "", "0 bytes"},
      {"Short", "1234567", "7 bytes"},
      {"HugeHeader", huge + "{}", "100 MB"},
      {"HeaderBeyondFile", std::string("\x10\0\0\0\0\0\0\0{}", 10), "only 2 follow"},
      {"NoHeader", with_header(""), "does not start"},
      {"NotAnObject", with_header("[]"), "does not start"},
      {"SpaceFirst", with_header(" {}"), "does not start"},
      {"NotJson", with_header("{\"x\""), "not valid JSON"},
      {"NotUtf8", with_header("{\"\xFF\":1}"), "not valid JSON"},
      {"Trailing", with_header("{}x"), "not valid JSON"},
      {"Deep", with_header(deep), "an array"},
      {"EntryIsNumber", with_header(R"({"x":1})"), "the number 1"},
      {"EntryIsNull", with_header(R"({"x":null})"), "null"},
      {"NoDtype", one(R"({"shape":[4],"data_offsets":[0,4]})"), "lacks \"dtype\""},
      {"NoShape", one(R"({"dtype":"U8","data_offsets":[0,4]})"), "lacks \"shape\""},
      {"NoOffsets", one(R"({"dtype":"U8","shape":[4]})"), "lacks \"data_offsets\""},
      {"UnknownDtype", one(R"({"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]})"), "F8_E4M3"},
      {"DtypeIsNumber", one(R"({"dtype":4,"shape":[4],"data_offsets":[0,4]})"), "the number 4"},
      {"NegativeExtent", one(R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})"), "-4"},
      {"FractionalExtent", one(R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})"), "4.0"},
      {"ExtentTooLarge", one(R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4]})"), "too large"},
      {"Overflow", one(R"({"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]})"), "does not fill"},
      {"OverflowBehindAZero",
       with_header(R"({"x":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})"), "does not fill"},
      {"ZeroByte", with_header(std::string("{}\0{", 4)), "a zero byte"},
      {"OneOffset", one(R"({"dtype":"U8","shape":[4],"data_offsets":[0]})"), "two data_offsets"},
      {"ThreeOffsets", one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4,4]})"), "the number 4"},
      {"Backwards", one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551612]})"), "too large"},
      {"EndBeforeBegin",
       with_header(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                   R"("y":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}})",
                   "a"),
       "\"y\""},
      {"WrongSize", one(R"({"dtype":"U8","shape":[3],"data_offsets":[0,4]})"), "does not fill"},
      {"Hole", one(R"({"dtype":"U8","shape":[3],"data_offsets":[1,4]})"), "should start at 0"},
      {"Overlap",
       with_header(R"({"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                   R"("y":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                   "abcd"),
       "should start at 3"},
      {"BeyondFile", one(R"({"dtype":"U8","shape":[5],"data_offsets":[0,5]})"), "the file has 4"},
      {"UnusedTail", one(R"({"dtype":"U8","shape":[3],"data_offsets":[0,3]})"), "the file has 4"},
      {"DuplicateTensor",
       with_header(R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                   R"("x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
       "twice"},
      {"DuplicateField", one(R"({"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]})"), "twice"},
      {"DuplicateMetadata", with_header(R"({"__metadata__":{"a":"1","a":"2"}})"), "twice"},
      {"MetadataIsNumber", with_header(R"({"__metadata__":{"a":1}})"), "the number 1"},
      {"MetadataIsNested", with_header(R"({"__metadata__":{"a":{}}})"), "an object"},
      {"NewlineInName", with_header("{\"a\\nb\":1}"), "a\\nb"},
  };
}

class DamagedSafetensors : public SafetensorsTest, public ::testing::WithParamInterface<Damage> {};

TEST_P(DamagedSafetensors, IsRefused) { EXPECT_THAT(failure(GetParam().bytes), HasSubstr(GetParam().reason)); }

INSTANTIATE_TEST_SUITE_P(All, DamagedSafetensors, ::testing::ValuesIn(damages()),
                         [](const auto& each) { return each.param.name; });

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  const auto path = folder_.path() / "t.safetensors";
  write_safetensors(path, {{"a", at::arange(5).to(at::kFloat)}, {"b", at::arange(3)}}, {{"format", "pt"}});
  const std::string whole = read_file(path);
  EXPECT_EQ(failure(whole), "");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_NE(failure(whole.substr(0, length)), "") << length;
  }
}

// Whatever the bytes are, reading ends with tensors inside the file or with an Error.
TEST_F(SafetensorsTest, MutationsNeverEscape) {
  const auto path = folder_.path() / "m.safetensors";
  write_safetensors(path, {{"a", at::arange(5).to(at::kFloat)}, {"b", at::arange(3)}}, {{"format", "pt"}});
  const std::string whole = read_file(path);
  std::mt19937 random(5);
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = whole;
    for (int i = 0; i < 1 + round % 3; ++i) bytes[random() % (whole.size() - 44)] = static_cast<char>(random());
    if (!failure(bytes).empty()) continue;
    ++accepted;
    const SafetensorsFile file(folder_.path() / "x.safetensors");
    std::size_t total = 0;
    for (const std::string& name : file.names()) total += file.tensor(name).clone().nbytes();
    EXPECT_EQ(total, 44U);
  }
  EXPECT_GT(accepted, 0);  // changed letters of names are no damage
}

}  // namespace
}  // namespace dtrain
