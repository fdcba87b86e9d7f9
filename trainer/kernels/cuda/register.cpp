// Hands the GPU kernels to the library that calls them, when libdtrain_cuda.so is loaded.
#include "trainer/kernels/cuda/dropout.h"

namespace dtrain {
namespace {

const bool kRegistered = [] {
  set_cuda_dropout(&dropout_on_cuda);
  return true;
}();

}  // namespace
}  // namespace dtrain
