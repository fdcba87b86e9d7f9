#include "trainer/replicas.h"

#include <algorithm>
#include <map>
#include <span>

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/ranges.h>

#include "core/digest.h"
#include "core/error.h"
#include "dist/agreement.h"

namespace dtrain {
namespace {

void broadcast_in_place(const at::Tensor& tensor, const std::string& name, Communicator& communicator) {
  const at::Tensor value = tensor.detach();
  if (value.is_contiguous()) {
    communicator.broadcast(value, 0, name)->wait();
    return;
  }
  const at::Tensor copy = value.contiguous();
  communicator.broadcast(copy, 0, name)->wait();
  value.copy_(copy);
}

std::string digest_of_bytes(const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
  return digest_of(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
}

// Two sums over the bits of a float32 tensor on a GPU, [2] int64: of the words, and of the words times their odd
// places. Integers wrap around and add up in any order. One flipped bit changes both.
at::Tensor sums_of_bits(const at::Tensor& tensor) {
  constexpr std::int64_t kPiece = std::int64_t{1} << 22;
  const at::Tensor words = tensor.detach().contiguous().view({-1}).view(at::kInt);
  at::Tensor sums = at::zeros({2}, words.options().dtype(at::kLong));
  for (std::int64_t begin = 0; begin < words.numel(); begin += kPiece) {
    const std::int64_t count = std::min(kPiece, words.numel() - begin);
    const at::Tensor piece = words.narrow(0, begin, count);
    const at::Tensor places = at::arange(2 * begin + 1, 2 * (begin + count) + 1, 2, piece.options().dtype(at::kLong));
    sums.add_(at::stack({piece.sum(at::kLong), piece.mul(places).sum(at::kLong)}));
  }
  return sums;
}

// One digest for each tensor. A GPU makes its own, so that 16 bytes of a tensor travel instead of all.
std::vector<std::string> digests_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::string> digests(tensors.size());
  std::vector<at::Tensor> sums;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].is_cpu() && tensors[i].scalar_type() == at::kFloat) {
      sums.push_back(sums_of_bits(tensors[i]));
      places.push_back(i);
    } else {
      digests[i] = digest_of_bytes(tensors[i]);
    }
  }
  if (sums.empty()) return digests;
  const at::Tensor rows = at::stack(sums).to(at::kCPU);
  for (std::size_t i = 0; i < places.size(); ++i) {
    digests[places[i]] = digest_of_bytes(rows[static_cast<std::int64_t>(i)]);
  }
  return digests;
}

// The ranks that hold something else than most; all of them when there is no most.
std::vector<std::size_t> ranks_in_minority(const std::vector<std::string>& values) {
  std::map<std::string, std::size_t> count;
  for (const std::string& value : values) ++count[value];
  const auto most =
      std::max_element(count.begin(), count.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const bool clear = 2 * most->second > values.size();
  std::vector<std::size_t> ranks;
  for (std::size_t rank = 0; rank < values.size(); ++rank) {
    if (!clear || values[rank] != most->first) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace

void copy_from_first_rank(Model& model, const std::shared_ptr<Communicator>& communicator, HostComm& host) {
  if (communicator->size() == 1) return;
  const c10::AutoGradMode no_gradient(false);
  for (const auto& entry : model.named_parameters()) broadcast_in_place(entry.value(), entry.key(), *communicator);
  copy_buffers_from_first_rank(model, *communicator);
  check_replicas(model, host, "start weights");
}

void copy_buffers_from_first_rank(Model& model, Communicator& communicator) {
  if (communicator.size() == 1) return;
  const c10::AutoGradMode no_gradient(false);
  for (const auto& entry : model.named_buffers()) broadcast_in_place(entry.value(), entry.key(), communicator);
}

std::string weights_digest(const Model& model) {
  Digest digest;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    digest.add(name);
    for (const std::int64_t extent : bytes.sizes()) digest.add(std::to_string(extent));
    digest.add(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
  };
  for (const auto& entry : model.named_parameters()) add(entry.key(), entry.value());
  for (const auto& entry : model.named_buffers()) add(entry.key(), entry.value());
  return digest.hex();
}

void check_replicas(const Model& model, HostComm& host, const std::string& when) {
  if (host.size() > 1) agree(host, when, {{"digest", weights_digest(model)}});
}

void check_drift(const std::vector<NamedParameter>& parameters, const NamedTensors& optimizer_state, std::int64_t step,
                 HostComm& host) {
  if (host.size() == 1) return;
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
  for (const NamedParameter& parameter : parameters) {
    names.push_back(parameter.name);
    tensors.push_back(parameter.value);
  }
  for (const auto& [name, tensor] : optimizer_state) {
    names.push_back("optimizer state " + name);
    tensors.push_back(tensor);
  }
  const std::vector<std::string> digests = digests_of(tensors);
  Digest all;
  for (const std::string& digest : digests) all.add(digest);
  const std::vector<std::string> by_rank = host.all_gather("digest of weights and optimizer", all.hex());
  if (std::all_of(by_rank.begin(), by_rank.end(), [&](const auto& each) { return each == by_rank.front(); })) return;

  const std::vector<std::string> details =
      host.all_gather("digests of tensors", fmt::format("{}", fmt::join(digests, "")));
  std::size_t first = 0;  // the tensor in which the ranks differ
  for (bool equal = true; first < digests.size(); ++first) {
    const std::size_t length = digests[first].size();
    for (const std::string& each : details) {
      equal = equal && each.compare(first * length, length, details.front(), first * length, length) == 0;
    }
    if (!equal) break;
  }
  const std::vector<std::size_t> ranks = ranks_in_minority(by_rank);
  const std::string who =
      ranks.size() < by_rank.size()
          ? fmt::format("{} {} other numbers than the rest",
                        ranks.size() == 1 ? fmt::format("rank {}", ranks.front())
                                          : fmt::format("ranks {}", fmt::join(ranks, ", ")),
                        ranks.size() == 1 ? "holds" : "hold")
          : fmt::format("the {} ranks hold different numbers, and no majority says which are right", by_rank.size());
  throw disagree_error(
      fmt::format("step {}: {}; first in {}", step, who, first < names.size() ? names[first] : "none of the tensors"),
      "memory, processor or GPU of such a rank is probably faulty: keep the job off that machine, and go on from a "
      "checkpoint of before the drift");
}

void flip_bit(const at::Tensor& tensor) {
  const c10::AutoGradMode no_gradient(false);
  const at::Tensor flat = tensor.detach().view({-1});
  const at::Tensor words = flat.narrow(0, flat.abs().argmax().item<std::int64_t>(), 1).view(at::kInt);
  words.bitwise_xor_(1 << 20);
}

}  // namespace dtrain
