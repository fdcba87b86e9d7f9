// Precompiled: what code that handles tensors includes.
#include "pch_text.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
