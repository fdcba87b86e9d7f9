// Columns of a table for the terminal: cells are padded to the widest of their column.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace dtrain {

// Of rows that all have as many cells as the first; there is at least one.
[[nodiscard]] std::vector<std::size_t> column_widths(const std::vector<std::vector<std::string>>& rows);
// One row, each cell to the right and after two spaces.
[[nodiscard]] std::string right_aligned(const std::vector<std::string>& cells, const std::vector<std::size_t>& widths);

}  // namespace dtrain
