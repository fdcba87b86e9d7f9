#include "datasets/tokenizers/tokenizer_spec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <memory>
#include <span>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "datasets/tokenizers/json_view.h"
#include "datasets/tokenizers/tokenizer_json.h"
#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHint = "fetch the tokenizer's files anew, or name another tokenizer";
constexpr std::size_t kMaxLines = static_cast<std::size_t>(Vocabulary::kMaxId);

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

// Calls use(line, number from 1) for each line, without its end ("\n" or "\r\n").
template <class Use>
void for_each_line(const MappedFile& file, Use&& use) {
  std::string_view text = file.text();
  if (!unicode::is_valid_utf8(text)) {
    throw data_error(fmt::format("{}: not valid UTF-8", file.path().string()), std::string(kHint));
  }
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (number > kMaxLines) {
      throw data_error(fmt::format("{}:{}: too many lines", file.path().string(), number), std::string(kHint));
    }
    use(line, number);
  }
}

// What tokenizer_config.json and special_tokens_map.json say beside the vocabulary. Which one counts follows
// transformers (PreTrainedTokenizerBase._from_pretrained): the map, unless the configuration has an
// added_tokens_decoder.
class Settings {
 public:
  explicit Settings(const fs::path& folder) {
    if (is_file(folder / "tokenizer_config.json"))
      config_ = std::make_unique<JsonFile>(folder / "tokenizer_config.json");
    if (is_file(folder / "special_tokens_map.json"))
      map_ = std::make_unique<JsonFile>(folder / "special_tokens_map.json");
    if (find("added_tokens_decoder")) map_.reset();
    if (const auto name = find("tokenizer_class")) {
      class_name_ = name->text();
      if (class_name_.ends_with("Fast")) class_name_.resize(class_name_.size() - 4);
    }
  }

  // Of tokenizer_config.json.
  [[nodiscard]] std::optional<JsonView> find(std::string_view key) const {
    return config_ ? config_->root().find(key) : std::nullopt;
  }
  // Without "Fast"; "" when no file says.
  [[nodiscard]] const std::string& class_name() const { return class_name_; }

  [[nodiscard]] std::optional<JsonView> find_special(std::string_view key) const {
    if (map_) {
      if (auto view = map_->root().find(key)) return view;
    }
    return find(key);
  }
  // A file has the key, if only with null.
  [[nodiscard]] bool mentions(std::string_view key) const {
    const auto has = [key](const std::unique_ptr<JsonFile>& file) {
      return file && file->root().object().at_key(key).error() == simdjson::SUCCESS;
    };
    return has(map_) || has(config_);
  }

 private:
  std::unique_ptr<JsonFile> config_;
  std::unique_ptr<JsonFile> map_;
  std::string class_name_;
};

AddedToken special_token(const JsonView& view) {
  AddedToken token;
  if (view.is_text()) {
    token.content = view.text();
  } else {
    token = read_added_token(view);
    token.normalized = view.boolean_or("normalized", false);
  }
  token.special = true;
  return token;
}

struct Default {
  std::string_view key;
  std::string_view content;
};
// The tokens of BertTokenizer and GPT2Tokenizer of transformers where no file names others, in its order of adding.
constexpr std::array<Default, 5> kBertTokens = {{{"unk_token", "[UNK]"},
                                                 {"sep_token", "[SEP]"},
                                                 {"pad_token", "[PAD]"},
                                                 {"cls_token", "[CLS]"},
                                                 {"mask_token", "[MASK]"}}};
constexpr std::array<Default, 3> kGpt2Tokens = {
    {{"bos_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}}};
constexpr std::array<std::string_view, 7> kSpecialKeys = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                          "pad_token", "cls_token", "mask_token"};

std::string_view default_content(const TokenizerSpec& spec, std::string_view key) {
  const std::span<const Default> defaults = spec.model == TokenizerSpec::Model::kWordPiece
                                                ? std::span<const Default>(kBertTokens)
                                                : std::span<const Default>(kGpt2Tokens);
  for (const Default& entry : defaults) {
    if (entry.key == key) return entry.content;
  }
  return {};
}

// The token that plays the role `key`; absent when no file names one and the class has no default.
std::optional<AddedToken> named_token(const TokenizerSpec& spec, const Settings& settings, std::string_view key) {
  if (const auto view = settings.find_special(key)) return special_token(*view);
  const std::string_view content = default_content(spec, key);
  if (settings.mentions(key) || content.empty()) return std::nullopt;
  AddedToken token;
  token.content = content;
  token.special = true;
  return token;
}

void read_vocabulary_lines(const fs::path& path, Vocabulary& vocabulary) {
  const MappedFile file(path);
  for_each_line(file, [&](std::string_view line, std::size_t number) {
    // The library trims white space at the end of lines.
    while (!line.empty()) {
      const unicode::Decoded last = unicode::decode_before(line.data() + line.size());
      if ((unicode::flags(last.code_point) & unicode::kWhite) == 0) break;
      line.remove_suffix(last.size);
    }
    if (vocabulary.add(line, static_cast<std::int32_t>(number - 1)) != Vocabulary::Added::kDone) {
      throw data_error(fmt::format("{}:{}: token \"{}\" is there already, in line {}", path.string(), number, line,
                                   *vocabulary.find(line) + 1),
                       std::string(kHint));
    }
  });
  if (vocabulary.size() == 0) throw data_error(fmt::format("{}: empty", path.string()), std::string(kHint));
}

void read_merge_lines(const fs::path& path, TokenizerSpec& spec) {
  const MappedFile file(path);
  for_each_line(file, [&](std::string_view line, std::size_t number) {
    if (line.starts_with("#version")) return;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      throw data_error(fmt::format("{}: \"{}\" is not two tokens with a space between them", where, line),
                       std::string(kHint));
    }
    add_merge(line.substr(0, space), line.substr(space + 1), where, spec);
  });
}

std::int32_t role_id(const TokenizerSpec& spec, const Settings& settings, std::string_view key,
                     const std::string& where) {
  const auto token = named_token(spec, settings, key);
  const auto id = token ? find_token(spec, token->content) : std::nullopt;
  if (!id) throw data_error(fmt::format("{}: there is no {}", where, key), std::string(kHint));
  return *id;
}

// vocab.txt alone: what BertTokenizer makes of it.
void read_bert_files(const fs::path& folder, const Settings& settings, TokenizerSpec& spec) {
  const fs::path path = folder / "vocab.txt";
  spec.model = TokenizerSpec::Model::kWordPiece;
  read_vocabulary_lines(path, spec.vocabulary);
  spec.normalizer = {.clean_text = true, .handle_chinese_chars = true, .strip_accents = true, .lowercase = true};
  spec.decoder = TokenizerSpec::Decoder::kWordPiece;
  const auto unknown = named_token(spec, settings, "unk_token");
  if (unknown) spec.unknown_id = spec.vocabulary.find(unknown->content);
  if (!spec.unknown_id) {
    throw data_error(fmt::format("{}: the vocabulary lacks the unknown token \"{}\"", path.string(),
                                 unknown ? unknown->content : ""),
                     std::string(kHint));
  }
}

// vocab.json and merges.txt: what GPT2Tokenizer makes of them.
void read_gpt2_files(const fs::path& folder, TokenizerSpec& spec) {
  spec.model = TokenizerSpec::Model::kBytePair;
  const JsonFile file(folder / "vocab.json");
  read_vocabulary(file.root(), spec.vocabulary);
  read_merge_lines(folder / "merges.txt", spec);
  spec.decoder = TokenizerSpec::Decoder::kByteLevel;
}

// Tokens that the files beside tokenizer.json name. `with_defaults`: also those that the class itself has.
void add_named_tokens(const fs::path& folder, const Settings& settings, bool with_defaults, TokenizerSpec& spec) {
  const std::string config = (folder / "tokenizer_config.json").string();
  std::map<std::int64_t, AddedToken> numbered;
  if (const auto decoder = settings.find("added_tokens_decoder")) {
    for (const auto& field : decoder->object()) {
      const JsonView view(field.value, fmt::format("{}.{}", decoder->where(), field.key));
      std::int64_t id = -1;
      const auto [end, failed] = std::from_chars(field.key.data(), field.key.data() + field.key.size(), id);
      if (failed != std::errc() || end != field.key.data() + field.key.size()) throw view.error("must be an id");
      numbered.emplace(id, read_added_token(view));
    }
  } else if (is_file(folder / "added_tokens.json")) {
    const JsonFile file(folder / "added_tokens.json");
    for (const auto& field : file.root().object()) {
      AddedToken token;
      token.content = field.key;
      token.special = std::any_of(kSpecialKeys.begin(), kSpecialKeys.end(), [&](std::string_view key) {
        const auto named = named_token(spec, settings, key);
        return named && named->content == token.content;
      });
      token.normalized = !token.special;
      const JsonView view(field.value, file.root().where() + token.content);
      numbered.emplace(view.integer(), std::move(token));
    }
  }
  for (const auto& [id, token] : numbered) add_token(token, id, false, config, spec);
  for (const std::string_view key : kSpecialKeys) {
    if (!with_defaults && !settings.find_special(key)) continue;
    if (const auto token = named_token(spec, settings, key)) add_token(*token, std::nullopt, false, config, spec);
  }
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = settings.find_special(key);
    if (!list || !list->is_list()) continue;
    for (const simdjson::dom::element entry : list->list()) {
      add_token(special_token(JsonView(entry, list->where())), std::nullopt, false, config, spec);
    }
  }
}

// BertTokenizer and GPT2Tokenizer build their own normaliser and pre-tokenizer from tokenizer_config.json, so what that
// file says explicitly wins over tokenizer.json. What it does not say stays as tokenizer.json has it.
void apply_class_settings(const Settings& settings, bool from_json, TokenizerSpec& spec) {
  if (spec.kind == "gpt2") {
    if (const auto view = settings.find("add_prefix_space")) spec.add_prefix_space = view->boolean();
    return;
  }
  BertNormalizerOptions& options = spec.normalizer;
  const auto lower = settings.find("do_lower_case");
  const auto strip = settings.find("strip_accents");
  if (lower) {
    // strip_accents follows lowercase unless it is set.
    if (options.strip_accents == options.lowercase) options.strip_accents = lower->boolean();
    options.lowercase = lower->boolean();
  } else if (from_json && !options.lowercase) {
    log::warning(
        "tokenizer.json keeps upper case and tokenizer_config.json has no do_lower_case: dtrain keeps upper case, "
        "transformers would lower it; add \"do_lower_case\": false to be sure");
  }
  if (strip) options.strip_accents = strip->boolean();
  if (const auto view = settings.find("tokenize_chinese_chars")) options.handle_chinese_chars = view->boolean();
}

void set_kind(const fs::path& folder, const Settings& settings, TokenizerSpec& spec) {
  const bool byte_pair = spec.model == TokenizerSpec::Model::kBytePair;
  const std::string& name = settings.class_name();
  if (name == "BertTokenizer" || name == "GPT2Tokenizer") {
    if ((name == "GPT2Tokenizer") != byte_pair) {
      throw data_error(fmt::format("{}: tokenizer_class is {}, but the vocabulary is one of {}",
                                   (folder / "tokenizer_config.json").string(), name, byte_pair ? "BPE" : "WordPiece"),
                       "the files of two tokenizers are mixed; fetch them anew");
    }
    spec.kind = byte_pair ? "gpt2" : "bert";
  } else if (name.empty() || name == "PreTrainedTokenizer" || name == "TokenizersBackend") {
    spec.kind = byte_pair ? "gpt2" : "bert";
  }
}

}  // namespace

TokenizerSpec read_tokenizer_spec(const fs::path& folder) {
  TokenizerSpec spec;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
                           "vocab.json", "merges.txt", "added_tokens.json"}) {
    if (is_file(folder / name)) spec.files.push_back(folder / name);
  }
  const Settings settings(folder);
  const bool from_json = is_file(folder / "tokenizer.json");
  std::optional<std::string> padding;
  if (from_json) {
    const JsonFile file(folder / "tokenizer.json");
    read_tokenizer_json(file.root(), spec);
    if (const auto view = file.root().find("padding")) padding = std::string(view->at("pad_token").text());
  } else if (is_file(folder / "vocab.json") && is_file(folder / "merges.txt")) {
    read_gpt2_files(folder, spec);
  } else if (is_file(folder / "vocab.txt")) {
    read_bert_files(folder, settings, spec);
  } else {
    throw data_error(fmt::format("{}: no tokenizer (no tokenizer.json, no vocab.json with merges.txt, no vocab.txt)",
                                 folder.string()),
                     "name the folder of a tokenizer of the Hugging Face Hub");
  }
  set_kind(folder, settings, spec);
  const bool known_class =
      settings.class_name() != "PreTrainedTokenizer" && settings.class_name() != "TokenizersBackend";
  if (!spec.kind.empty() && known_class) apply_class_settings(settings, from_json, spec);
  if (!from_json && spec.kind.empty()) {
    throw data_error(fmt::format("{}: a {} without tokenizer.json is not supported",
                                 (folder / "tokenizer_config.json").string(), settings.class_name()),
                     "save the tokenizer with transformers, which writes tokenizer.json");
  }
  add_named_tokens(folder, settings, !from_json, spec);
  if (const auto view = settings.find("split_special_tokens")) spec.split_special_tokens = view->boolean();
  if (!from_json) {
    const std::string where = folder.string();
    if (spec.model == TokenizerSpec::Model::kWordPiece) {
      spec.before = {role_id(spec, settings, "cls_token", where)};
      spec.after = {role_id(spec, settings, "sep_token", where)};
    } else {
      const auto wants = [&](std::string_view key) {
        const auto view = settings.find(key);
        return view && view->boolean();
      };
      if (wants("add_bos_token")) spec.before = {role_id(spec, settings, "bos_token", where)};
      if (wants("add_eos_token")) spec.after = {role_id(spec, settings, "eos_token", where)};
    }
  }
  if (const auto token =
          settings.find_special("pad_token") || !padding ? named_token(spec, settings, "pad_token") : std::nullopt) {
    spec.pad_id = find_token(spec, token->content);
  } else if (padding && !settings.mentions("pad_token")) {
    spec.pad_id = find_token(spec, *padding);
  }
  if (const auto token = named_token(spec, settings, "eos_token")) spec.eos_id = find_token(spec, token->content);
  if (const auto token = named_token(spec, settings, "mask_token")) spec.mask_id = find_token(spec, token->content);
  return spec;
}

}  // namespace dtrain
