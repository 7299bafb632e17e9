/* The helpers of helpers_sse.def. */
#ifndef TRIODE_X86_SSE_HELPERS_H
#define TRIODE_X86_SSE_HELPERS_H

#include "guest/x86/x86_internal.h"

#define X(name, nargs, flags) u64 x86_helper_##name(struct x86_cpu *cpu X86_ARGS_##nargs);
#include "guest/x86/helpers_sse.def"
#undef X

#endif
