#include "trainer/kernels/attention.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
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
#include "trainer/kernels/cpu/heads.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/cpu/rows.h"
#include "trainer/kernels/dense_bfloat16.h"
#include "trainer/kernels/shortcuts.h"

namespace dtrain {
namespace {

// [length, length] float32: 0 on and below the diagonal, -infinity above.
at::Tensor causal_mask(std::int64_t length) {
  return at::full({length, length}, -std::numeric_limits<float>::infinity(), at::kFloat).triu_(1);
}

std::uint32_t row_number(std::int64_t head, std::int64_t position) {
  return static_cast<std::uint32_t>((head << 20) + position);
}

// What forward and backward share: who looks at whom, and the computation of the probabilities of one head.
class HeadLoop : public torch::CustomClassHolder {
 public:
  HeadLoop(TokenLayoutPtr layout, TokenLayoutPtr queries, const AttentionOptions& options, std::int64_t width,
           const DropoutKeys& keys)
      : layout_(std::move(layout)),
        queries_(queries != nullptr ? std::move(queries) : layout_),
        options_(options),
        head_size_(width / options.num_heads) {
    threshold_ = keys.active() ? dropout_threshold(options.dropout) : 0;
    if (threshold_ != 0) {
      slots_ = keys.slots;
      key_ = keys.key.philox();
    }
    for (const TokenSpan& span : layout_->spans) longest_ = std::max(longest_, span.count);
    for (const TokenSpan& span : queries_->spans) most_queries_ = std::max(most_queries_, span.count);
    if (uses(Shortcut::kAttention)) {
      if (head_size_ % cpu::kHeadSizeUnit<float> == 0) kernels_ = cpu::head_kernels();
      if (head_size_ % cpu::kHeadSizeUnit<cpu::Bfloat16> == 0) bfloat16_kernels_ = cpu::bfloat16_head_kernels();
    }
    if (kernels_ == nullptr && options.causal && queries_ == layout_) causal_ = causal_mask(longest_);
  }

  // One head of one example: the tokens that look and those they look at.
  struct Head {
    std::size_t example = 0;
    std::int64_t head = 0;
    TokenSpan queries;
    TokenSpan keys;
  };

  // The kernels for this instruction set and head size; null: the body of run() works with LibTorch's operations.
  template <class Number>
  [[nodiscard]] const cpu::HeadKernelsOf<Number>* kernels() const {
    if constexpr (std::is_same_v<Number, float>) {
      return kernels_;
    } else {
      return bfloat16_kernels_;
    }
  }

  [[nodiscard]] bool has_kernels(at::ScalarType type) const {
    return type == at::kFloat ? kernels_ != nullptr : type == at::kBFloat16 && bfloat16_kernels_ != nullptr;
  }

  // Calls body(head, scratch) for every head of every example.
  template <class Number, class Body>
  void run_kernels(const Body& body) const {
    const auto needed = static_cast<std::size_t>(cpu::head_scratch<Number>(longest_, head_size_));
    cpu::parallel_tasks(layout_->batch * options_.num_heads, [&](std::int64_t task) {
      static thread_local std::vector<float> space;
      if (space.size() < needed) space.resize(needed);
      body(head_of(task), space.data());
    });
  }

  // The columns of one head in the rows of one example.
  template <class Number>
  [[nodiscard]] cpu::RowsOf<Number> rows(const at::Tensor& whole, const Head& head, const TokenSpan& span) const {
    return {static_cast<Number*>(whole.mutable_data_ptr()) + start(whole, head, span), whole.stride(0)};
  }
  template <class Number>
  [[nodiscard]] cpu::RowsOf<const Number> const_rows(const at::Tensor& whole, const Head& head,
                                                     const TokenSpan& span) const {
    return {static_cast<const Number*>(whole.const_data_ptr()) + start(whole, head, span), whole.stride(0)};
  }

  template <class Number>
  [[nodiscard]] cpu::HeadInputsOf<Number> inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                 const Head& head) const {
    cpu::HeadInputsOf<Number> in;
    in.q = const_rows<Number>(q, head, head.queries);
    in.k = const_rows<Number>(k, head, head.keys);
    in.v = const_rows<Number>(v, head, head.keys);
    in.queries = head.queries.count;
    in.keys = head.keys.count;
    in.head_size = head_size_;
    in.scale = static_cast<float>(options_.scale);
    in.causal = options_.causal;
    in.holes = head.keys.holes.defined() ? head.keys.holes.const_data_ptr<float>() : nullptr;
    in.drops = drops();
    if (in.drops) in.drop = draw(head.example);
    in.first_row = row_number(head.head, head.queries.first);
    in.first_key = head.keys.first;
    return in;
  }

  // [heads, rows of q, 2]: what forward keeps for backward.
  [[nodiscard]] at::Tensor make_moments(const at::Tensor& q) const {
    return at::empty({options_.num_heads, q.size(0), 2}, at::kFloat);
  }
  [[nodiscard]] static float* moments_of(const at::Tensor& moments, const Head& head) {
    return moments.mutable_data_ptr<float>() + 2 * (head.head * moments.size(1) + head.queries.row);
  }

  // Calls body(head, scratch a, scratch b) for every head of every example; the scratch tensors are [queries, keys].
  template <class Body>
  void run(const Body& body) const {
    cpu::parallel_for(layout_->batch * options_.num_heads, 1, [&](std::int64_t begin, std::int64_t end) {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;  // the worker threads have a state of their own
      at::Tensor a = at::empty({most_queries_ * longest_}, at::kFloat);
      at::Tensor b = at::empty({most_queries_ * longest_}, at::kFloat);
      for (std::int64_t i = begin; i < end; ++i) {
        const Head head = head_of(i);
        const std::int64_t area = head.queries.count * head.keys.count;
        body(head, a.narrow(0, 0, area).view({head.queries.count, head.keys.count}),
             b.narrow(0, 0, area).view({head.queries.count, head.keys.count}));
      }
    });
  }

  // [span.count, head size] of a [rows, heads * head size] tensor.
  at::Tensor part(const at::Tensor& whole, std::int64_t head, const TokenSpan& span) const {
    return whole.narrow(0, span.row, span.count).narrow(1, head * head_size_, head_size_);
  }

  void probabilities(const at::Tensor& q, const at::Tensor& k, const TokenSpan& keys, at::Tensor scores) const {
    at::Tensor added;
    if (causal_.defined()) added = causal_.narrow(0, 0, keys.count).narrow(1, 0, keys.count);
    if (keys.holes.defined()) {
      const at::Tensor holes = keys.holes.narrow(0, 0, keys.count);
      added = added.defined() ? added.add(holes) : holes;
    }
    // beta 0 ignores what is in `scores` before.
    at::addmm_out(scores, added.defined() ? added : scores, q, k.t(), added.defined() ? 1 : 0, options_.scale);
    at::_softmax_out(scores, scores, 1, false);
  }

  Head head_of(std::int64_t number) const {
    const auto example = static_cast<std::size_t>(number / options_.num_heads);
    Head head{example, number % options_.num_heads, queries_->spans[example], layout_->spans[example]};
    // A single query with causality sees what is not after it.
    if (options_.causal && queries_ != layout_) head.keys.count = head.queries.first - head.keys.first + 1;
    return head;
  }

  [[nodiscard]] double scale() const { return options_.scale; }
  // Whether the tokens that look are those that are looked at.
  [[nodiscard]] bool is_self() const { return queries_ == layout_; }
  [[nodiscard]] bool drops() const { return threshold_ != 0; }

  cpu::RowDraw draw(std::size_t example) const {
    const auto slot = static_cast<std::uint32_t>(slots_.const_data_ptr<std::int64_t>()[example]);
    const float scale = 65536.0F / static_cast<float>(65536 - threshold_);
    return {{key_[0], key_[1]}, 0, slot, options_.site, threshold_, scale};
  }

  // Of the type of q.
  [[nodiscard]] at::Tensor make_queries(const at::Tensor& q) const {
    return make(q.size(0), q.size(1), *queries_, q.scalar_type());
  }
  // [rows of k, parts * width]. Keys after a single causal query get no gradient.
  [[nodiscard]] at::Tensor make_gradients(const at::Tensor& k, std::int64_t parts) const {
    return options_.causal && queries_ != layout_ ? at::zeros({k.size(0), parts * k.size(1)}, k.scalar_type())
                                                  : make(k.size(0), parts * k.size(1), *layout_, k.scalar_type());
  }

 private:
  [[nodiscard]] std::int64_t start(const at::Tensor& whole, const Head& head, const TokenSpan& span) const {
    return span.row * whole.stride(0) + head.head * head_size_;
  }

  // Zeros where a row may belong to no span.
  static at::Tensor make(std::int64_t rows, std::int64_t columns, const TokenLayout& layout, at::ScalarType type) {
    const bool all = std::all_of(layout.spans.begin(), layout.spans.end(),
                                 [&](const TokenSpan& span) { return layout.packed || span.count == layout.length; });
    if (!all) return at::zeros({rows, columns}, type);
    return type == at::kBFloat16 ? bfloat16_rows(rows, columns) : at::empty({rows, columns}, type);
  }

  TokenLayoutPtr layout_;
  TokenLayoutPtr queries_;
  AttentionOptions options_;
  std::int64_t head_size_;
  std::int64_t longest_ = 0;       // keys of one example
  std::int64_t most_queries_ = 0;  // likewise
  std::uint32_t threshold_ = 0;
  at::Tensor slots_;
  PhiloxKey key_{};
  at::Tensor causal_;
  const cpu::HeadKernels* kernels_ = nullptr;
  const cpu::Bfloat16HeadKernels* bfloat16_kernels_ = nullptr;
};

struct Gradients {
  at::Tensor dq, dk, dv;
};

template <class Number>
void run_forward(const HeadLoop& loop, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& out, const at::Tensor& moments) {
  loop.run_kernels<Number>([&](const HeadLoop::Head& head, float* scratch) {
    loop.kernels<Number>()->forward(loop.inputs<Number>(q, k, v, head), loop.rows<Number>(out, head, head.queries),
                                    HeadLoop::moments_of(moments, head), scratch);
  });
}

// `saved`: q, k, v, the result and the moments.
template <class Number>
void run_backward(const HeadLoop& loop, const torch::autograd::variable_list& saved, const at::Tensor& dout,
                  const Gradients& gradients) {
  loop.run_kernels<Number>([&](const HeadLoop::Head& head, float* scratch) {
    loop.kernels<Number>()->backward(
        loop.inputs<Number>(saved[0], saved[1], saved[2], head),
        {loop.const_rows<Number>(saved[3], head, head.queries), loop.const_rows<Number>(dout, head, head.queries),
         HeadLoop::moments_of(saved[4], head), loop.rows<Number>(gradients.dq, head, head.queries),
         loop.rows<Number>(gradients.dk, head, head.keys), loop.rows<Number>(gradients.dv, head, head.keys)},
        scratch);
  });
}

class HeadwiseAttention : public torch::autograd::Function<HeadwiseAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<HeadLoop>& loop) {
    at::Tensor out = loop->make_queries(q);
    if (loop->has_kernels(q.scalar_type())) {
      const at::Tensor moments = loop->make_moments(q);
      (q.scalar_type() == at::kFloat ? run_forward<float> : run_forward<cpu::Bfloat16>)(*loop, q, k, v, out, moments);
      ctx->save_for_backward({q, k, v, out, moments});
      ctx->saved_data["loop"] = at::IValue::make_capsule(loop);
      return out;
    }
    loop->run([&](const HeadLoop::Head& head, at::Tensor p, const at::Tensor&) {
      loop->probabilities(loop->part(q, head.head, head.queries), loop->part(k, head.head, head.keys), head.keys, p);
      if (loop->drops()) {
        cpu::RowDraw draw = loop->draw(head.example);
        auto* row = p.mutable_data_ptr<float>();
        for (std::int64_t i = 0; i < head.queries.count; ++i, row += head.keys.count) {
          draw.row = row_number(head.head, head.queries.first + i);
          cpu::row_kernels().attention(draw, row, head.keys.first, head.keys.count);
        }
      }
      at::Tensor result = loop->part(out, head.head, head.queries);
      at::mm_out(result, p, loop->part(v, head.head, head.keys));
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
    const at::Tensor dout = gradients[0].to(q.scalar_type()).contiguous();
    // Side by side, as split_columns() likes them: with q where the queries are all tokens.
    const bool joined = loop->is_self();
    const at::Tensor together = loop->make_gradients(k, joined ? 3 : 2);
    const std::vector<at::Tensor> parts = together.chunk(joined ? 3 : 2, 1);
    const at::Tensor dq = joined ? parts[0] : loop->make_queries(q);
    const at::Tensor& dk = parts[parts.size() - 2];
    const at::Tensor& dv = parts.back();
    if (loop->has_kernels(q.scalar_type())) {
      (q.scalar_type() == at::kFloat ? run_backward<float> : run_backward<cpu::Bfloat16>)(*loop, saved, dout,
                                                                                          {dq, dk, dv});
      return {dq, dk, dv, {}};
    }
    loop->run([&](const HeadLoop::Head& head, at::Tensor p, at::Tensor g) {
      const at::Tensor q_part = loop->part(q, head.head, head.queries);
      const at::Tensor k_part = loop->part(k, head.head, head.keys);
      const at::Tensor dout_part = loop->part(dout, head.head, head.queries);
      loop->probabilities(q_part, k_part, head.keys, p);
      at::mm_out(g, dout_part, loop->part(v, head.head, head.keys).t());
      if (loop->drops()) {
        // The sum over the columns of g * dropped(p) is the product of the rows of the result and of its gradient.
        const at::Tensor delta = dout_part.mul(loop->part(saved[3], head.head, head.queries)).sum(1);
        const auto* row_delta = delta.const_data_ptr<float>();
        auto* p_row = p.mutable_data_ptr<float>();
        auto* g_row = g.mutable_data_ptr<float>();
        cpu::RowDraw draw = loop->draw(head.example);
        for (std::int64_t i = 0; i < head.queries.count; ++i, p_row += head.keys.count, g_row += head.keys.count) {
          draw.row = row_number(head.head, head.queries.first + i);
          cpu::row_kernels().attention_grad(draw, p_row, g_row, row_delta[i], head.keys.first, head.keys.count);
        }
      } else {
        at::Tensor dropped = g;  // in place; without dropout p itself is what multiplies v
        at::_softmax_backward_data_out(dropped, g, p, 1, at::kFloat);
      }
      at::Tensor dv_part = loop->part(dv, head.head, head.keys);
      at::mm_out(dv_part, p.t(), dout_part);
      at::Tensor dq_part = loop->part(dq, head.head, head.queries);
      at::addmm_out(dq_part, dq_part, g, k_part, 0, loop->scale());
      at::Tensor dk_part = loop->part(dk, head.head, head.keys);
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
  const std::int64_t length = k.size(1);
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

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const TokenLayoutPtr& layout,
                     const at::Tensor& mask, const AttentionOptions& options, const DropoutKeys& keys,
                     const TokenLayoutPtr& queries) {
  const std::int64_t width = q.size(-1);
  DTRAIN_CHECK(q.dim() == 2 && k.dim() == 2 && k.sizes() == v.sizes() && k.size(1) == width &&
                   width % options.num_heads == 0 && k.size(0) == layout->rows &&
                   q.size(0) == (queries != nullptr ? queries : layout)->rows,
               "attention over tensors of different shapes");
  if (!q.is_cpu()) {
    return composed_attention(q.view({layout->batch, -1, width}), k.view({layout->batch, -1, width}),
                              v.view({layout->batch, -1, width}), mask, options, keys)
        .view(q.sizes());
  }
  if (keys.active() && dropout_threshold(options.dropout) == 65536) return at::zeros_like(q, at::kFloat);
  const auto loop = c10::make_intrusive<HeadLoop>(layout, queries, options, width, keys);
  const at::ScalarType type = loop->has_kernels(q.scalar_type()) ? q.scalar_type() : at::kFloat;
  return HeadwiseAttention::apply(q.to(type), k.to(type), v.to(type), loop);
}

}  // namespace dtrain
