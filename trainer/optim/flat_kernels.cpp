// Compiled for vector units and without math errno; see trainer/CMakeLists.txt for the options.
#include "trainer/optim/flat_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "trainer/kernels/cpu/parallel.h"

namespace dtrain {
namespace {

constexpr std::int64_t kPieceElements =
    32768;  // 128 KiB of each array: large enough for a thread, small enough to share out

struct Piece {
  std::size_t task = 0;
  std::int64_t offset = 0;
  std::int64_t count = 0;
};

template <class Tasks>
std::vector<Piece> cut_into_pieces(const Tasks& tasks) {
  std::vector<Piece> pieces;
  for (std::size_t task = 0; task < tasks.size(); ++task) {
    for (std::int64_t offset = 0; offset < tasks[task].count; offset += kPieceElements) {
      pieces.push_back({task, offset, std::min(kPieceElements, tasks[task].count - offset)});
    }
  }
  return pieces;
}

template <class Function>
void for_each_piece(const std::vector<Piece>& pieces, const Function& function) {
  cpu::parallel_for(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) function(static_cast<std::size_t>(i));
  });
}

// The loader picks the widest version the machine has. All round alike: no fused multiply-add (-ffp-contract=off).
// Sanitizers cannot be loaded yet when it picks.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define DTRAIN_VECTOR_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define DTRAIN_VECTOR_CLONES
#endif

DTRAIN_VECTOR_CLONES void update_piece(const AdamWTask& task, const Piece& piece, const AdamWFactors& factors) {
  float* __restrict value = task.value + piece.offset;
  const float* __restrict gradient = task.gradient + piece.offset;
  float* __restrict exp_avg = task.exp_avg + piece.offset;
  float* __restrict exp_avg_sq = task.exp_avg_sq + piece.offset;
  const auto scale = static_cast<float>(factors.gradient_scale);
  const auto one_minus_beta1 = static_cast<float>(1 - factors.beta1);
  const auto beta2 = static_cast<float>(factors.beta2);
  const auto one_minus_beta2 = static_cast<float>(1 - factors.beta2);
  const auto epsilon = static_cast<float>(factors.epsilon);
  const auto decay = static_cast<float>(task.decay_factor);
  const auto step_size = static_cast<float>(task.step_size);
  const auto correction2_sqrt = static_cast<float>(task.correction2_sqrt);
#pragma omp simd
  for (std::int64_t i = 0; i < piece.count; ++i) {
    const float g = gradient[i] * scale;
    const float m = exp_avg[i] + (g - exp_avg[i]) * one_minus_beta1;
    const float v = exp_avg_sq[i] * beta2 + g * g * one_minus_beta2;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    value[i] = value[i] * decay - step_size * m / (std::sqrt(v) / correction2_sqrt + epsilon);
  }
}

// Lanes of a fixed number, so that the order of the additions does not depend on the instruction set.
DTRAIN_VECTOR_CLONES double sum_of_squares(const float* data, std::int64_t count) {
  constexpr std::int64_t kLanes = 32;
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const auto x = static_cast<double>(data[i + lane]);
      lanes[lane] += x * x;
    }
  }
  double sum = 0;
  for (; i < count; ++i) sum += static_cast<double>(data[i]) * static_cast<double>(data[i]);
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void adamw_update(const std::vector<AdamWTask>& tasks, const AdamWFactors& factors) {
  const std::vector<Piece> pieces = cut_into_pieces(tasks);
  for_each_piece(pieces, [&](std::size_t i) { update_piece(tasks[pieces[i].task], pieces[i], factors); });
}

std::vector<double> sums_of_squares(const std::vector<FloatSpan>& spans) {
  const std::vector<Piece> pieces = cut_into_pieces(spans);
  std::vector<double> partial(pieces.size());
  for_each_piece(pieces, [&](std::size_t i) {
    partial[i] = sum_of_squares(spans[pieces[i].task].data + pieces[i].offset, pieces[i].count);
  });
  std::vector<double> sums(spans.size(), 0.0);
  for (std::size_t i = 0; i < pieces.size(); ++i) sums[pieces[i].task] += partial[i];
  return sums;
}

}  // namespace dtrain
