/* Boot protocols and image formats. Inside src/machine only. */
#ifndef TRIODE_MACHINE_BOOT_H
#define TRIODE_MACHINE_BOOT_H

#include "base/err.h"
#include "base/types.h"
#include "engine/engine.h"
#include "machine/private.h"
#include "mem/mem.h"

/* A whole file in memory. */
struct boot_file {
    const char *path; /* the caller's */
    u8 *data;
    size_t size;
};

/* What a boot protocol starts from and leaves behind. */
struct boot_context {
    struct mem *mem;
    const struct machine_map *map;
    u64 low_end;              /* end of the RAM that starts at 1 MiB */
    u64 rsdp;                 /* gpa of the ACPI root pointer */
    const char *command_line; /* NULL: BOOT_DEFAULT_COMMAND_LINE for Linux, else empty */
    const char *initrd_path;  /* NULL without */
    bool unpack;
    enum machine_entry entry;
    bool la57; /* the CPU has linear addresses of 57 bits, and 5-level paging */

    struct kvm_regs regs; /* in: power-on state; out: state at the first instruction */
    struct kvm_sregs sregs;
};

#define BOOT_DEFAULT_COMMAND_LINE "console=ttyS0"

/* Low memory that the protocols use; all of it is RAM and free once the kernel has copied it. */
enum {
    BOOT_BASE_MEMORY = 0x413, /* of the BIOS data area */
    BOOT_GDT = 0x500,
    BOOT_SEED = 0x8000,        /* struct setup_data with random bytes */
    BOOT_PAGE_TABLES = 0x9000, /* 7 pages */
    BOOT_PARAMS = 0x10000,     /* zero page, PVH start info, or Linux' real-mode program */
    BOOT_PVH_MODULES = 0x11000,
    BOOT_PVH_MAP = 0x12000,
    BOOT_COMMAND_LINE = 0x20000,
    BOOT_COMMAND_LINE_MAX = 0x10000,
    BOOT_BIOS = 0xdf000, /* what answers a real-mode program's calls */
};

/* Reads all of @path. -ENOENT, -EISDIR, -EINVAL (empty), ... with a sentence that names @what. */
int boot_read_file(const char *path, const char *what, struct boot_file *file, struct err *err);
void boot_free_file(struct boot_file *file);

/* Loads @path with whatever protocol its format asks for and fills ctx->regs and ctx->sregs. */
int boot_kernel(struct boot_context *ctx, const char *path, struct err *err);

/* Linux/x86 boot protocol (Linux, Documentation/arch/x86/boot.rst). */
bool boot_linux_recognizes(const struct boot_file *file);
int boot_linux(struct boot_context *ctx, const struct boot_file *file, struct err *err);

/* Xen's PVH direct boot of an ELF file (Xen, docs/misc/pvh.pandoc). */
bool boot_pvh_recognizes(const struct boot_file *file);
int boot_pvh(struct boot_context *ctx, const struct boot_file *file, struct err *err);

/* Multiboot 1 (Multiboot Specification 0.6.96). ctx->initrd_path is "FILE[ ARGS][,FILE...]". */
bool boot_multiboot_recognizes(const struct boot_file *file);
int boot_multiboot(struct boot_context *ctx, const struct boot_file *file, struct err *err);

/* ELF for x86-64 or i386: checks the header, -EINVAL with a sentence; copies the loadable segments
 * to their physical addresses within [1 MiB, ctx->low_end). */
bool boot_elf_recognizes(const struct boot_file *file);
struct boot_elf {
    bool is_32bit;
    u64 entry;      /* as the header says */
    u64 first, end; /* physical range the segments cover */
    u64 pvh_entry;  /* from the XEN_ELFNOTE_PHYS32_ENTRY note, 0 without */
};
int boot_elf_parse(const struct boot_file *file, struct boot_elf *elf, struct err *err);
int boot_elf_load(struct boot_context *ctx, const struct boot_file *file, struct err *err);
/* The same for a file that itself lies in guest memory, at @gpa, and need not be kept: moves its
 * segments to their places and clears the rest. -ENOTSUP, with nothing changed, when one segment's
 * place is another's source. */
int boot_elf_settle(struct boot_context *ctx, const struct boot_file *file, u64 gpa);

/* Puts the initrd below @limit and outside [used_first, used_end). @size is 0 without one. */
int boot_load_initrd(struct boot_context *ctx, u64 limit, u64 used_first, u64 used_end, u64 *gpa,
                     u64 *size, struct err *err);
/* Writes the command line with its NUL; -E2BIG above @max characters. */
int boot_put_command_line(struct boot_context *ctx, u64 max, struct err *err);

/* The BIOS data area's word that says how many KiB there are below 640 KiB: Xen and iPXE place
 * their real-mode code by it, whatever else tells them of memory. */
int boot_put_base_memory(struct boot_context *ctx);

/* Segment states and tables both protocols share. @levels of page tables: 4 or 5. */
int boot_enter_long_mode(struct boot_context *ctx, u64 entry, unsigned levels);
int boot_enter_protected_mode(struct boot_context *ctx, u32 entry);
/* Real mode, all data segments at @gpa, SP there too, below @stack. */
void boot_enter_real_mode(struct boot_context *ctx, u32 gpa, u16 code_segment, u16 stack);

/* Puts a small BIOS into memory and its entries into the interrupt vectors: console output to COM1,
 * memory sizes and map; all else answers that it is not there. */
int boot_put_bios(struct boot_context *ctx);

/*
 * Unpacks a kernel's payload into @out, at most @out_size bytes (what the payload itself says it
 * needs). The format is found by its magic number. Bytes written, or -EOPNOTSUPP for a format this
 * build cannot unpack, -EINVAL for damaged data.
 */
s64 boot_unpack(const u8 *in, size_t in_size, u8 *out, size_t out_size);
/* "gzip", "xz", ..., NULL when the magic number is unknown. */
const char *boot_unpack_format(const u8 *in, size_t in_size);
/* Whether this build can unpack the format with that name. */
bool boot_unpack_supported(const char *format);
/* LZ4's legacy frame, as Linux's build uses it. */
s64 boot_unpack_lz4(const u8 *in, size_t in_size, u8 *out, size_t out_size);

#endif
