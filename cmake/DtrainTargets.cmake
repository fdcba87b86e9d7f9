# The flags of dtrain's own code, and one function each for a layer and for a test program.

add_library(dtrain_flags INTERFACE)
target_compile_options(dtrain_flags INTERFACE
  -fPIC  # for programs too, so that all targets can share the precompiled headers
  -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Werror
  # Clang counts changes of sign and whole numbers that become float among conversions, GCC does not.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-sign-conversion>
  $<$<CXX_COMPILER_ID:Clang>:-Wno-implicit-int-float-conversion>
  # False positives inside LibTorch's and GCC 12's own inlined code.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-error=restrict>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-error=dangling-pointer>
  $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
target_include_directories(dtrain_flags INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
# Tests may take this many times as long.
set(DTRAIN_TEST_SLOWNESS 1)
if(DTRAIN_SANITIZE)
  # Undefined behaviour ends the program too, whatever its environment says. Instrumented code has warnings of its own,
  # most of them wrong: warnings are the affair of the ordinary build.
  target_compile_options(dtrain_flags INTERFACE -fsanitize=${DTRAIN_SANITIZE} -fno-sanitize-recover=all
    -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS -w)
  target_link_options(dtrain_flags INTERFACE -fsanitize=${DTRAIN_SANITIZE})
  set(DTRAIN_TEST_SLOWNESS 10)
endif()

# Libraries of a fuzz build are archives: counters of coverage and reports of sanitizers then see one program.
set(_layer_kind SHARED)
if(DTRAIN_FUZZ STREQUAL "search")
  target_compile_options(dtrain_flags INTERFACE
    -fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(dtrain_flags INTERFACE -fsanitize=address,undefined)
  set(_layer_kind STATIC)
elseif(DTRAIN_FUZZ STREQUAL "coverage")
  target_compile_options(dtrain_flags INTERFACE -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(dtrain_flags INTERFACE -fprofile-instr-generate)
  set(_layer_kind STATIC)
elseif(DTRAIN_FUZZ)
  message(FATAL_ERROR "DTRAIN_FUZZ is search, coverage or empty")
endif()

# The precompiled headers, from light to heavy: `text` for code without tensors, `tensor` for code that handles them,
# `module` for code that defines modules and autograd functions; `test` and `test_tensor` add GoogleTest and are not
# optimised, because tests are compiled more often than they run. Targets name the one they want.
function(dtrain_precompiled_header name)
  cmake_parse_arguments(ARG "" "" "LINKS" ${ARGN})
  add_library(dtrain_pch_${name} OBJECT ${PROJECT_SOURCE_DIR}/cmake/pch.cpp)
  target_link_libraries(dtrain_pch_${name} PRIVATE dtrain_flags fmt::fmt nlohmann_json::nlohmann_json Threads::Threads
    ${ARG_LINKS})
  target_precompile_headers(dtrain_pch_${name} PRIVATE ${PROJECT_SOURCE_DIR}/cmake/pch_${name}.h)
  if(name MATCHES "^test")
    target_compile_options(dtrain_pch_${name} PRIVATE -O0)
  endif()
endfunction()

# dtrain_layer(NAME [PCH text|tensor|module] SOURCES ... LINKS ...): a shared library dtrain_NAME, also known as dtrain::NAME
# here and, installed, to other projects.
function(dtrain_layer name)
  cmake_parse_arguments(ARG "" "PCH" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  add_library(dtrain_${name} ${_layer_kind} ${ARG_SOURCES})
  add_library(dtrain::${name} ALIAS dtrain_${name})
  target_link_libraries(dtrain_${name} PUBLIC ${ARG_LINKS} PRIVATE dtrain_flags ${ARG_PRIVATE_LINKS})
  target_include_directories(dtrain_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/dtrain>)
  # Before 1.0 every minor version may change classes: what was linked with another one must not start.
  set_target_properties(dtrain_${name} PROPERTIES EXPORT_NAME ${name}
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  set_property(GLOBAL APPEND PROPERTY DTRAIN_LAYERS dtrain_${name})
  if(ARG_PCH)
    target_precompile_headers(dtrain_${name} REUSE_FROM dtrain_pch_${ARG_PCH})
  endif()
endfunction()

# What the tests with the label `threads` need.
add_custom_target(thread_tests)

# dtrain_test(NAME [PCH test|test_tensor|module] [RANKS 1 2 4] [LABELS ...] SOURCES ... LINKS ...)
# One GoogleTest program. With RANKS it runs once per number, under mpirun, and its main starts MPI. The label `threads`
# says that it shows something about threads: these tests are what a ThreadSanitizer build runs.
function(dtrain_test name)
  cmake_parse_arguments(ARG "" "PCH;TIMEOUT" "SOURCES;LINKS;RANKS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE dtrain_flags dtrain_test_support ${ARG_LINKS} GTest::gtest GTest::gmock)
  if(ARG_PCH)
    target_precompile_headers(${name} REUSE_FROM dtrain_pch_${ARG_PCH})
  endif()
  if(ARG_PCH MATCHES "^test")
    target_compile_options(${name} PRIVATE -O0)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * ${DTRAIN_TEST_SLOWNESS}")
  set(_report --gtest_brief=1 --gtest_output=json:${PROJECT_BINARY_DIR}/reports/)
  if(ARG_RANKS)
    foreach(ranks ${ARG_RANKS})
      set(_test ${name}_np${ranks})
      add_test(NAME ${_test} COMMAND ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe -np ${ranks}
        $<TARGET_FILE:${name}> --gtest_brief=1)
      set_tests_properties(${_test} PROPERTIES LABELS "${ARG_LABELS}" PROCESSORS 2 TIMEOUT ${ARG_TIMEOUT})
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${name} ${_report} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
  endif()
  if("threads" IN_LIST ARG_LABELS)
    add_dependencies(thread_tests ${name})
  endif()
endfunction()
