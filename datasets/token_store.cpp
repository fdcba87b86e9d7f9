#include "datasets/token_store.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <mutex>
#include <span>

#include <fmt/chrono.h>
#include <hdf5.h>
#include <unistd.h>

#include "core/digest.h"
#include "core/error.h"
#include "core/file.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFormatVersion = "1";
constexpr std::size_t kUserBlock = 512;  // the smallest that HDF5 looks behind
constexpr std::string_view kMagic = "dtrain token store ";

// The HDF5 library of Debian may be built without its own lock.
std::mutex hdf5_mutex;

herr_t keep_description(unsigned /*depth*/, const H5E_error2_t* entry, void* reason) {
  if (entry->desc != nullptr) *static_cast<std::string*>(reason) = entry->desc;
  return 0;
}

// The innermost entry of HDF5's error stack, which it would otherwise print.
std::string hdf5_reason() {
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_description, &reason);
  return reason.empty() ? "no reason given" : reason;
}

void require(bool fine, std::string_view what) {
  if (!fine) throw data_error(fmt::format("HDF5 cannot read or write {}: {}", what, hdf5_reason()));
}

// An HDF5 identifier with the function that closes it.
class Handle {
 public:
  Handle(hid_t id, herr_t (*closer)(hid_t), std::string_view what) : id_(id), closer_(closer) {
    require(id_ >= 0, what);
  }
  ~Handle() { closer_(id_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  [[nodiscard]] hid_t get() const { return id_; }

 private:
  hid_t id_;
  herr_t (*closer_)(hid_t);
};

template <class T>
std::string_view bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string content_digest(const TokenTable& table) {
  Digest digest;
  digest.add(fmt::format("{} {} {} ", table.ids.size(), table.offsets.size(), table.label_width));
  return digest.add(bytes_of(table.ids)).add(bytes_of(table.offsets)).add(bytes_of(table.labels)).hex();
}

template <class T>
void write_array(const Handle& file, const char* name, const std::vector<T>& values, const std::vector<hsize_t>& shape,
                 hid_t stored, hid_t memory) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose, name);
  const Handle array(H5Dcreate2(file.get(), name, stored, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
                     name);
  if (!values.empty()) require(H5Dwrite(array.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0, name);
}

template <class T>
std::vector<hsize_t> read_array(const Handle& file, const char* name, std::size_t rank, H5T_class_t type_class,
                                hid_t memory, std::uint64_t file_size, std::vector<T>& values) {
  const Handle array(H5Dopen2(file.get(), name, H5P_DEFAULT), H5Dclose, name);
  const Handle type(H5Dget_type(array.get()), H5Tclose, name);
  const Handle space(H5Dget_space(array.get()), H5Sclose, name);
  if (H5Tget_class(type.get()) != type_class || H5Tget_size(type.get()) != sizeof(T) ||
      H5Sget_simple_extent_ndims(space.get()) != static_cast<int>(rank)) {
    throw data_error(fmt::format("data set {} has another type or rank", name));
  }
  std::vector<hsize_t> shape(rank);
  require(H5Sget_simple_extent_dims(space.get(), shape.data(), nullptr) >= 0, name);
  hsize_t count = 1;
  for (const hsize_t extent : shape) {
    if (extent > file_size || count * extent > file_size)
      throw data_error(fmt::format("data set {} is larger than the file", name));
    count *= extent;
  }
  values.resize(count);
  if (count > 0) require(H5Dread(array.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0, name);
  return shape;
}

void write_text(const Handle& file, const char* name, std::string_view text) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, name);
  require(H5Tset_size(type.get(), text.size()) >= 0, name);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, name);
  const Handle attribute(H5Acreate2(file.get(), name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                         name);
  require(H5Awrite(attribute.get(), type.get(), text.data()) >= 0, name);
}

std::string read_text(const Handle& file, const char* name) {
  const Handle attribute(H5Aopen(file.get(), name, H5P_DEFAULT), H5Aclose, name);
  const Handle type(H5Aget_type(attribute.get()), H5Tclose, name);
  const Handle space(H5Aget_space(attribute.get()), H5Sclose, name);
  const std::size_t size = H5Tget_size(type.get());
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 || size == 0 || size > (1U << 20) ||
      H5Sget_simple_extent_npoints(space.get()) != 1) {
    throw data_error(fmt::format("attribute {} is not a text", name));
  }
  std::string text(size, '\0');
  require(H5Aread(attribute.get(), type.get(), text.data()) >= 0, name);
  return text;
}

// The file as HDF5 would write it, made in memory: the library's own writing does not survive a full disk.
std::string make_image(const TokenOrigin& origin, const TokenTable& table) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "a property list");
  constexpr std::size_t kGrowth = std::size_t{1} << 24;
  require(H5Pset_fapl_core(access.get(), kGrowth, /*backing_store=*/0) >= 0, "a property list");
  // With the core driver and without a backing store the name only shows up in messages.
  const Handle file(H5Fcreate("token store", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose, "the file");
  const hsize_t examples = table.offsets.size() - 1;
  write_array(file, "ids", table.ids, {table.ids.size()}, H5T_STD_I32LE, H5T_NATIVE_INT32);
  write_array(file, "offsets", table.offsets, {table.offsets.size()}, H5T_STD_I64LE, H5T_NATIVE_INT64);
  write_array(file, "labels", table.labels, {examples, static_cast<hsize_t>(table.label_width)}, H5T_IEEE_F64LE,
              H5T_NATIVE_DOUBLE);
  write_text(file, "format", kFormatVersion);
  write_text(file, "key", origin.key());
  write_text(file, "content", content_digest(table));
  write_text(file, "source", origin.source);
  write_text(file, "tokenizer", origin.tokenizer);
  write_text(file, "options", origin.options);
  write_text(file, "created",
             fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                         fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()))));
  require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, "the file");
  const ssize_t size = H5Fget_file_image(file.get(), nullptr, 0);
  require(size > 0, "the file");
  std::string image(static_cast<std::size_t>(size), '\0');
  require(H5Fget_file_image(file.get(), image.data(), image.size()) == size, "the file");
  return image;
}

std::string make_user_block(std::string_view image) {
  std::string block = fmt::format("{}{}: {} bytes follow this block, digest {}\n", kMagic, kFormatVersion, image.size(),
                                  digest_of(image));
  block.resize(kUserBlock, '\0');
  return block;
}

// "name.host.pid": processes of other machines may write into the same folder.
std::string write_prefix(const fs::path& path) {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  return fmt::format(".{}.{}.", path.filename().string(), host);
}

class StoredDataset : public Dataset {
 public:
  StoredDataset(TokenTable table, std::string digest) : table_(std::move(table)), digest_(std::move(digest)) {}

  [[nodiscard]] std::int64_t size() const override { return static_cast<std::int64_t>(table_.offsets.size()) - 1; }
  [[nodiscard]] Example get(std::int64_t index) const override {
    DTRAIN_CHECK(index >= 0 && index < size(), "example {} of {}", index, size());
    const auto i = static_cast<std::size_t>(index);
    const auto begin = static_cast<std::size_t>(table_.offsets[i]);
    const auto end = static_cast<std::size_t>(table_.offsets[i + 1]);
    const auto width = static_cast<std::size_t>(table_.label_width);
    return {std::span(table_.ids).subspan(begin, end - begin), std::span(table_.labels).subspan(i * width, width)};
  }
  [[nodiscard]] std::string digest() const override { return digest_; }

 private:
  TokenTable table_;
  std::string digest_;
};

// The size of the file, whose bytes are all as they were written.
std::uint64_t check_user_block(const fs::path& path) {
  const MappedFile mapped(path);
  const std::string_view bytes = mapped.text();
  if (bytes.size() <= kUserBlock) throw data_error("it is cut off");
  if (!bytes.starts_with(kMagic)) throw data_error("it is not a token store of dtrain");
  if (bytes.substr(0, kUserBlock) != make_user_block(bytes.substr(kUserBlock))) {
    throw data_error("its bytes do not have the recorded digest: it is damaged");
  }
  return bytes.size();
}

}  // namespace

std::string TokenOrigin::key() const {
  return digest_of(fmt::format("{}\n{}\n{}\n{}", kFormatVersion, source, tokenizer, options));
}

void write_token_store(const fs::path& path, const TokenOrigin& origin, const TokenTable& table) {
  std::string image;
  try {
    const std::lock_guard lock(hdf5_mutex);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    image = make_image(origin, table);
  } catch (const Error& error) {
    throw io_error(fmt::format("cannot make the token store {}: {}", path.string(), error.what()));
  }
  const fs::path aside = path.parent_path() / fmt::format("{}{}.tmp", write_prefix(path), ::getpid());
  try {
    OutputFile file(aside, OutputFile::Mode::kTruncate);
    file.write(make_user_block(image));
    file.write(image);
    file.sync();
    file.close();
    rename_synced(aside, path);
  } catch (const Error& error) {
    ::unlink(aside.c_str());
    throw Error(error.code(), fmt::format("token store: {}", error.what()),
                "free space for data.cache_dir, or set it to another folder");
  }
}

std::shared_ptr<const Dataset> open_token_store(const fs::path& path, const TokenOrigin& origin) {
  const std::uint64_t file_size = check_user_block(path);
  const std::lock_guard lock(hdf5_mutex);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "a property list");
  // Locks fail on some network file systems; a published file never changes, so it needs none.
  require(H5Pset_file_locking(access.get(), /*use=*/false, /*ignore_when_disabled=*/true) >= 0, "a property list");
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, "the file");
  if (read_text(file, "format") != kFormatVersion) throw data_error("it has another format version");
  if (read_text(file, "source") != origin.source) throw data_error("it was made from another text");
  if (read_text(file, "tokenizer") != origin.tokenizer) throw data_error("it was made with another tokenizer");
  if (read_text(file, "key") != origin.key()) throw data_error("it was made with other settings");
  TokenTable table;
  read_array(file, "ids", 1, H5T_INTEGER, H5T_NATIVE_INT32, file_size, table.ids);
  read_array(file, "offsets", 1, H5T_INTEGER, H5T_NATIVE_INT64, file_size, table.offsets);
  const auto shape = read_array(file, "labels", 2, H5T_FLOAT, H5T_NATIVE_DOUBLE, file_size, table.labels);
  table.label_width = static_cast<std::int64_t>(shape[1]);
  if (table.offsets.size() < 2 || table.offsets.front() != 0 ||
      table.offsets.back() != static_cast<std::int64_t>(table.ids.size()) ||
      !std::is_sorted(table.offsets.begin(), table.offsets.end()) || shape[0] != table.offsets.size() - 1 ||
      shape[1] == 0) {
    throw data_error("its offsets contradict its data");
  }
  const std::string content = content_digest(table);
  if (read_text(file, "content") != content) throw data_error("its content does not have the recorded digest");
  return std::make_shared<StoredDataset>(std::move(table), content);
}

void remove_stale_writes(const fs::path& path) {
  const std::string prefix = write_prefix(path);
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(path.parent_path(), code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(".tmp")) continue;
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data() + prefix.size(), name.data() + name.size() - 4, pid);
    if (error != std::errc() || end != name.data() + name.size() - 4 || pid <= 0) continue;
    if (pid == ::getpid() || (::kill(pid, 0) != 0 && errno == ESRCH)) fs::remove(entry.path(), code);
  }
}

}  // namespace dtrain
