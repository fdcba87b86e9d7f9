#include "launcher/config_file.h"

#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "trainer/first_rank.h"

namespace dtrain {

std::string read_config_file(const std::string& path) {
  try {
    return read_file(expand_home(path));
  } catch (const Error& error) {
    throw usage_error(error.what(), error.hint());
  }
}

std::string share_config_file(const Arguments& arguments, HostComm& host) {
  const std::string bytes = on_first_rank(host, "configuration file", [&] { return read_config_file(arguments.file); });
  std::error_code ignored;
  if (host.rank() == 0 || !std::filesystem::is_regular_file(expand_home(arguments.file), ignored)) return bytes;
  return read_config_file(arguments.file);
}

}  // namespace dtrain
