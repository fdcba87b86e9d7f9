#include "trainer/first_rank.h"

#include <filesystem>

#include "core/error.h"
#include "core/json.h"

namespace dtrain {
namespace {

// First byte: '+' followed by the result, '-' followed by [code, message, hint].
std::string failure_message(const Error& error) {
  const Json failure = {static_cast<int>(error.code()), error.what(), error.hint()};
  return "-" + failure.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string on_first_rank(HostComm& host, std::string_view name, const std::function<std::string()>& work) {
  std::string message;
  if (host.rank() == 0) {
    try {
      message = "+" + work();
    } catch (const PeerFailed&) {
      throw;
    } catch (const Error& error) {
      message = failure_message(error);
    } catch (const std::filesystem::filesystem_error& error) {
      message = failure_message(system_error(error.what(), error.code().value()));
    }
  }
  host.broadcast(name, message, 0);
  if (message.at(0) == '+') return message.substr(1);
  const Json failure = parse_json(message.substr(1), std::string(name));
  // Whichever rank reports it: this is where it happened. What the command line is wrong about is not rank 0's.
  const auto code = static_cast<ExitCode>(failure.at(0).get<int>());
  const bool says_where = host.rank() != 0 && code != ExitCode::kUsage && code != ExitCode::kDisagree;
  throw Error(code, (says_where ? "rank 0: " : "") + failure.at(1).get<std::string>(),
              failure.at(2).get<std::string>());
}

}  // namespace dtrain
