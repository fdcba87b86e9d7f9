// What the MPI files share: the header, and errors of MPI as Error.
#pragma once

#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <string>

#include "core/error.h"

namespace dtrain {

// Throws Error(kInternal) with MPI's own text unless `result` is MPI_SUCCESS.
inline void check_mpi(int result, const std::string& call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw Error(ExitCode::kInternal,
              fmt::format("MPI failed in {}: {}", call, std::string_view(text, static_cast<std::size_t>(length))),
              "check the network between the nodes; `dtrain doctor` under the same mpirun tests it");
}

}  // namespace dtrain
