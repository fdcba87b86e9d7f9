#include "launcher/config_command.h"

#include <cstdio>

#include "configs/config_text.h"
#include "configs/load_config.h"
#include "core/log.h"
#include "launcher/config_file.h"

namespace dtrain {

ExitCode run_config(const Arguments& arguments) {
  std::string text;
  if (arguments.markdown) {
    text = settings_markdown();
  } else if (arguments.arguments_page) {
    text = arguments_markdown();
  } else {
    const LoadedConfig loaded = load_config(read_config_file(arguments.file), arguments.file, arguments.overrides);
    for (const std::string& warning : loaded.warnings) log::warning("{}", warning);
    text = print_config(loaded);
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
