/*
 * PVH: an ELF kernel is entered at the address of its Xen note in 32-bit protected mode without
 * paging, EBX pointing to a start-info record (Xen, docs/misc/pvh.pandoc and
 * public/arch-x86/hvm/start_info.h).
 */
#include <errno.h>
#include <string.h>

#include "machine/boot.h"

#define START_INFO_MAGIC 0x336ec578

struct start_info {
    u32 magic, version, flags, module_count;
    u64 modules, command_line, rsdp;
    u64 map; /* from version 1 on */
    u32 map_entries, reserved;
};

struct module {
    u64 gpa, size, command_line, reserved;
};

struct map_entry {
    u64 gpa, size;
    u32 type, reserved;
};

static int put_map(struct boot_context *ctx)
{
    int ret = 0;

    for (unsigned i = 0; !ret && i < ctx->map->count; i++) {
        struct map_entry entry = {.gpa = ctx->map->ranges[i].first,
                                  .size = ctx->map->ranges[i].size,
                                  .type = ctx->map->ranges[i].type};

        ret = mem_write(ctx->mem, BOOT_PVH_MAP + i * sizeof(entry), &entry, sizeof(entry));
    }
    return ret;
}

bool boot_pvh_recognizes(const struct boot_file *file)
{
    struct boot_elf elf;

    return boot_elf_recognizes(file) && !boot_elf_parse(file, &elf, NULL) && elf.pvh_entry;
}

int boot_pvh(struct boot_context *ctx, const struct boot_file *file, struct err *err)
{
    struct start_info info = {
        .magic = START_INFO_MAGIC,
        .version = 1,
        .command_line = BOOT_COMMAND_LINE,
        .rsdp = ctx->rsdp,
        .map = BOOT_PVH_MAP,
        .map_entries = ctx->map->count,
    };
    struct module initrd = {0};
    struct boot_elf elf;
    int ret = boot_elf_parse(file, &elf, err);

    if (ret)
        return ret;
    if (!elf.pvh_entry)
        return err_set(err, -EINVAL,
                       "the kernel %s has no PVH entry (a XEN_ELFNOTE_PHYS32_ENTRY note; Linux: "
                       "CONFIG_PVH)",
                       file->path);
    if (elf.pvh_entry < elf.first || elf.pvh_entry >= elf.end)
        return err_set(err, -EINVAL, "the PVH entry %#" PRIx64 " of the kernel %s is outside it",
                       elf.pvh_entry, file->path);
    ret = boot_elf_load(ctx, file, err);
    if (!ret)
        ret = boot_load_initrd(ctx, 4 * GiB, elf.first, elf.end, &initrd.gpa, &initrd.size, err);
    if (!ret)
        ret = boot_put_command_line(ctx, BOOT_COMMAND_LINE_MAX - 1, err);
    if (!ret && initrd.size) {
        info.module_count = 1;
        info.modules = BOOT_PVH_MODULES;
        ret = mem_write(ctx->mem, BOOT_PVH_MODULES, &initrd, sizeof(initrd));
    }
    if (!ret)
        ret = put_map(ctx);
    if (!ret)
        ret = mem_write(ctx->mem, BOOT_PARAMS, &info, sizeof(info));
    if (!ret)
        ret = boot_enter_protected_mode(ctx, (u32)elf.pvh_entry);
    ctx->regs.rbx = BOOT_PARAMS;
    return ret;
}
