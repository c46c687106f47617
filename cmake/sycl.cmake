# Whether there is a SYCL back end, SEM_HAS_SYCL, and how its kernels are compiled.
#
# icpx compiles the kernels ahead of time. Any other compiler builds the host side alone, against the headers and
# libraries of the package intel-sycl-rt, and SYCL compiles the kernels for the user's device at their first use.
set(SEM_HAS_SYCL OFF)
if(SEM_SYCL STREQUAL "OFF")
  return()
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "IntelLLVM")
  set(SEM_HAS_SYCL ON)
  set(SEM_SYCL_LIBRARIES "")
  message(STATUS "SYCL: kernels compiled ahead of time by ${CMAKE_CXX_COMPILER}")
else()
  # The package's files lie in the environment's prefix, beside Python's own.
  if(NOT SEM_SYCL_ROOT)
    find_package(Python COMPONENTS Interpreter QUIET)
    execute_process(COMMAND "${Python_EXECUTABLE}" -c "import sys; print(sys.prefix)"
                    OUTPUT_VARIABLE SEM_SYCL_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_path(SEM_SYCL_HEADERS sycl/sycl.hpp PATHS "${SEM_SYCL_ROOT}/include" NO_DEFAULT_PATH NO_CACHE)
  find_library(SEM_SYCL_LIBRARY sycl PATHS "${SEM_SYCL_ROOT}/lib" NO_DEFAULT_PATH NO_CACHE)
  if(SEM_SYCL_HEADERS AND SEM_SYCL_LIBRARY)
    set(SEM_HAS_SYCL ON)
    set(SEM_SYCL_LIBRARIES "${SEM_SYCL_ROOT}/lib")
    message(STATUS "SYCL: kernels compiled at run time by ${SEM_SYCL_LIBRARY}")
  elseif(SEM_SYCL STREQUAL "ON")
    message(FATAL_ERROR "SEM_SYCL=ON needs icpx, or the package intel-sycl-rt in ${SEM_SYCL_ROOT} (pip install "
                        "intel-sycl-rt, in the version that this environment's torch asks for; another place is "
                        "named with -DSEM_SYCL_ROOT=...). Neither was found.")
  else()
    return()
  endif()
endif()
