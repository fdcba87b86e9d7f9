#include "datasets/lone_thread.h"

#include <vector>

#include <omp.h>

namespace dtrain {

void compute_alone() {
  // What libgomp needs for the thread it finds in the memory that this gives back.
  { const std::vector<char> probe(1 << 12); }
  ::omp_set_num_threads(1);  // of this thread
}

}  // namespace dtrain
