// Precompiled: what code that defines modules and autograd functions includes.
#include "pch_tensor.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/module.h>
