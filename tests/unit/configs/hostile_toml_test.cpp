// Input made to break a parser: always an Error, never a crash, never a partly read configuration.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"
#include "configs/toml_reader.h"

namespace dtrain {
namespace {

using test::error_of;
using test::load;
using test::toml_with;
using testing::HasSubstr;

std::string repeated(const std::string& text, std::size_t count) {
  std::string out;
  out.reserve(text.size() * count);
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

TEST(HostileToml, DeepNesting) {
  for (const std::size_t depth : {9U, 100U, 300U, 100000U}) {
    EXPECT_NE(error_of(toml_with("seed = " + repeated("[", depth) + repeated("]", depth))), "") << depth;
    EXPECT_NE(error_of(toml_with("seed = " + repeated("{a = ", depth) + "1" + repeated("}", depth))), "") << depth;
    EXPECT_NE(error_of(toml_with("seed = " + repeated("[", depth))), "") << depth;
  }
}

TEST(HostileToml, DeepKeys) {
  const std::string key = repeated("a.", 400000) + "a";
  const std::vector<std::string> texts = {
      key + " = 1",
      "[" + key + "]",
      "[[" + key + "]]",
      "[training]\nseed = {" + key + " = 1}",
      "[training]\nx = [ \"\"\"y\"\"\"\"\", {" + key + " = 1}]",
      "[training]\nx = [ '''y'''', '', {" + key + " = 1}]",
      "[training]\nx = '#' # \"\n" + key + " = 1",
      repeated("\"a\" . ", 150000) + "a = 1",
      "[training]\nx = \"\\\"\"\n" + key + " = 1",
  };
  for (const std::string& text : texts)
    EXPECT_THAT(error_of(text), HasSubstr("a key of more than")) << text.substr(0, 60);
  EXPECT_THAT(error_of("\n  " + repeated("a.", 40) + "a = 1"), HasSubstr("run.toml:2:"));
  EXPECT_THAT(error_of(toml_with(""), {"training.lr_scheduler_kwargs={" + repeated("a.", 20000) + "a=1}"}),
              HasSubstr("not TOML"));
}

TEST(HostileToml, DotsInStringsAndCommentsAreNoKeys) {
  const std::string dots = repeated("../", 100) + "x." + repeated("y.", 100);
  EXPECT_EQ(load(toml_with("# " + dots + "\noutput_dir = \"" + dots + "\"")).config.training.output_dir, dots);
  EXPECT_EQ(load(toml_with("output_dir = '''" + dots + "'''")).config.training.output_dir, dots);
  const std::string quote = "a \\\" " + dots;
  EXPECT_EQ(load(toml_with("output_dir = \"" + quote + "\"")).config.training.output_dir, "a \" " + dots);
  EXPECT_EQ(load(toml_with(""), {"training.output_dir=" + dots}).config.training.output_dir, dots);
}

TEST(HostileToml, BytesThatAreNotText) {
  using std::string_literals::operator""s;
  for (const std::string& bytes :
       {"\0"s, "seed\0 = 1"s, "seed = 1\0"s, "output_dir = \"a\0b\""s, "output_dir = \"\xFF\""s,
        "output_dir = \"\xC0\xAF\""s, "output_dir = \"\xED\xA0\x80\""s, "\xFF\xFE"s, "# \xF4\x90\x80\x80"s,
        "output_dir = \"\x01\""s, "output_dir = \"\xE2\x82"s, "\x1B[2J"s, "output_dir = \"a\nb\""s, "\r\r"s}) {
    EXPECT_THAT(error_of(toml_with(bytes)), HasSubstr("run.toml:")) << testing::PrintToString(bytes);
  }
  EXPECT_EQ(error_of("\xEF\xBB\xBF" + toml_with("seed = 1\r\n")), "");  // a byte order mark and CRLF are fine
}

TEST(HostileToml, HeadersWithoutAName) {
  EXPECT_THAT(error_of("\n  [+a]"), HasSubstr("run.toml:2:3: not TOML: a section without a name"));
  for (int byte = 1; byte < 256; ++byte) {
    for (const char* before : {"[", "[[", "[ ", "[a.", "a = {", "a.", "a = [", "a = "}) {
      const std::string text = before + std::string(1, static_cast<char>(byte)) + "x";
      EXPECT_THAT(error_of(text), HasSubstr("run.toml:")) << testing::PrintToString(text);
    }
  }
  EXPECT_THAT(error_of("[mod\xC3\xA8le]"), HasSubstr("run.toml:1:"));
  EXPECT_THAT(error_of("[\xC3\xA9tude]"), HasSubstr("run.toml:1:1: not TOML"));
}

TEST(HostileToml, LettersOutsideOfAscii) {
  EXPECT_THAT(error_of(toml_with("\xC3\xA9 = 1")), HasSubstr("run.toml:7:1"));
  EXPECT_THAT(error_of(toml_with("seed = \xC3\xA9")), HasSubstr("run.toml:7:"));
  EXPECT_THAT(error_of(toml_with("seed = 1 \xC3\xA9")), HasSubstr("run.toml:7:"));
  EXPECT_EQ(load(toml_with("output_dir = \"\"\"\\\n  \xC3\xA9\"\"\"")).config.training.output_dir, "\xC3\xA9");
}

TEST(HostileToml, LargeFiles) {
  EXPECT_THAT(error_of(std::string(2U << 20U, '#')), HasSubstr("bytes are too many"));
  const std::size_t room = (1U << 20U) - 200;
  EXPECT_THAT(error_of(toml_with("output_dir = \"" + std::string(room, 'x'))), HasSubstr("run.toml:7:"));
  EXPECT_THAT(error_of(toml_with(std::string(room, 'k') + " = 1")), HasSubstr("unknown key"));
  EXPECT_THAT(error_of(toml_with("eval_strategy = \"" + std::string(room, 'x') + "\"")),
              HasSubstr("xxx... is not a known choice"))
      << "a long value is cut";
  EXPECT_NE(error_of(repeated("[a]\n", room / 4)), "");
  std::string tables;
  for (int i = 0; tables.size() < room; ++i) tables += "[s" + std::to_string(i) + "]\n";
  EXPECT_THAT(error_of(tables), HasSubstr("run.toml:1:2: s0: unknown section"));
  std::string keys;
  for (int i = 0; keys.size() < room; ++i) keys += "k" + std::to_string(i) + "=1\n";
  EXPECT_THAT(error_of(toml_with(keys)), HasSubstr("run.toml:7:1: training.k0: unknown key"));
}

TEST(HostileToml, NamesFromOutsideAreShownInOneLine) {
  EXPECT_THAT(error_of(toml_with("\"a\\nb\\u001B[2J\" = 1")), HasSubstr("training.\"a\\nb\\u001b[2J\": unknown key"));
  EXPECT_THAT(error_of("[\"\\n\"]"), HasSubstr("\"\\n\": unknown section"));
  EXPECT_THAT(error_of("\"\" = 1"), HasSubstr("\"\": stands outside"));
  EXPECT_THAT(error_of(toml_with("eval_strategy = \"\\u001B[2J\\n\"")),
              HasSubstr("\"\\u001B[2J\\n\" is not a known choice"));
}

TEST(HostileToml, EveryPrefixAndEveryChangedByteOfAFileIsReadOrRefused) {
  const std::string toml =
      "[metrics]\ncompute = [\"accuracy\"]\n" +
      toml_with("seed = 7\nlr_scheduler_kwargs = { a = 1.5, b = 'x' } # c\noutput_dir = \"\"\"r\"\"\"\n");
  int read = 0;
  int refused = 0;
  const auto attempt = [&](const std::string& text) { error_of(text).empty() ? ++read : ++refused; };
  for (std::size_t length = 0; length < toml.size(); ++length) attempt(toml.substr(0, length));
  for (std::size_t i = 0; i < toml.size(); ++i) {
    for (const char byte : {'\0', '"', '[', ']', '=', '.', '\n', '{', '\\', '#', '9', '\x80'}) {
      std::string changed = toml;
      changed[i] = byte;
      attempt(changed);
    }
  }
  EXPECT_GT(read, 50);
  EXPECT_GT(refused, 1000);
}

TEST(TomlValue, IsExactlyOneValue) {
  EXPECT_EQ(parse_toml_value("1"), Json(1));
  EXPECT_EQ(parse_toml_value(" 1e-4 "), Json(1e-4));
  EXPECT_EQ(parse_toml_value("[1, 'a # b']"), Json({1, "a # b"}));
  for (const char* text : {"", "1 2", "1\nb = 2", "1 # x", "a", "=", "1\n[t]", "2024-01-01", "1\n[value]"}) {
    EXPECT_EQ(parse_toml_value(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace dtrain
