#include "trainer/first_rank.h"

#include "core/error.h"
#include "core/json.h"

namespace dtrain {

std::string on_first_rank(HostComm& host, std::string_view name, const std::function<std::string()>& work) {
  std::string message;
  if (host.rank() == 0) {
    // First byte: '+' followed by the result, '-' followed by [code, message, hint].
    try {
      message = "+" + work();
    } catch (const PeerFailed&) {
      throw;
    } catch (const Error& error) {
      const Json failure = {static_cast<int>(error.code()), error.what(), error.hint()};
      message = "-" + failure.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
  }
  host.broadcast(name, message, 0);
  if (message.at(0) == '+') return message.substr(1);
  const Json failure = parse_json(message.substr(1), std::string(name));
  throw Error(static_cast<ExitCode>(failure.at(0).get<int>()), failure.at(1).get<std::string>(),
              failure.at(2).get<std::string>());
}

}  // namespace dtrain
