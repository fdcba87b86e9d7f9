// A thread beside those that compute: one that loads, or writes.
#pragma once

namespace dtrain {

// To be called first in such a thread: LibTorch's operations in it start no team of threads of their own, which would
// take cores from the training and, at a limit of memory, end the process. Throws std::bad_alloc where there is no
// memory left, before libgomp would end the process for it.
void compute_alone();

}  // namespace dtrain
