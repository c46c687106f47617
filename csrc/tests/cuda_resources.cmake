# The registers of one operator's CUDA kernels, as ptxas reports them: a kernel that a training step runs must not spill
# any to memory. Kernels for problems too large for registers or local memory, and preparations that one thread block
# does once, keep what they need in memory by design.
set(COLD "CayleyPrepareKernel|LaplacianCgPrepareKernel|SolveKernelILi0E|SolveKernelILi[12]ELi0E|Pit[A-Za-z]*KernelILb0E")

execute_process(
  COMMAND ${NVCC} -std=c++20 -O3 -arch=sm_89 -cubin -Xptxas -v -DSEM_BACKEND=cuda -I${SOURCE}/csrc -I${SOURCE}/csrc/include
          ${SOURCE}/csrc/cuda/${OPERATOR}.cu -o ${OUTPUT}/${OPERATOR}.cubin
  OUTPUT_VARIABLE report ERROR_VARIABLE report RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "nvcc failed:\n${report}")
endif()
string(REGEX MATCHALL "Compiling entry function '[^']*'[^\n]*\n[^\n]*\n[^\n]*spill stores[^\n]*\n[^\n]*Used [0-9]+ registers" kernels
       "${report}")
list(LENGTH kernels count)
if(count EQUAL 0)
  message(FATAL_ERROR "no kernel in ptxas' report:\n${report}")
endif()
foreach(kernel IN LISTS kernels)
  string(REGEX MATCH "entry function '([^']*)'" unused "${kernel}")
  set(name "${CMAKE_MATCH_1}")
  string(REGEX MATCH "([0-9]+) bytes spill stores, ([0-9]+) bytes spill loads" unused "${kernel}")
  math(EXPR spilled "${CMAKE_MATCH_1} + ${CMAKE_MATCH_2}")
  string(REGEX MATCH "Used ([0-9]+) registers" unused "${kernel}")
  message(STATUS "${CMAKE_MATCH_1} registers, ${spilled} bytes spilled: ${name}")
  if(spilled GREATER 0 AND NOT name MATCHES "${COLD}")
    message(SEND_ERROR "${name} spills ${spilled} bytes")
  endif()
endforeach()
