#include "launcher/config_file.h"

#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/digest.h"
#include "core/error.h"
#include "core/file.h"
#include "dist/agreement.h"
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
  if (host.size() == 1) return bytes;
  std::string digest = digest_of(bytes);
  std::error_code ignored;
  if (host.rank() != 0 && std::filesystem::is_regular_file(expand_home(arguments.file), ignored)) {
    digest = digest_of(read_config_file(arguments.file));
  }
  agree(host, "command line",
        {{"configuration file", arguments.file},
         {"its content", digest},
         {"--set", fmt::format("{}", fmt::join(arguments.overrides, " "))}});
  return bytes;
}

}  // namespace dtrain
