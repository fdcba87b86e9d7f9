// TokenStore: tokenised examples in one HDF5 file. Written aside, synced and renamed, so that a store is complete or
// absent.
//
// The file begins with the user block that HDF5 allows before its own data: 512 bytes that hold a digest of everything
// after them. It is checked before the HDF5 library sees the file, so that no damage, wherever it is, reaches that
// library. Data sets: "ids" int32 [tokens], "offsets" int64 [examples + 1], "labels" float64 [labels], "label_offsets"
// int64 [examples + 1]. Attributes of the root, all text: "format", "key" (the digest of everything that decides the
// content), "content" (the digest of the data sets), "source", "tokenizer", "options" and "created" (for people).
//
// A store is not read into memory but mapped: sets larger than memory train, and the ranks of a node share the pages.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace dtrain {

struct TokenTable {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> offsets;        // [examples + 1] into ids, from 0, rising
  std::vector<double> labels;               // of all examples
  std::vector<std::int64_t> label_offsets;  // [examples + 1] into labels, from 0, rising
};

// Where a store comes from.
struct TokenOrigin {
  std::string source;     // digest of the text's bytes
  std::string tokenizer;  // digest of the tokenizer
  std::string options;    // everything else that decides the content, readable

  // Digest of the three, and of the format's version.
  [[nodiscard]] std::string key() const;
};

// Replaces `path` atomically. Throws Error(kIo). Thread-safe, as open_token_store() is: one call at a time uses HDF5.
void write_token_store(const std::filesystem::path& path, const TokenOrigin& origin, const TokenTable& table);

// Throws Error(kData), whose message is the reason alone, when the file is damaged, incomplete or made from another
// origin.
[[nodiscard]] std::shared_ptr<const Dataset> open_token_store(const std::filesystem::path& path,
                                                              const TokenOrigin& origin);

// Deletes what writers of `path` left behind when they were killed: files aside of processes of this machine that are
// gone.
void remove_stale_writes(const std::filesystem::path& path);

}  // namespace dtrain
