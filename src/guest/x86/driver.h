/* Between the driver of lifting and the lift functions of the general-purpose instructions. */
#ifndef TRIODE_X86_DRIVER_H
#define TRIODE_X86_DRIVER_H

#include "guest/x86/lift.h"

/* guest_ops.lift. */
int x86_lift(struct guest_lift *lift);

/* The RIP cut to the operand size; #GP(0) if it lies beyond the limit of CS. */
ir_ref lift_check_rip(struct x86_lift *l, ir_ref rip);

/* Executes this instruction again (a string instruction with work left) if @cond; otherwise the
 * unit goes on, or with TF set is left. */
void lift_again_if(struct x86_lift *l, ir_ref cond);

#endif
