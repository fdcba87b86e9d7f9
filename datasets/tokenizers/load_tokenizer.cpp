#include "datasets/tokenizers/hub_tokenizer.h"
#include "datasets/tokenizers/tokenizer.h"
#include "datasets/tokenizers/tokenizer_spec.h"

namespace dtrain {

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  return std::make_shared<const HubTokenizer>(read_tokenizer_spec(folder), folder.string());
}

}  // namespace dtrain
