#include "trainer/callbacks/tensorboard_events.h"

#include <array>
#include <bit>

namespace dtrain {
namespace {

constexpr std::uint32_t kReflectedPolynomial = 0x82F63B78;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? kReflectedPolynomial : 0);
    table[byte] = value;
  }
  return table;
}

constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

template <class Integer>
std::string little_endian(Integer value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xFF);
  return bytes;
}

// A CRC of data that holds CRCs would be weak: TFRecord rotates it and adds a constant.
std::string masked_crc(std::string_view bytes) {
  constexpr std::uint32_t kMaskDelta = 0xA282EAD8;
  const std::uint32_t crc = crc32c(bytes);
  return little_endian(static_cast<std::uint32_t>(std::rotr(crc, 15) + kMaskDelta));
}

// The wire format of protocol buffers: each field is its number and kind, then its value. Fields are written in
// ascending order, as Google's own encoder does.
class Message {
 public:
  Message& integer(std::uint32_t field, std::uint64_t value) {
    key(field, 0);
    varint(value);
    return *this;
  }
  Message& number(std::uint32_t field, double value) {
    key(field, 1);
    bytes_ += little_endian(std::bit_cast<std::uint64_t>(value));
    return *this;
  }
  Message& number(std::uint32_t field, float value) {
    key(field, 5);
    bytes_ += little_endian(std::bit_cast<std::uint32_t>(value));
    return *this;
  }
  // A string, bytes, or a message within this one.
  Message& text(std::uint32_t field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(std::uint32_t field, const Message& value) { return text(field, value.bytes_); }

  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  void key(std::uint32_t field, std::uint32_t kind) { varint(field << 3 | kind); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

// Field numbers of Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7.
Message event(double wall_time, std::int64_t step) {
  Message event;
  event.number(1, wall_time);
  if (step != 0) event.integer(2, static_cast<std::uint64_t>(step));
  return event;
}

// Summary: value 1.
std::string summary_event(double wall_time, std::int64_t step, const Message& value) {
  return event(wall_time, step).message(5, Message().message(1, value)).bytes();
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) crc = kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

std::string tf_record(std::string_view data) {
  const std::string length = little_endian(static_cast<std::uint64_t>(data.size()));
  return length + masked_crc(length) + std::string(data) + masked_crc(data);
}

std::string version_event(double wall_time) { return event(wall_time, 0).text(3, "brain.Event:2").bytes(); }

std::string restart_event(double wall_time, std::int64_t step) {
  constexpr std::uint64_t kStart = 1;  // SessionLog.SessionStatus.START
  return event(wall_time, step).message(7, Message().integer(1, kStart)).bytes();
}

// Summary.Value: tag 1, simple_value 2, tensor 8, metadata 9.
std::string scalar_event(double wall_time, std::int64_t step, std::string_view tag, double value) {
  return summary_event(wall_time, step, Message().text(1, tag).number(2, static_cast<float>(value)));
}

std::string text_event(double wall_time, std::int64_t step, std::string_view tag, std::string_view text) {
  constexpr std::uint64_t kString = 7;                                     // DataType.DT_STRING
  const Message shape = Message().message(2, Message().integer(1, 1));     // TensorShapeProto: dim 2, its size 1
  const Message plugin = Message().message(1, Message().text(1, "text"));  // SummaryMetadata: plugin_data 1, its name 1
  const Message tensor = Message().integer(1, kString).message(2, shape).text(8, text);  // dtype, shape, string_val
  return summary_event(wall_time, step,
                       Message().text(1, std::string(tag) + "/text_summary").message(8, tensor).message(9, plugin));
}

}  // namespace dtrain
