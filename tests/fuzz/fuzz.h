// What the fuzz targets share. A target is one function LLVMFuzzerTestOneInput that reads its input with a public
// function of dtrain and asserts what must hold of whatever is accepted. libFuzzer drives it (`./dev fuzz`), and
// replay.cpp as an ordinary test.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace dtrain::fuzz {

// Ends the process, as a crash does, when `holds` is false.
void require(bool holds, std::string_view what, std::string_view detail = {});

// An Error as input from outside may cause it: one short line, and not the code of a defect.
void require_fair(const Error& error);

// Whether `read` accepts the input. All it may do otherwise is to throw a fair Error.
template <std::invocable Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    require_fair(error);
  } catch (const std::exception& error) {
    require(false, "an exception that is no Error", error.what());
  }
  return false;
}

// The bytes of an input, taken off from the front.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  std::uint8_t byte();  // 0 at the end
  // The text up to the next `end`, which is dropped, or all that is left.
  std::string_view until(std::string_view end);
  [[nodiscard]] bool empty() const { return rest_.empty(); }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// A folder in memory, where there is one, that goes with the process. The files of the last input are removed first.
const std::filesystem::path& fresh_folder();

}  // namespace dtrain::fuzz
