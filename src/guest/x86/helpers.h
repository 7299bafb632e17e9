/* Declarations of all helpers, from their rows. */
#ifndef TRIODE_X86_HELPERS_H
#define TRIODE_X86_HELPERS_H

#include "guest/x86/state.h"

#define X86_HELPER_ARGS_0 struct x86_cpu *
#define X86_HELPER_ARGS_1 struct x86_cpu *, u64
#define X86_HELPER_ARGS_2 struct x86_cpu *, u64, u64
#define X86_HELPER_ARGS_3 struct x86_cpu *, u64, u64, u64
#define X86_HELPER_ARGS_4 struct x86_cpu *, u64, u64, u64, u64
#define X(name, nargs, flags) u64 x86_helper_##name(X86_HELPER_ARGS_##nargs);
#include "guest/x86/all_helpers.def"
#undef X

#endif
