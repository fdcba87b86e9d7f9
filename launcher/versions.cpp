#include "launcher/versions.h"

#include <bit>
#include <cerrno>
#include <cstring>
#include <set>

#include <elf.h>
#include <link.h>

#include <fmt/format.h>
#define OMPI_SKIP_MPICXX 1  // the C interface is enough
#include <mpi.h>
#include <torch/headeronly/version.h>

#include "core/digest.h"
#include "core/version.h"

namespace dtrain {
namespace {

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown";
  // Open MPI says "Open MPI v4.1.4, package: ..., ident: ..."; the first part names the version.
  const std::string version(text, static_cast<std::size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> versions() {
  return {{"dtrain", DTRAIN_VERSION},
          {"compiler",
           fmt::format("{}, {}-endian", __VERSION__, std::endian::native == std::endian::little ? "little" : "big")},
          {"LibTorch", TORCH_VERSION},
          {"MPI", mpi_version()}};
}

std::string build_id(std::string_view name) {
  struct Search {
    std::string_view name;
    std::set<std::string> ids;  // of objects, whose order differs with the loader
  } search{name, {}};
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t /*size*/, void* data) {
        auto& found = *static_cast<Search*>(data);
        // The program itself has no name here.
        const std::string path = object->dlpi_name[0] != '\0' ? object->dlpi_name : program_invocation_short_name;
        if (path.substr(path.rfind('/') + 1).find(found.name) == std::string::npos) return 0;
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const ElfW(Phdr)& segment = object->dlpi_phdr[i];
          if (segment.p_type != PT_NOTE) continue;
          const auto* bytes = reinterpret_cast<const char*>(object->dlpi_addr + segment.p_vaddr);
          // Notes: header, name and content, each padded to 4 bytes.
          for (std::size_t at = 0; at + sizeof(ElfW(Nhdr)) <= segment.p_memsz;) {
            ElfW(Nhdr) note;
            std::memcpy(&note, bytes + at, sizeof note);
            const std::size_t content = at + sizeof note + (note.n_namesz + 3) / 4 * 4;
            if (content + note.n_descsz > segment.p_memsz) break;
            if (note.n_type == NT_GNU_BUILD_ID) found.ids.emplace(bytes + content, note.n_descsz);
            at = content + (note.n_descsz + 3) / 4 * 4;
          }
        }
        return 0;
      },
      &search);
  if (search.ids.empty()) return "";
  Digest digest;
  for (const std::string& id : search.ids) digest.add(id);
  return digest.hex();
}

std::string version_text() {
  std::string text;
  for (const auto& [name, version] : versions()) text += fmt::format("{} {}\n", name, version);
  return text;
}

}  // namespace dtrain
