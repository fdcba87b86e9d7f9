# FindLibTorch: LibTorch without Torch's own package, which demands a CUDA toolkit wherever the wheel was built with one.
#
# Looks in CMAKE_PREFIX_PATH (a LibTorch folder, or a `torch` folder of the Python package), then in .deps/libtorch/torch and
# in LibTorch_HINT, where an installed dtrain says which LibTorch it was built with.
# Targets:
#   LibTorch::torch        headers, libtorch_cpu, libc10
#   LibTorch::torch_cuda   the above plus libtorch_cuda, libc10_cuda (only when those libraries are there)
# Variables: LibTorch_VERSION, LibTorch_ROOT_DIR
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h
  PATHS ${PROJECT_SOURCE_DIR}/.deps/libtorch/torch ${LibTorch_HINT}
  PATH_SUFFIXES include NO_CMAKE_SYSTEM_PATH)
if(LibTorch_INCLUDE_DIR)
  get_filename_component(LibTorch_ROOT_DIR ${LibTorch_INCLUDE_DIR} DIRECTORY)
  file(REAL_PATH ${LibTorch_ROOT_DIR} LibTorch_ROOT_DIR)
  set(_version_file ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
  if(NOT EXISTS ${_version_file})
    set(_version_file ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h)
  endif()
  file(STRINGS ${_version_file} _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
  foreach(_part MAJOR MINOR PATCH)
    string(REGEX MATCH "TORCH_VERSION_${_part} ([0-9]+)" _ "${_lines}")
    set(_${_part} ${CMAKE_MATCH_1})
  endforeach()
  set(LibTorch_VERSION ${_MAJOR}.${_MINOR}.${_PATCH})
endif()
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS ${LibTorch_ROOT_DIR}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 PATHS ${LibTorch_ROOT_DIR}/lib NO_DEFAULT_PATH)
find_library(LibTorch_CUDA_LIBRARY torch_cuda PATHS ${LibTorch_ROOT_DIR}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda PATHS ${LibTorch_ROOT_DIR}/lib NO_DEFAULT_PATH)
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_CUDA_LIBRARY
  LibTorch_C10_CUDA_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "run ./dev build, which fetches LibTorch, or give a folder with CMAKE_PREFIX_PATH")

if(LibTorch_FOUND AND NOT TARGET LibTorch::torch)
  add_library(LibTorch::torch INTERFACE IMPORTED)
  # -idirafter: the wheel's include folder carries its own fmt, which must not hide the system's.
  target_compile_options(LibTorch::torch INTERFACE
    "SHELL:-idirafter ${LibTorch_ROOT_DIR}/include"
    "SHELL:-idirafter ${LibTorch_ROOT_DIR}/include/torch/csrc/api/include")
  # The CPU library of the wheel depends on two small CUDA libraries, which sit beside it in the package folder.
  set(_rpath ${LibTorch_ROOT_DIR}/lib)
  file(GLOB _nvidia ${LibTorch_ROOT_DIR}/../nvidia/*/lib)
  list(APPEND _rpath ${_nvidia})
  list(TRANSFORM _rpath PREPEND "LINKER:-rpath," OUTPUT_VARIABLE _rpath_options)
  target_link_options(LibTorch::torch INTERFACE ${_rpath_options} LINKER:--allow-shlib-undefined)
  target_link_libraries(LibTorch::torch INTERFACE ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  if(LibTorch_CUDA_LIBRARY AND LibTorch_C10_CUDA_LIBRARY)
    add_library(LibTorch::torch_cuda INTERFACE IMPORTED)
    # --no-as-needed: the CUDA kernels register themselves when the library is loaded; nothing else refers to it.
    target_link_libraries(LibTorch::torch_cuda INTERFACE LibTorch::torch
      "-Wl,--push-state,--no-as-needed" ${LibTorch_CUDA_LIBRARY} ${LibTorch_C10_CUDA_LIBRARY} "-Wl,--pop-state")
  endif()
endif()
