#include "datasets/tokenizers/tokenizer_json.h"

#include <algorithm>

namespace dtrain {
namespace {

constexpr std::size_t kMostAround = 1000;  // special tokens before or after a text
constexpr std::string_view kHint = "fetch the tokenizer's files anew, or name another tokenizer";

Error unsupported(const JsonView& view, std::string_view type) {
  return data_error(fmt::format("{}: \"{}\" is not supported", view.where(), type),
                    "dtrain reads byte-level BPE (GPT-2) and WordPiece (BERT) tokenizers");
}

// The "type" of a component, which must be one of `known`.
std::string type_of(const JsonView& component, std::initializer_list<std::string_view> known) {
  std::string type(component.at("type").text());
  if (std::find(known.begin(), known.end(), type) == known.end()) throw unsupported(component, type);
  return type;
}

// A member that must be absent, null, false, 0 or "", because dtrain has no code for anything else.
void require_unset(const JsonView& object, std::string_view key) {
  simdjson::dom::element value;
  if (object.object().at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return;
  bool flag = false;
  double number = 0;
  std::string_view text;
  const bool unset = (value.get(flag) == simdjson::SUCCESS && !flag) ||
                     (value.get(number) == simdjson::SUCCESS && number == 0) ||
                     (value.get(text) == simdjson::SUCCESS && text.empty());
  if (!unset) throw unsupported(object, fmt::format("{} = {}", key, simdjson::minify(value)));
}

void read_merges(const JsonView& model, TokenizerSpec& spec) {
  const JsonView view = model.at("merges");
  std::size_t rank = 0;
  for (const simdjson::dom::element entry : view.list()) {
    const auto where = [&] { return fmt::format("{}[{}]", view.where(), rank); };
    std::string_view left;
    std::string_view right;
    std::string_view text;
    simdjson::dom::array pair;
    if (entry.get(text) == simdjson::SUCCESS) {
      const std::size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        throw data_error(fmt::format("{}: \"{}\" is not two tokens with a space between them", where(), text),
                         std::string(kHint));
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (entry.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
               pair.at(1).get(right) != simdjson::SUCCESS) {
      throw data_error(fmt::format("{}: neither a string nor a pair of strings", where()), std::string(kHint));
    }
    add_merge(left, right, view.where(), spec);
    ++rank;
  }
}

void read_model(const JsonView& model, TokenizerSpec& spec) {
  // Files of the library's first versions name no type.
  std::string type = model.find("merges") ? "BPE" : "WordPiece";
  if (model.find("type")) type = type_of(model, {"BPE", "WordPiece"});
  read_vocabulary(model.at("vocab"), spec.vocabulary);
  if (type == "BPE") {
    spec.model = TokenizerSpec::Model::kBytePair;
    for (const char* key :
         {"dropout", "byte_fallback", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix"}) {
      require_unset(model, key);
    }
    spec.fuse_unknown = model.boolean_or("fuse_unk", false);
    read_merges(model, spec);
  } else {
    spec.model = TokenizerSpec::Model::kWordPiece;
    spec.continuation_prefix = model.at("continuing_subword_prefix").text();
    const std::int64_t characters = model.at("max_input_chars_per_word").integer();
    if (characters < 0) throw model.error("max_input_chars_per_word must not be negative");
    spec.max_word_characters = static_cast<std::size_t>(characters);
    static_cast<void>(model.at("unk_token"));
  }
  if (const auto unknown = model.find("unk_token")) {
    spec.unknown_id = spec.vocabulary.find(unknown->text());
    if (!spec.unknown_id) throw unknown->error(fmt::format("\"{}\" is not in the vocabulary", unknown->text()));
  }
}

void read_normalizer(const JsonView& root, TokenizerSpec& spec) {
  const auto view = root.find("normalizer");
  if (!view) return;
  const std::string type = type_of(*view, {"BertNormalizer"});
  if (spec.model != TokenizerSpec::Model::kWordPiece) throw unsupported(*view, type + " with BPE");
  BertNormalizerOptions& options = spec.normalizer;
  options.clean_text = view->at("clean_text").boolean();
  options.handle_chinese_chars = view->at("handle_chinese_chars").boolean();
  options.lowercase = view->at("lowercase").boolean();
  options.strip_accents = view->boolean_or("strip_accents", options.lowercase);
}

void read_pre_tokenizer(const JsonView& root, TokenizerSpec& spec) {
  const bool byte_pair = spec.model == TokenizerSpec::Model::kBytePair;
  const JsonView view = root.at("pre_tokenizer");
  const std::string type = type_of(view, {"ByteLevel", "BertPreTokenizer"});
  if ((type == "ByteLevel") != byte_pair) {
    throw unsupported(view, type + (byte_pair ? " with BPE" : " with WordPiece"));
  }
  if (byte_pair) {
    spec.add_prefix_space = view.at("add_prefix_space").boolean();
    spec.use_pattern = view.boolean_or("use_regex", true);
  }
}

void read_added_tokens(const JsonView& root, TokenizerSpec& spec) {
  const auto view = root.find("added_tokens");
  if (!view) return;
  std::size_t index = 0;
  for (const simdjson::dom::element entry : view->list()) {
    const JsonView token(entry, fmt::format("{}[{}]", view->where(), index++));
    add_token(read_added_token(token), token.at("id").integer(), true, token.where(), spec);
  }
}

std::int32_t special_id(const JsonView& view, std::int64_t id, std::string_view content, const TokenizerSpec& spec) {
  const auto known = find_token(spec, content);
  if (!known || *known != id) {
    throw view.error(fmt::format("\"{}\" has id {}, but {}", content, id,
                                 known ? fmt::format("{} elsewhere in the file", *known) : "is not a token"));
  }
  return *known;
}

void read_template(const JsonView& view, TokenizerSpec& spec) {
  bool seen_text = false;
  const JsonView special = view.at("special_tokens");
  const JsonView single = view.at("single");
  for (const simdjson::dom::element entry : single.list()) {
    const JsonView piece(entry, single.where());
    if (const auto sequence = piece.find("Sequence")) {
      if (sequence->at("id").text() != "A" || seen_text) throw single.error("must hold the sequence A once");
      seen_text = true;
      continue;
    }
    const JsonView token = special.at(piece.at("SpecialToken").at("id").text());
    auto& ids = seen_text ? spec.after : spec.before;
    const JsonView names = token.at("tokens");
    const JsonView values = token.at("ids");
    if (names.list().size() != values.list().size()) throw token.error("has as many ids as tokens, or is damaged");
    if (ids.size() + values.list().size() > kMostAround) throw single.error("has too many special tokens");
    auto name = names.list().begin();
    for (const simdjson::dom::element value : values.list()) {
      const std::int64_t id = JsonView(value, values.where()).integer();
      ids.push_back(special_id(values, id, JsonView(*name, names.where()).text(), spec));
      ++name;
    }
  }
  if (!seen_text) throw single.error("must hold the sequence A once");
}

void read_post_processor(const JsonView& root, TokenizerSpec& spec) {
  const auto view = root.find("post_processor");
  if (!view) return;
  const std::string type = type_of(*view, {"ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"});
  if (type == "TemplateProcessing") {
    read_template(*view, spec);
  } else if (type != "ByteLevel") {  // which changes offsets only
    for (const char* key : {"cls", "sep"}) {
      const JsonView pair = view->at(key);
      if (pair.list().size() != 2) throw pair.error("must be a token and its id");
      const JsonView name(pair.list().at(0).value(), pair.where());
      const JsonView value(pair.list().at(1).value(), pair.where());
      auto& ids = std::string_view(key) == "cls" ? spec.before : spec.after;
      ids.push_back(special_id(pair, value.integer(), name.text(), spec));
    }
  }
}

void read_decoder(const JsonView& root, TokenizerSpec& spec) {
  const auto view = root.find("decoder");
  if (!view) return;
  if (type_of(*view, {"ByteLevel", "WordPiece"}) == "ByteLevel") {
    spec.decoder = TokenizerSpec::Decoder::kByteLevel;
  } else {
    spec.decoder = TokenizerSpec::Decoder::kWordPiece;
    spec.decoder_prefix = view->at("prefix").text();
    spec.decoder_cleanup = view->at("cleanup").boolean();
  }
}

}  // namespace

void read_vocabulary(const JsonView& view, Vocabulary& vocabulary) {
  for (const auto& field : view.object()) {
    const auto error = [&](const std::string& reason) {
      return view.error(fmt::format("token \"{}\" {}", field.key, reason));
    };
    std::int64_t id = 0;
    if (field.value.get(id) != simdjson::SUCCESS) throw error("has an id that is not an integer");
    if (id < 0 || id > Vocabulary::kMaxId) throw error(fmt::format("has id {}, out of range", id));
    switch (vocabulary.add(field.key, static_cast<std::int32_t>(id))) {
      case Vocabulary::Added::kDone:
        break;
      case Vocabulary::Added::kTokenRepeats:
        throw error("is there twice");
      case Vocabulary::Added::kIdRepeats:
        throw error(fmt::format("has id {}, as has \"{}\"", id, *vocabulary.token(static_cast<std::int32_t>(id))));
    }
  }
  if (vocabulary.size() == 0) throw view.error("is empty");
}

void add_merge(std::string_view left, std::string_view right, const std::string& where, TokenizerSpec& spec) {
  const auto find = [&](std::string_view token) {
    if (const auto id = spec.vocabulary.find(token)) return *id;
    throw data_error(fmt::format("{}: merge {} (\"{}\" and \"{}\") needs token \"{}\", which is not in the vocabulary",
                                 where, spec.merges.size(), left, right, token),
                     std::string(kHint));
  };
  const std::string merged = std::string(left) + std::string(right);
  spec.merges.push_back({find(left), find(right), find(merged)});
}

AddedToken read_added_token(const JsonView& view) {
  AddedToken token;
  token.content = view.at("content").text();
  token.special = view.boolean_or("special", false);
  token.single_word = view.boolean_or("single_word", false);
  token.lstrip = view.boolean_or("lstrip", false);
  token.rstrip = view.boolean_or("rstrip", false);
  token.normalized = view.boolean_or("normalized", !token.special);
  return token;
}

void add_token(AddedToken token, std::optional<std::int64_t> id, bool once, const std::string& where,
               TokenizerSpec& spec) {
  const auto error = [&](const std::string& reason) {
    return data_error(fmt::format("{}: added token \"{}\" {}", where, token.content, reason), std::string(kHint));
  };
  if (token.content.empty()) throw error("is empty");
  std::int64_t next = static_cast<std::int64_t>(spec.vocabulary.size());
  const AddedToken* known = nullptr;
  for (const AddedToken& other : spec.added_tokens) {
    next = std::max<std::int64_t>(next, other.id + 1);
    if (other.content == token.content) known = &other;
  }
  if (known != nullptr) {
    if (once) throw error("is there twice");
    if (id && *id != known->id) throw error(fmt::format("has id {}, but {} in another file", *id, known->id));
    return;
  }
  const auto in_vocabulary = spec.vocabulary.find(token.content);
  const std::int64_t expected = in_vocabulary ? *in_vocabulary : next;
  if (id && *id != expected) {
    throw error(fmt::format("has id {}, but {} is {}", *id, expected,
                            in_vocabulary ? "its id in the vocabulary" : "the next free id"));
  }
  if (expected > Vocabulary::kMaxId || (!in_vocabulary && spec.vocabulary.token(static_cast<std::int32_t>(expected)))) {
    throw error(fmt::format("would get id {}, which is taken or out of range", expected));
  }
  token.id = static_cast<std::int32_t>(expected);
  spec.added_tokens.push_back(std::move(token));
}

std::optional<std::int32_t> find_token(const TokenizerSpec& spec, std::string_view content) {
  for (const AddedToken& token : spec.added_tokens) {
    if (token.content == content) return token.id;
  }
  return spec.vocabulary.find(content);
}

void read_tokenizer_json(const JsonView& root, TokenizerSpec& spec) {
  if (const auto version = root.find("version"); version && version->text() != "1.0") {
    throw version->error(fmt::format("version \"{}\" is not known, only 1.0", version->text()));
  }
  read_model(root.at("model"), spec);
  read_normalizer(root, spec);
  read_pre_tokenizer(root, spec);
  read_added_tokens(root, spec);
  read_post_processor(root, spec);
  read_decoder(root, spec);
}

}  // namespace dtrain
