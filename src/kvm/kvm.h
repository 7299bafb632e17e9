/*
 * The kvm engine: the host kernel's KVM through its ioctls (Linux, Documentation/virt/kvm/api.rst).
 * Its operations are kvm_engine_ops in engine/engine.h; this header adds what tests need.
 */
#ifndef TRIODE_KVM_H
#define TRIODE_KVM_H

#include "engine/engine.h"

#define KVM_DEVICE_PATH "/dev/kvm"

/* kvm_engine_ops.open with another device file. 0, or a negative errno with the sentence in @err:
 * which file, what is wrong with it, and what the user can do about it. */
int kvm_open_path(const char *path, struct engine **engine, struct err *err);

/* The extensions Triode cannot do without: answers the name of the first that @check denies (it is
 * asked with @opaque and a KVM_CAP_* number), NULL when all are there. */
const char *kvm_missing_extension(int (*check)(void *opaque, u32 capability), void *opaque);

/* FAIL_ENTRY's hardware reason in words: on Intel a VM-entry failure's exit reason (SDM 27.8) or a
 * VM-instruction error number (SDM 31.4), else an exit code of AMD's VMRUN (APM 15.5.1). */
void kvm_describe_entry_failure(u64 reason, bool intel, struct err *err);

/* An INTERNAL_ERROR suberror's name, NULL when the kernel has a newer one than this table. */
const char *kvm_suberror_name(u32 suberror);

/* "0f 0b  ud2" for the @len bytes at guest address @rip; @code_bits is 16, 32 or 64. Writes at most
 * @size bytes to @text, always terminated. */
void kvm_describe_insn(const u8 *bytes, size_t len, unsigned code_bits, u64 rip, char *text,
                       size_t size);

#endif
