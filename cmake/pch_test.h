// Precompiled: what tests without tensors include.
#include "pch_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
