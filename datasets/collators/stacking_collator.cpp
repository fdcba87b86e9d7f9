#include "datasets/collators/stacking_collator.h"

#include <string>
#include <vector>

#include <ATen/ops/stack.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

std::string text_of(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "));
}

class StackingCollator final : public Collator {
 public:
  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& key) const override {
    Batch batch;
    batch.size = static_cast<std::int64_t>(examples.size());
    for (const auto& [name, first] : examples[0].tensors) {
      std::vector<at::Tensor> rows;
      for (std::size_t i = 0; i < examples.size(); ++i) {
        const auto found = examples[i].tensors.find(name);
        const bool same_names = examples[i].tensors.size() == examples[0].tensors.size();
        if (found == examples[i].tensors.end() || !same_names) {
          throw data_error(
              fmt::format("examples {} and {} have tensors of different names", key.index[0], key.index[i]));
        }
        const at::Tensor& tensor = found->second;
        if (tensor.sizes() != first.sizes() || tensor.scalar_type() != first.scalar_type()) {
          throw data_error(fmt::format("tensor \"{}\" of example {} is {}, that of example {} is {}", name,
                                       key.index[i], text_of(tensor), key.index[0], text_of(first)),
                           "make them equal in the data set, or write a collator of your own");
        }
        rows.push_back(tensor);
      }
      batch.tensors[name] = at::stack(rows);
    }
    return batch;
  }
};

}  // namespace

std::shared_ptr<const Collator> make_stacking_collator() { return std::make_shared<StackingCollator>(); }

}  // namespace dtrain
