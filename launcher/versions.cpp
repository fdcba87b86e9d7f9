#include "launcher/versions.h"

#include <bit>

#include <fmt/format.h>
#define OMPI_SKIP_MPICXX 1  // the C interface is enough
#include <mpi.h>
#include <torch/headeronly/version.h>

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

std::string version_text() {
  std::string text;
  for (const auto& [name, version] : versions()) text += fmt::format("{} {}\n", name, version);
  return text;
}

}  // namespace dtrain
