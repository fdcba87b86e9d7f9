// ExactSum: a sum that does not depend on the order or on how the terms are split over ranks.
//
// Terms are rounded once to a multiple of 2^-60 (exact for every float32 of magnitude 2^-36 and above) and added as
// 128-bit integers. Terms beyond 2^58, infinities and NaN make the sum NaN. Up to 2^9 such extreme terms, or 2^27 of
// the size of a usual loss times 2^32, fit; the words travel between ranks as ordinary int64 counts that add up.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

namespace dtrain {

class ExactSum {
 public:
  static constexpr int kWords = 4;
  using Words = std::array<std::int64_t, kWords>;

  void add(double term) {
    if (!(std::abs(term) < 0x1p58)) {  // also true for NaN
      ++unrepresentable_;
      return;
    }
    total_ += static_cast<Integer>(std::nearbyint(std::ldexp(term, kFractionBits)));
  }

  // The state as integers whose sums over ranks are the state of the whole: 32-bit limbs, so that 2^31 ranks cannot
  // overflow.
  [[nodiscard]] Words words() const {
    const auto bits = static_cast<UnsignedInteger>(total_);
    const auto limb = [&](int index) {
      return static_cast<std::int64_t>(static_cast<std::uint32_t>(bits >> (32 * index)));
    };
    return {limb(0), limb(1), static_cast<std::int64_t>(total_ >> 64), unrepresentable_};
  }

  static ExactSum from_words(const Words& words) {
    ExactSum sum;
    sum.total_ = (static_cast<Integer>(words[2]) << 64) + (static_cast<Integer>(words[1]) << 32) + words[0];
    sum.unrepresentable_ = words[3];
    return sum;
  }

  [[nodiscard]] double value() const {
    if (unrepresentable_ > 0) return std::numeric_limits<double>::quiet_NaN();
    return std::ldexp(static_cast<double>(total_), -kFractionBits);
  }

 private:
  __extension__ using Integer = __int128;
  __extension__ using UnsignedInteger = unsigned __int128;
  static constexpr int kFractionBits = 60;

  Integer total_ = 0;
  std::int64_t unrepresentable_ = 0;
};

}  // namespace dtrain
