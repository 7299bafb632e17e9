/* Between the driver of lifting and the lift functions of the general-purpose instructions. */
#ifndef TRIODE_X86_DRIVER_H
#define TRIODE_X86_DRIVER_H

#include "guest/x86/lift.h"

/* guest_ops.lift. */
int x86_lift(struct guest_lift *lift);

/* X86_FEATURE_* of those in X86_FEATURES_V2 that a decoded instruction belongs to, or 0. */
u64 x86_extension(const struct x86_insn *in);

/* The RIP cut to the operand size; #GP(0) if it lies beyond the limit of CS. In 64-bit code what is
 * not canonical is found by x86_jumped, once no translation is found for it, which undoes the jump;
 * @canonical: it must be found here, because there is more than that to undo. */
ir_ref lift_check_rip(struct x86_lift *l, ir_ref rip, bool canonical);

/* The RIP of a branch to @offset if @cond (i1), cut to the operand size, with the checks it needs
 * where the branch is not taken back later: for branches that change registers, before they do. */
ir_ref lift_check_branch(struct x86_lift *l, ir_ref cond, s64 offset);

/* Ends the block of a stepping mode, lip being the next instruction's: with the debug traps that
 * are due. @tf (i64): not 0 if TF traps; RF stays if it is set for that instruction
 * and @keep_rf says so: of a string instruction that may have work left, or an IRET. */
enum lift_keep_rf { CLEAR_RF, KEEP_RF_REPEAT, KEEP_RF_IRET };
/* Beside the instruction's length, for the helper: it is a branch that is always taken, even if to
 * the next instruction. */
#define STEP_TAKEN 0x100
void lift_end_step(struct x86_lift *l, ir_ref tf, enum lift_keep_rf keep_rf);

/* Executes this instruction again (a string instruction with work left) if @cond; otherwise the
 * unit goes on, or with TF set is left. */
void lift_again_if(struct x86_lift *l, ir_ref cond);

#endif
