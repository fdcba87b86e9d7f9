# FindArrowParquet: Apache Arrow's reader of Parquet files: an installed Arrow (its packages Arrow and Parquet), else the libraries and
# headers in the Python package pyarrow (.deps/arrow, which ./dev fetches; ArrowParquet_ROOT names another folder with it).
#
# Targets:
#   ArrowParquet::parquet   headers, libparquet, libarrow
# Variables: ArrowParquet_LIBRARY, ArrowParquet_VERSION
find_package(Arrow CONFIG QUIET)
find_package(Parquet CONFIG QUIET)
include(FindPackageHandleStandardArgs)
if(TARGET Parquet::parquet_shared)
  set(ArrowParquet_LIBRARY Parquet::parquet_shared)
  set(ArrowParquet_VERSION ${ARROW_VERSION})
  find_package_handle_standard_args(ArrowParquet REQUIRED_VARS ArrowParquet_LIBRARY VERSION_VAR ArrowParquet_VERSION)
  if(NOT TARGET ArrowParquet::parquet)
    add_library(ArrowParquet::parquet INTERFACE IMPORTED)
    target_link_libraries(ArrowParquet::parquet INTERFACE Parquet::parquet_shared)
  endif()
else()
  find_path(ArrowParquet_INCLUDE_DIR parquet/arrow/reader.h
    PATHS ${PROJECT_SOURCE_DIR}/.deps/arrow/pyarrow PATH_SUFFIXES include pyarrow/include)
  # The wheel has its libraries under their versioned names only, which find_library() does not look for.
  get_filename_component(_folder "${ArrowParquet_INCLUDE_DIR}" DIRECTORY)
  file(GLOB _parquet ${_folder}/libparquet.so.*)
  file(GLOB _arrow ${_folder}/libarrow.so.*)
  list(LENGTH _parquet _parquets)
  list(LENGTH _arrow _arrows)
  unset(ArrowParquet_LIBRARY)
  if(ArrowParquet_INCLUDE_DIR AND _parquets EQUAL 1 AND _arrows EQUAL 1)
    set(ArrowParquet_LIBRARY ${_parquet})
    file(STRINGS ${ArrowParquet_INCLUDE_DIR}/arrow/util/config.h _line REGEX "define ARROW_VERSION_STRING")
    string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" ArrowParquet_VERSION "${_line}")
  endif()
  mark_as_advanced(ArrowParquet_INCLUDE_DIR)
  find_package_handle_standard_args(ArrowParquet
    REQUIRED_VARS ArrowParquet_LIBRARY ArrowParquet_INCLUDE_DIR
    VERSION_VAR ArrowParquet_VERSION
    REASON_FAILURE_MESSAGE "install Apache Arrow with Parquet, run ./dev build, which fetches both, or build with -DDTRAIN_PARQUET=OFF")
  if(ArrowParquet_FOUND AND NOT TARGET ArrowParquet::parquet)
    add_library(ArrowParquet::arrow SHARED IMPORTED)
    set_target_properties(ArrowParquet::arrow PROPERTIES
      IMPORTED_LOCATION ${_arrow} INTERFACE_INCLUDE_DIRECTORIES ${ArrowParquet_INCLUDE_DIR})
    add_library(ArrowParquet::parquet SHARED IMPORTED)
    set_target_properties(ArrowParquet::parquet PROPERTIES
      IMPORTED_LOCATION ${_parquet} INTERFACE_INCLUDE_DIRECTORIES ${ArrowParquet_INCLUDE_DIR}
      INTERFACE_LINK_LIBRARIES ArrowParquet::arrow)
  endif()
endif()
