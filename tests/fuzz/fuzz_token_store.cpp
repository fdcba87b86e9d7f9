// The token store. The first byte of the input chooses: a file as it is; changes to an intact store, none of which may
// go unnoticed; or a table of tokens, which is written and read back.
#include <algorithm>
#include <cstring>

#include "core/file.h"
#include "datasets/token_store.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using fuzz::require;

const TokenOrigin kOrigin = {"source", "tokenizer", "options"};

void check_file(const fs::path& path, std::string_view bytes) {
  test::write_file(path, bytes);
  require(!fuzz::accepts([&] { static_cast<void>(open_token_store(path, kOrigin)); }), "a forged store is accepted");
}

// Each change: where (two bytes), and what is put there.
void check_changes(const fs::path& path, fuzz::Input input) {
  static const std::string intact = [] {
    const fs::path first = fuzz::fresh_folder() / "intact.h5";
    write_token_store(first, kOrigin,
                      {.ids = {1, 2, 3}, .offsets = {0, 1, 3}, .labels = {0.5}, .label_offsets = {0, 0, 1}});
    return read_file(first);
  }();
  std::string changed = intact;
  while (!input.empty()) {
    const std::size_t at = (std::size_t{input.byte()} << 8U) + input.byte();
    if (at >= changed.size()) {
      changed.resize(changed.size() - std::min<std::size_t>(changed.size(), input.byte()));
    } else {
      changed[at] = static_cast<char>(input.byte());
    }
  }
  test::write_file(path, changed);
  const bool accepted = fuzz::accepts([&] { static_cast<void>(open_token_store(path, kOrigin)); });
  require(accepted == (changed == intact), "a change goes unnoticed");
}

template <class T>
std::vector<T> numbers(fuzz::Input& input) {
  std::vector<T> values;
  for (std::size_t count = input.byte(); values.size() < count;)
    values.push_back(static_cast<T>(static_cast<std::int8_t>(input.byte())));
  return values;
}

bool are_offsets(const std::vector<std::int64_t>& offsets, std::size_t end) {
  return offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == static_cast<std::int64_t>(end) &&
         std::is_sorted(offsets.begin(), offsets.end());
}

void check_table(const fs::path& path, fuzz::Input input) {
  TokenTable table{
      .ids = numbers<std::int32_t>(input), .offsets = numbers<std::int64_t>(input), .labels = {}, .label_offsets = {}};
  table.labels = numbers<double>(input);
  table.label_offsets = numbers<std::int64_t>(input);
  write_token_store(path, kOrigin, table);
  const bool fits = are_offsets(table.offsets, table.ids.size()) &&
                    are_offsets(table.label_offsets, table.labels.size()) &&
                    table.offsets.size() == table.label_offsets.size();
  const bool accepted = fuzz::accepts([&] {
    const auto store = open_token_store(path, kOrigin);
    require(store->size() + 1 == std::ssize(table.offsets), "another number of examples");
    for (std::int64_t i = 0; i < store->size(); ++i) {
      const Example example = store->get(i);
      const auto place = static_cast<std::size_t>(i);
      require(std::equal(example.ids.begin(), example.ids.end(), table.ids.begin() + table.offsets[place],
                         table.ids.begin() + table.offsets[place + 1]),
              "other ids");
      require(
          std::equal(example.labels.begin(), example.labels.end(), table.labels.begin() + table.label_offsets[place],
                     table.labels.begin() + table.label_offsets[place + 1]),
          "other labels");
    }
  });
  require(accepted == fits, "offsets are judged differently");
  remove_stale_writes(path);
  require(fs::exists(path), "the store itself is removed as stale");
  for (const TokenOrigin& other : {TokenOrigin{"x", kOrigin.tokenizer, kOrigin.options},
                                   {kOrigin.source, "x", kOrigin.options},
                                   {kOrigin.source, kOrigin.tokenizer, std::string(input.rest().substr(0, 100))}}) {
    if (other.key() == kOrigin.key()) continue;
    require(!fuzz::accepts([&] { static_cast<void>(open_token_store(path, other)); }), "a store of another origin");
  }
}

void check(fuzz::Input input) {
  const fs::path path = fuzz::fresh_folder() / "tokens.h5";
  switch (input.byte() % 3) {
    case 0:
      return check_file(path, input.rest());
    case 1:
      return check_changes(path, input);
    default:
      return check_table(path, input);
  }
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({data, size});
  return 0;
}
