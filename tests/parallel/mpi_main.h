// The session of a test program whose ranks are processes.
#pragma once

#include "dist/mpi_session.h"

namespace dtrain::test {

[[nodiscard]] MpiSession& session();

}  // namespace dtrain::test
