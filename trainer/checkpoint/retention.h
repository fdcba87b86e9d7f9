// RetentionPolicy: which checkpoints to delete, as the Trainer does (save_total_limit). A pure function.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace dtrain {

// Steps to delete, oldest first, so that at most `limit` of `published` (any order) remain; never the newest and never
// `best`. With limit 1 and a best one that is not the newest, two remain. limit <= 0: nothing is deleted.
[[nodiscard]] std::vector<std::int64_t> steps_to_delete(std::vector<std::int64_t> published,
                                                        std::optional<std::int64_t> best, std::int64_t limit);

}  // namespace dtrain
