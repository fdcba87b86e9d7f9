#include "datasets/numpy_permutation.h"

#include <array>
#include <numeric>
#include <utility>

namespace dtrain {
namespace {

__extension__ using Uint128 = unsigned __int128;

// numpy.random.SeedSequence: the entropy pool of four words and its output function (M. E. O'Neill's seed_seq_fe).
class SeedSequence {
 public:
  explicit SeedSequence(std::uint64_t seed) {
    // The seed as little-endian 32-bit words, without leading zero words; a seed of 0 is one word.
    const std::array<std::uint32_t, 2> entropy = {static_cast<std::uint32_t>(seed),
                                                  static_cast<std::uint32_t>(seed >> 32)};
    const std::size_t words = entropy[1] == 0 ? 1 : 2;
    std::uint32_t hash_constant = 0x43b0d7e5;
    const auto hash = [&hash_constant](std::uint32_t value) {
      value ^= hash_constant;
      hash_constant *= 0x931e8875;
      value *= hash_constant;
      return value ^ (value >> 16);
    };
    for (std::size_t i = 0; i < pool_.size(); ++i) pool_[i] = hash(i < words ? entropy[i] : 0);
    for (std::size_t source = 0; source < pool_.size(); ++source) {
      for (std::size_t target = 0; target < pool_.size(); ++target) {
        if (source == target) continue;
        const std::uint32_t mixed = 0xca01f9dd * pool_[target] - 0x4973f715 * hash(pool_[source]);
        pool_[target] = mixed ^ (mixed >> 16);
      }
    }
  }

  // generate_state(4, uint64)
  [[nodiscard]] std::array<std::uint64_t, 4> state() const {
    std::array<std::uint32_t, 8> words{};
    std::uint32_t hash_constant = 0x8b51f9dd;
    for (std::size_t i = 0; i < words.size(); ++i) {
      std::uint32_t value = pool_[i % pool_.size()] ^ hash_constant;
      hash_constant *= 0x58f38ded;
      value *= hash_constant;
      words[i] = value ^ (value >> 16);
    }
    std::array<std::uint64_t, 4> result{};
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = words[2 * i] | (std::uint64_t{words[2 * i + 1]} << 32);
    return result;
  }

 private:
  std::array<std::uint32_t, 4> pool_{};
};

// PCG64 (XSL-RR 128/64, O'Neill 2014), with numpy's half-word buffer for 32-bit draws.
class Pcg64 {
 public:
  explicit Pcg64(std::uint64_t seed) {
    const auto words = SeedSequence(seed).state();
    const Uint128 initial = (Uint128{words[0]} << 64) | words[1];
    increment_ = (((Uint128{words[2]} << 64) | words[3]) << 1) | 1;
    state_ = 0;
    step();
    state_ += initial;
    step();
  }

  std::uint64_t next64() {
    step();
    const auto folded = static_cast<std::uint64_t>(state_ >> 64) ^ static_cast<std::uint64_t>(state_);
    const auto rotation = static_cast<unsigned>(state_ >> 122);
    return (folded >> rotation) | (folded << ((64 - rotation) & 63));
  }

  std::uint32_t next32() {
    if (has_half_) {
      has_half_ = false;
      return half_;
    }
    const std::uint64_t word = next64();
    half_ = static_cast<std::uint32_t>(word >> 32);
    has_half_ = true;
    return static_cast<std::uint32_t>(word);
  }

  // numpy's random_interval: uniform in [0, maximum] by masking and rejection.
  std::uint64_t interval(std::uint64_t maximum) {
    if (maximum == 0) return 0;
    std::uint64_t mask = maximum;
    for (unsigned shift = 1; shift <= 32; shift *= 2) mask |= mask >> shift;
    std::uint64_t value = 0;
    do {
      value = (maximum <= 0xFFFFFFFFULL ? next32() : next64()) & mask;
    } while (value > maximum);
    return value;
  }

 private:
  void step() {
    constexpr Uint128 kMultiplier = (Uint128{2549297995355413924ULL} << 64) | 4865540595714422341ULL;
    state_ = state_ * kMultiplier + increment_;
  }

  Uint128 state_ = 0;
  Uint128 increment_ = 0;
  std::uint32_t half_ = 0;
  bool has_half_ = false;
};

}  // namespace

std::vector<std::int64_t> numpy_permutation(std::int64_t size, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  Pcg64 generator(seed);
  // Fisher and Yates from the end, as Generator.shuffle does.
  for (std::size_t i = order.size(); i-- > 1;) {
    const auto j = static_cast<std::size_t>(generator.interval(i));
    std::swap(order[i], order[j]);
  }
  return order;
}

}  // namespace dtrain
