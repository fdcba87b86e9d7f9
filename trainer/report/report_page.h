// The report of a run: one HTML page that needs nothing else, no network and no script (a script only makes the charts
// answer to the pointer). Its content security policy forbids everything but its own style and that script, so that no
// name from a log can do anything, even if it were not escaped.
#pragma once

#include <string>
#include <string_view>

#include "trainer/report/run_files.h"

namespace dtrain {

// Pure: the same files give the same page.
[[nodiscard]] std::string report_html(const RunFiles& run);

// The script of the page, and its digest for the policy: "sha256-<base64>".
extern const std::string_view kReportScript;
extern const std::string_view kReportScriptDigest;
extern const std::string_view kReportStyle;

}  // namespace dtrain
