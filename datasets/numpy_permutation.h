// numpy.random.default_rng(seed).permutation(size), number for number, so that the first n examples of a shuffled data
// set are those of `dataset.shuffle(seed=...).select(range(n))` in the Hugging Face datasets library, which permutes
// with it.
#pragma once

#include <cstdint>
#include <vector>

namespace dtrain {

[[nodiscard]] std::vector<std::int64_t> numpy_permutation(std::int64_t size, std::uint64_t seed);

}  // namespace dtrain
