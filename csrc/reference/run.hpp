// What every reference ends with.
#pragma once

#include "sem/types.hpp"

// Makes `kernel`, a template on the precision, the serial truth of Args.
#define SEM_REFERENCE(Args, kernel)    \
  template <>                          \
  void run(const Args<float>& args) {  \
    kernel(args);                      \
  }                                    \
  template <>                          \
  void run(const Args<double>& args) { \
    kernel(args);                      \
  }
