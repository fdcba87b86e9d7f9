// Precompiled: what tests that handle tensors include.
#include "pch_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
