// The version of dtrain, for people and for what is built against it. CMakeLists.txt reads it from here.
#pragma once

#define DTRAIN_VERSION "0.1.0"
