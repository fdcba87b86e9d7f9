// The GPU side of trainer/kernels/dropout.h, compiled by nvcc into libdtrain_cuda.so.
#pragma once

#include "trainer/kernels/dropout.h"

namespace dtrain {

// A DeviceDropout: started on the current stream, not waited for.
void dropout_on_cuda(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output,
                     const DropoutSpec& spec);

}  // namespace dtrain
