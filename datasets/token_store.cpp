#include "datasets/token_store.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstddef>
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

constexpr std::string_view kFormatVersion = "2";
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

// The data sets of a store, wherever they are.
struct TokenView {
  std::span<const std::int32_t> ids;
  std::span<const std::int64_t> offsets;
  std::span<const double> labels;
  std::span<const std::int64_t> label_offsets;
};

template <class T>
std::string_view bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string content_digest(const TokenView& view) {
  Digest digest;
  digest.add(fmt::format("{} {} {} ", view.ids.size(), view.offsets.size(), view.labels.size()));
  return digest.add(bytes_of(view.ids))
      .add(bytes_of(view.offsets))
      .add(bytes_of(view.labels))
      .add(bytes_of(view.label_offsets))
      .hex();
}

template <class T>
void write_array(const Handle& file, const char* name, const std::vector<T>& values, const std::vector<hsize_t>& shape,
                 hid_t stored, hid_t memory) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose, name);
  const Handle array(H5Dcreate2(file.get(), name, stored, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
                     name);
  if (!values.empty()) require(H5Dwrite(array.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0, name);
}

// The array as it lies in the file: `mapped` is the whole file. Arrays are contiguous and little-endian, as the
// machines are that LibTorch runs on.
template <class T>
std::span<const T> map_array(const Handle& file, const char* name, H5T_class_t type_class, std::string_view mapped) {
  const Handle array(H5Dopen2(file.get(), name, H5P_DEFAULT), H5Dclose, name);
  const Handle type(H5Dget_type(array.get()), H5Tclose, name);
  const Handle space(H5Dget_space(array.get()), H5Sclose, name);
  if (H5Tget_class(type.get()) != type_class || H5Tget_size(type.get()) != sizeof(T) ||
      H5Tget_order(type.get()) != H5T_ORDER_LE || H5Sget_simple_extent_ndims(space.get()) != 1) {
    throw data_error(fmt::format("data set {} has another type or rank", name));
  }
  hsize_t count = 0;
  require(H5Sget_simple_extent_dims(space.get(), &count, nullptr) >= 0, name);
  if (count == 0) return {};
  const haddr_t offset = H5Dget_offset(array.get());
  if (offset == HADDR_UNDEF || offset % sizeof(T) != 0 || offset > mapped.size() ||
      count > (mapped.size() - offset) / sizeof(T)) {
    throw data_error(fmt::format("data set {} is not where a store has it", name));
  }
  return {reinterpret_cast<const T*>(mapped.data() + offset), static_cast<std::size_t>(count)};
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
  // Arrays are used where they lie in the mapped file.
  require(H5Pset_alignment(access.get(), 1, alignof(std::max_align_t)) >= 0, "a property list");
  // With the core driver and without a backing store the name only shows up in messages.
  const Handle file(H5Fcreate("token store", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose, "the file");
  write_array(file, "ids", table.ids, {table.ids.size()}, H5T_STD_I32LE, H5T_NATIVE_INT32);
  write_array(file, "offsets", table.offsets, {table.offsets.size()}, H5T_STD_I64LE, H5T_NATIVE_INT64);
  write_array(file, "labels", table.labels, {table.labels.size()}, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE);
  write_array(file, "label_offsets", table.label_offsets, {table.label_offsets.size()}, H5T_STD_I64LE,
              H5T_NATIVE_INT64);
  write_text(file, "format", kFormatVersion);
  write_text(file, "key", origin.key());
  write_text(file, "content", content_digest({table.ids, table.offsets, table.labels, table.label_offsets}));
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
  StoredDataset(std::unique_ptr<const MappedFile> file, const TokenView& view, std::string digest)
      : file_(std::move(file)), view_(view), digest_(std::move(digest)) {}

  [[nodiscard]] std::int64_t size() const override { return static_cast<std::int64_t>(view_.offsets.size()) - 1; }
  [[nodiscard]] Example get(std::int64_t index) const override {
    DTRAIN_CHECK(index >= 0 && index < size(), "example {} of {}", index, size());
    const auto i = static_cast<std::size_t>(index);
    return {part(view_.ids, view_.offsets, i), part(view_.labels, view_.label_offsets, i)};
  }
  [[nodiscard]] std::string digest() const override { return digest_; }

 private:
  template <class T>
  static std::span<const T> part(std::span<const T> whole, std::span<const std::int64_t> offsets, std::size_t i) {
    return whole.subspan(static_cast<std::size_t>(offsets[i]), static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
  }

  std::unique_ptr<const MappedFile> file_;
  TokenView view_;
  std::string digest_;
};

// The file, whose bytes are all as they were written.
std::unique_ptr<const MappedFile> map_intact(const fs::path& path) {
  auto mapped = std::make_unique<MappedFile>(path);
  const std::string_view bytes = mapped->text();
  if (bytes.size() <= kUserBlock) throw data_error("it is cut off");
  if (!bytes.starts_with(kMagic)) throw data_error("it is not a token store of dtrain");
  if (bytes.substr(0, kUserBlock) != make_user_block(bytes.substr(kUserBlock))) {
    throw data_error("its bytes do not have the recorded digest: it is damaged");
  }
  return mapped;
}

bool are_offsets(std::span<const std::int64_t> offsets, std::size_t end) {
  return offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == static_cast<std::int64_t>(end) &&
         std::is_sorted(offsets.begin(), offsets.end());
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
  auto mapped = map_intact(path);
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
  const TokenView view = {map_array<std::int32_t>(file, "ids", H5T_INTEGER, mapped->text()),
                          map_array<std::int64_t>(file, "offsets", H5T_INTEGER, mapped->text()),
                          map_array<double>(file, "labels", H5T_FLOAT, mapped->text()),
                          map_array<std::int64_t>(file, "label_offsets", H5T_INTEGER, mapped->text())};
  if (!are_offsets(view.offsets, view.ids.size()) || !are_offsets(view.label_offsets, view.labels.size()) ||
      view.offsets.size() != view.label_offsets.size()) {
    throw data_error("its offsets contradict its data");
  }
  const std::string content = content_digest(view);
  if (read_text(file, "content") != content) throw data_error("its content does not have the recorded digest");
  return std::make_shared<StoredDataset>(std::move(mapped), view, content);
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
