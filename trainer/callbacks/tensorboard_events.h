// The event files of TensorBoard as bytes: protocol buffer messages (tensorflow/core/util/event.proto and
// framework/summary.proto), each framed as a TFRecord. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dtrain {

// CRC-32C (Castagnoli): polynomial 0x1EDC6F41, reflected 0x82F63B78, as in RFC 3720, section 12.1 and appendix B.4.
[[nodiscard]] std::uint32_t crc32c(std::string_view bytes);

// Length (uint64), its masked CRC, `data`, its masked CRC; all little-endian (tensorflow/core/lib/io/record_writer.h).
[[nodiscard]] std::string tf_record(std::string_view data);

// The Event messages that dtrain writes, unframed. `wall_time`: seconds since 1970.

// The first one of each file.
[[nodiscard]] std::string version_event(double wall_time);
// Readers forget what earlier files of the folder say about `step` and the steps after it.
[[nodiscard]] std::string restart_event(double wall_time, std::int64_t step);
// As SummaryWriter.add_scalar writes it: single precision; NaN and infinities as they are.
[[nodiscard]] std::string scalar_event(double wall_time, std::int64_t step, std::string_view tag, double value);
// As SummaryWriter.add_text: a tensor of one string for the plugin "text", under "<tag>/text_summary". Markdown.
[[nodiscard]] std::string text_event(double wall_time, std::int64_t step, std::string_view tag, std::string_view text);

}  // namespace dtrain
