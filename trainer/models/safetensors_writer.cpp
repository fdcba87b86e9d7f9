#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "trainer/models/safetensors.h"
#include "trainer/models/safetensors_header.h"

namespace dtrain {

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensors::value_type*> sorted;
  sorted.reserve(tensors.size());
  for (const auto& named : tensors) sorted.push_back(&named);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    const int rank_a = safetensors_dtype_rank(a->second.scalar_type());
    const int rank_b = safetensors_dtype_rank(b->second.scalar_type());
    return rank_a != rank_b ? rank_a > rank_b : a->first < b->first;
  });

  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const auto* named : sorted) {
    const std::string where = fmt::format("{}: tensor {:?}", path.string(), named->first);
    if (named->first == "__metadata__" || header.contains(named->first)) {
      throw data_error(where + " is given twice or has a reserved name");
    }
    const std::size_t end = offset + named->second.nbytes();
    header[named->first] = {{"dtype", safetensors_dtype_name(named->second.scalar_type(), where)},
                            {"shape", named->second.sizes().vec()},
                            {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the tensors aligned to 8 bytes in the file
  const std::uint64_t length = text.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, 8);

  OutputFile file(path, OutputFile::Mode::kTruncate);
  file.write(prefix + text);
  for (const auto* named : sorted) {
    const at::Tensor cpu = named->second.detach().cpu().contiguous();
    file.write({static_cast<const char*>(cpu.const_data_ptr()), cpu.nbytes()});
  }
  file.sync();
  file.close();
}

}  // namespace dtrain
