#include "trainer/kernels/attention.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/cpu/rows.h"

namespace dtrain {
namespace {

// The tokens of one example that take part: positions [first, first + count), and an additive mask when some are not
// real.
struct Span {
  std::int64_t first = 0;
  std::int64_t count = 0;
  at::Tensor holes;  // [count] float32, 0 or -infinity; undefined when all positions are real
};

// Without causality the first position takes part even when it is padding: BERT pools it, and transformers lets it
// look.
std::vector<Span> find_spans(const at::Tensor& mask, std::int64_t batch, std::int64_t length, bool causal) {
  std::vector<Span> spans(static_cast<std::size_t>(batch), Span{0, length, {}});
  if (!mask.defined()) return spans;
  const at::Tensor flags = mask.to(at::kBool).contiguous();
  const bool* flag = flags.const_data_ptr<bool>();
  for (std::int64_t b = 0; b < batch; ++b, flag += length) {
    std::int64_t first = 0;
    std::int64_t last = length;
    while (causal && first < length && !flag[first]) ++first;
    while (last > first && !flag[last - 1]) --last;
    Span& span = spans[static_cast<std::size_t>(b)];
    span = {first, last - first, {}};
    const std::int64_t real = std::count(flag + first, flag + last, true);
    if (real == span.count) continue;
    span.holes = at::zeros({span.count}, at::kFloat);
    for (std::int64_t i = 0; i < span.count; ++i) {
      if (!flag[first + i]) span.holes.mutable_data_ptr<float>()[i] = -std::numeric_limits<float>::infinity();
    }
  }
  return spans;
}

// [length, length] float32: 0 on and below the diagonal, -infinity above.
at::Tensor causal_mask(std::int64_t length) {
  return at::full({length, length}, -std::numeric_limits<float>::infinity(), at::kFloat).triu_(1);
}

// What forward and backward share: the inputs of one call and the computation of the probabilities of one head.
class HeadLoop : public torch::CustomClassHolder {
 public:
  HeadLoop(const at::Tensor& q, const at::Tensor& mask, const AttentionOptions& options, const DropoutKeys& keys)
      : options_(options), batch_(q.size(0)), length_(q.size(1)), head_size_(q.size(2) / options.num_heads) {
    spans_ = find_spans(mask, batch_, length_, options.causal);
    threshold_ = keys.active() ? dropout_threshold(options.dropout) : 0;
    if (threshold_ != 0) {
      slots_ = keys.slots;
      key_ = keys.key.philox();
    }
    if (options.causal) causal_ = causal_mask(length_);
  }

  // Calls body(example, head, span, scratch a, scratch b) for every head of every example that has tokens; the scratch
  // tensors are [span.count, span.count].
  template <class Body>
  void run(const Body& body) const {
    cpu::parallel_for(batch_ * options_.num_heads, 1, [&](std::int64_t begin, std::int64_t end) {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;  // the worker threads have a state of their own
      at::Tensor a = at::empty({length_ * length_}, at::kFloat);
      at::Tensor b = at::empty({length_ * length_}, at::kFloat);
      for (std::int64_t i = begin; i < end; ++i) {
        const Span& span = spans_[static_cast<std::size_t>(i / options_.num_heads)];
        if (span.count == 0) continue;
        const std::int64_t area = span.count * span.count;
        body(i / options_.num_heads, i % options_.num_heads, span, a.narrow(0, 0, area).view({span.count, span.count}),
             b.narrow(0, 0, area).view({span.count, span.count}));
      }
    });
  }

  // [span.count, head_size] of a [batch, length, heads * head_size] tensor.
  at::Tensor part(const at::Tensor& whole, std::int64_t example, std::int64_t head, const Span& span) const {
    return whole.select(0, example).narrow(0, span.first, span.count).narrow(1, head * head_size_, head_size_);
  }

  void probabilities(const at::Tensor& q, const at::Tensor& k, const Span& span, at::Tensor scores) const {
    at::Tensor added;
    if (causal_.defined()) added = causal_.narrow(0, 0, span.count).narrow(1, 0, span.count);
    if (span.holes.defined()) added = added.defined() ? added.add(span.holes) : span.holes;
    // beta 0 ignores what is in `scores` before.
    at::addmm_out(scores, added.defined() ? added : scores, q, k.t(), added.defined() ? 1 : 0, options_.scale);
    at::_softmax_out(scores, scores, 1, false);
  }

  [[nodiscard]] double scale() const { return options_.scale; }
  [[nodiscard]] bool drops() const { return threshold_ != 0; }

  cpu::RowDraw draw(std::int64_t example) const {
    const auto slot = static_cast<std::uint32_t>(slots_.const_data_ptr<std::int64_t>()[example]);
    const float scale = 65536.0F / static_cast<float>(65536 - threshold_);
    return {{key_[0], key_[1]}, 0, slot, options_.site, threshold_, scale};
  }

  [[nodiscard]] bool has_padding() const {
    return std::any_of(spans_.begin(), spans_.end(), [&](const Span& span) { return span.count != length_; });
  }

 private:
  AttentionOptions options_;
  std::int64_t batch_;
  std::int64_t length_;
  std::int64_t head_size_;
  std::vector<Span> spans_;
  std::uint32_t threshold_ = 0;
  at::Tensor slots_;
  PhiloxKey key_{};
  at::Tensor causal_;
};

std::uint32_t row_number(std::int64_t head, std::int64_t position) {
  return static_cast<std::uint32_t>((head << 20) + position);
}

class HeadwiseAttention : public torch::autograd::Function<HeadwiseAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<HeadLoop>& loop) {
    at::Tensor out = loop->has_padding() ? at::zeros(q.sizes(), at::kFloat) : at::empty(q.sizes(), at::kFloat);
    loop->run([&](std::int64_t example, std::int64_t head, const Span& span, at::Tensor p, const at::Tensor&) {
      loop->probabilities(loop->part(q, example, head, span), loop->part(k, example, head, span), span, p);
      if (loop->drops()) {
        cpu::RowDraw draw = loop->draw(example);
        auto* row = p.mutable_data_ptr<float>();
        for (std::int64_t i = 0; i < span.count; ++i, row += span.count) {
          draw.row = row_number(head, span.first + i);
          cpu::row_kernels().attention(draw, row, span.first, span.count);
        }
      }
      at::Tensor result = loop->part(out, example, head, span);
      at::mm_out(result, p, loop->part(v, example, head, span));
    });
    ctx->save_for_backward({q, k, v, out});
    ctx->saved_data["loop"] = at::IValue::make_capsule(loop);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto loop = c10::static_intrusive_pointer_cast<HeadLoop>(ctx->saved_data["loop"].toCapsule());
    const at::Tensor& q = saved[0];
    const at::Tensor& k = saved[1];
    const at::Tensor& v = saved[2];
    const at::Tensor dout = gradients[0].contiguous();
    const auto make = [&] {
      return loop->has_padding() ? at::zeros(q.sizes(), at::kFloat) : at::empty(q.sizes(), at::kFloat);
    };
    const at::Tensor dq = make();
    const at::Tensor dk = make();
    const at::Tensor dv = make();
    loop->run([&](std::int64_t example, std::int64_t head, const Span& span, at::Tensor p, at::Tensor g) {
      const at::Tensor q_part = loop->part(q, example, head, span);
      const at::Tensor k_part = loop->part(k, example, head, span);
      const at::Tensor dout_part = loop->part(dout, example, head, span);
      loop->probabilities(q_part, k_part, span, p);
      at::mm_out(g, dout_part, loop->part(v, example, head, span).t());
      if (loop->drops()) {
        // The sum over the columns of g * dropped(p) is the product of the rows of the result and of its gradient.
        const at::Tensor delta = dout_part.mul(loop->part(saved[3], example, head, span)).sum(1);
        const auto* row_delta = delta.const_data_ptr<float>();
        auto* p_row = p.mutable_data_ptr<float>();
        auto* g_row = g.mutable_data_ptr<float>();
        cpu::RowDraw draw = loop->draw(example);
        for (std::int64_t i = 0; i < span.count; ++i, p_row += span.count, g_row += span.count) {
          draw.row = row_number(head, span.first + i);
          cpu::row_kernels().attention_grad(draw, p_row, g_row, row_delta[i], span.first, span.count);
        }
      } else {
        at::Tensor dropped = g;  // in place; without dropout p itself is what multiplies v
        at::_softmax_backward_data_out(dropped, g, p, 1, at::kFloat);
      }
      at::Tensor dv_part = loop->part(dv, example, head, span);
      at::mm_out(dv_part, p.t(), dout_part);
      at::Tensor dq_part = loop->part(dq, example, head, span);
      at::addmm_out(dq_part, dq_part, g, k_part, 0, loop->scale());
      at::Tensor dk_part = loop->part(dk, example, head, span);
      at::addmm_out(dk_part, dk_part, g.t(), q_part, 0, loop->scale());
    });
    return {dq, dk, dv, {}};
  }
};

// [batch, heads, length, head size]
at::Tensor split_heads(const at::Tensor& x, std::int64_t num_heads) {
  return x.view({x.size(0), x.size(1), num_heads, x.size(2) / num_heads}).transpose(1, 2);
}

}  // namespace

at::Tensor composed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                              const AttentionOptions& options, const DropoutKeys& keys) {
  const std::int64_t length = q.size(1);
  // The most negative finite number instead of -infinity: a row that may look nowhere must not become NaN.
  const double hidden = q.scalar_type() == at::kHalf ? -65504.0 : -3.3e38;
  at::Tensor added;
  if (mask.defined()) {
    added = at::zeros({q.size(0), 1, 1, length}, q.options())
                .masked_fill_(mask.to(at::kBool).logical_not().view({q.size(0), 1, 1, length}), hidden);
  }
  if (options.causal && (mask.defined() || keys.active())) {
    const at::Tensor future = at::ones({length, length}, q.options().dtype(at::kBool)).triu_(1);
    if (!added.defined()) added = at::zeros({1, 1, length, length}, q.options());
    added = added.masked_fill(future, hidden);
  }
  const at::Tensor heads_q = split_heads(q, options.num_heads);
  const at::Tensor heads_k = split_heads(k, options.num_heads);
  const at::Tensor heads_v = split_heads(v, options.num_heads);
  at::Tensor result;
  if (!keys.active() || dropout_threshold(options.dropout) == 0) {
    result = at::scaled_dot_product_attention(heads_q, heads_k, heads_v,
                                              added.defined() ? std::optional<at::Tensor>(added) : std::nullopt, 0.0,
                                              options.causal && !added.defined(), options.scale);
  } else {
    at::Tensor scores = at::matmul(heads_q, heads_k.transpose(2, 3)).mul(options.scale);
    if (added.defined()) scores = scores.add(added);
    const at::Tensor p = at::softmax(scores, -1, at::kFloat).to(heads_v.scalar_type());
    result = at::matmul(counter_dropout(p, options.dropout, keys, options.site), heads_v);
  }
  return result.transpose(1, 2).reshape(q.sizes());
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                     const AttentionOptions& options, const DropoutKeys& keys) {
  DTRAIN_CHECK(q.dim() == 3 && q.sizes() == k.sizes() && q.sizes() == v.sizes() && q.size(2) % options.num_heads == 0,
               "attention over tensors of different shapes");
  if (!q.is_cpu()) return composed_attention(q, k, v, mask, options, keys);
  if (keys.active() && dropout_threshold(options.dropout) == 65536) return at::zeros_like(q, at::kFloat);
  return HeadwiseAttention::apply(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat),
                                  c10::make_intrusive<HeadLoop>(q, mask, options, keys));
}

}  // namespace dtrain
