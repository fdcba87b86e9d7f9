// Text for a cell of a Markdown table.
#pragma once

#include <string>

namespace dtrain {

[[nodiscard]] std::string markdown_cell(const std::string& text);

}  // namespace dtrain
