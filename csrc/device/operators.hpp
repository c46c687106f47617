// Every operator's launches, once for all back ends: each in the header of the operator's name.
//
// A Launcher belongs to a back end and knows the caller's stream or queue:
//
//   Limits limits() const;                                       of the device
//   void operator()(kernel, groups, group_size, local_floats);   enqueues kernel(group) for every group; none if there
//                                                                are none
//
// A kernel is a trivially copyable struct called with a Group (group.hpp) of kMostThreads at most.
//
// For each struct of arguments in sem/operators.hpp that devices have a kernel for:
//
//   std::int64_t floats(args, limits);       of the caller's workspace
//   void run(args, workspace, launch);
#pragma once

#include "device/cayley.hpp"
#include "device/diffraction.hpp"
#include "device/exit_waves.hpp"
#include "device/far_residual.hpp"
#include "device/laplacian_cg.hpp"
#include "device/laplacian_matvec.hpp"
#include "device/pit.hpp"
#include "device/scan.hpp"
#include "device/shift_ramp.hpp"
#include "device/soliton_step.hpp"
