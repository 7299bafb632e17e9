/*
 * Multiboot 1 (Multiboot Specification 0.6.96): a kernel with a magic header in its first 8 KiB is
 * entered in 32-bit protected mode without paging, EBX pointing to an information record. It is
 * loaded by the addresses in that header if it has them, else as an ELF file, of 32 or 64 bits;
 * the entry is 32-bit code in any case.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "machine/boot.h"

#define SEARCH_BYTES 8192
#define HEADER_MAGIC 0x1badb002
#define LOADER_MAGIC 0x2badb002
#define MAX_MODULES 32
#define LOWEST 0x1000 /* below are interrupt vectors and our descriptor table */

enum {
    WANTS_VIDEO = BIT(2),
    HAS_ADDRESSES = BIT(16),
    UNKNOWN = 0xfff8, /* of the bits a loader has to understand: 0 is page alignment, 1 memory */

    INFO_MEMORY = BIT(0),
    INFO_COMMAND_LINE = BIT(2),
    INFO_MODULES = BIT(3),
    INFO_MAP = BIT(6),
    INFO_LOADER_NAME = BIT(9),
};

struct header {
    u32 magic, flags, checksum;
    u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; /* with HAS_ADDRESSES */
};

struct info {
    u32 flags, mem_lower, mem_upper, boot_device, command_line;
    u32 module_count, modules;
    u32 symbols[4];
    u32 map_length, map;
    u32 drives_length, drives, config_table, loader_name, apm_table;
    u32 vbe[4];
};

struct module {
    u32 first, end, string, reserved;
};

struct __attribute__((packed)) map_entry {
    u32 size; /* of what follows */
    u64 gpa, len;
    u32 type;
};

/* Where the image went. */
struct image {
    u64 first, end, entry;
};

/* Finds the header; its offset, or -ENOENT. */
static s64 find_header(const struct boot_file *file, struct header *header)
{
    size_t limit = file->size < SEARCH_BYTES ? file->size : SEARCH_BYTES;

    memset(header, 0, sizeof(*header));
    for (size_t at = 0; at + 12 <= limit; at += 4) {
        memcpy(header, file->data + at, 12);
        if (header->magic != HEADER_MAGIC || header->magic + header->flags + header->checksum)
            continue;
        if (header->flags & HAS_ADDRESSES) {
            if (at + sizeof(*header) > limit)
                continue;
            memcpy(header, file->data + at, sizeof(*header));
        }
        return (s64)at;
    }
    return -ENOENT;
}

bool boot_multiboot_recognizes(const struct boot_file *file)
{
    struct header header;

    return find_header(file, &header) >= 0;
}

/* Copies @len bytes of the file and clears what follows up to @memory bytes. */
static int load_part(struct boot_context *ctx, const struct boot_file *file, struct image *image,
                     u64 gpa, u64 offset, u64 len, u64 memory, struct err *err)
{
    int ret;

    if (offset > file->size || len > file->size - offset || len > memory)
        return err_set(err, -EINVAL,
                       "the kernel %s is truncated: it is to be loaded from offset %#" PRIx64
                       " on, %#" PRIx64 " bytes, and the file has %#zx",
                       file->path, offset, len, file->size);
    if (gpa + memory < gpa || gpa + memory > 4 * GiB || gpa < LOWEST)
        return err_set(err, -EINVAL,
                       "the kernel %s is to be loaded at %#" PRIx64 " to %#" PRIx64
                       ", out of reach",
                       file->path, gpa, gpa + memory);
    ret = mem_hva(ctx->mem, gpa, memory, true) ? 0 : -E2BIG;
    if (!ret)
        ret = mem_write(ctx->mem, gpa, file->data + offset, len);
    if (!ret)
        ret = mem_fill(ctx->mem, gpa + len, 0, memory - len);
    if (ret)
        return err_set(err, ret,
                       "the kernel %s is to be loaded at %#" PRIx64 " to %#" PRIx64
                       ", where the guest has no memory",
                       file->path, gpa, gpa + memory);
    if (gpa < image->first)
        image->first = gpa;
    if (gpa + memory > image->end)
        image->end = gpa + memory;
    return 0;
}

static int load_by_addresses(struct boot_context *ctx, const struct boot_file *file, u64 at,
                             const struct header *h, struct image *image, struct err *err)
{
    u64 offset, len, memory;

    if (h->header_addr < h->load_addr || h->header_addr - h->load_addr > at)
        return err_set(err, -EINVAL,
                       "the Multiboot header of the kernel %s says that it is loaded at %#x from "
                       "%#x on, before the file's beginning",
                       file->path, h->header_addr, h->load_addr);
    if ((h->load_end_addr && h->load_end_addr <= h->load_addr) ||
        (h->bss_end_addr && h->bss_end_addr < h->load_end_addr))
        return err_set(err, -EINVAL,
                       "the Multiboot header of the kernel %s has an end (%#x, %#x) before its "
                       "beginning (%#x)",
                       file->path, h->load_end_addr, h->bss_end_addr, h->load_addr);
    offset = at - (h->header_addr - h->load_addr);
    len = h->load_end_addr ? h->load_end_addr - h->load_addr : file->size - offset;
    memory = h->bss_end_addr ? (u64)h->bss_end_addr - h->load_addr : len;
    image->entry = h->entry_addr;
    return load_part(ctx, file, image, h->load_addr, offset, len, memory < len ? len : memory, err);
}

/* What both sizes of ELF file have in common. */
struct program {
    u64 entry, offset, entry_size;
    unsigned count;
    bool wide;
};

static int parse_elf(const struct boot_file *file, struct program *program, struct err *err)
{
    size_t need = sizeof(Elf32_Phdr);

    if (file->size < sizeof(Elf64_Ehdr) || memcmp(file->data, ELFMAG, SELFMAG))
        return err_set(err, -EINVAL,
                       "the kernel %s has a Multiboot header without load addresses and is no ELF "
                       "file",
                       file->path);
    program->wide = file->data[EI_CLASS] == ELFCLASS64;
    if (program->wide) {
        Elf64_Ehdr h;

        memcpy(&h, file->data, sizeof(h));
        *program = (struct program){h.e_entry, h.e_phoff, h.e_phentsize, h.e_phnum, true};
        need = sizeof(Elf64_Phdr);
    } else {
        Elf32_Ehdr h;

        memcpy(&h, file->data, sizeof(h));
        *program = (struct program){h.e_entry, h.e_phoff, h.e_phentsize, h.e_phnum, false};
    }
    if (program->entry_size < need || program->offset > file->size ||
        (file->size - program->offset) / program->entry_size < program->count)
        return err_set(err, -EINVAL, "the kernel %s is truncated within its program headers",
                       file->path);
    return 0;
}

static Elf64_Phdr segment_at(const struct boot_file *file, const struct program *program,
                             unsigned i)
{
    const u8 *at = file->data + program->offset + i * program->entry_size;
    Elf64_Phdr wide = {0};
    Elf32_Phdr narrow;

    if (program->wide) {
        memcpy(&wide, at, sizeof(wide));
        return wide;
    }
    memcpy(&narrow, at, sizeof(narrow));
    return (Elf64_Phdr){.p_type = narrow.p_type,
                        .p_offset = narrow.p_offset,
                        .p_vaddr = narrow.p_vaddr,
                        .p_paddr = narrow.p_paddr,
                        .p_filesz = narrow.p_filesz,
                        .p_memsz = narrow.p_memsz};
}

static int load_elf(struct boot_context *ctx, const struct boot_file *file, struct image *image,
                    struct err *err)
{
    struct program program = {0};
    int ret = parse_elf(file, &program, err);

    for (unsigned i = 0; !ret && i < program.count; i++) {
        Elf64_Phdr s = segment_at(file, &program, i);

        if (s.p_type != PT_LOAD || !s.p_memsz)
            continue;
        ret = load_part(ctx, file, image, s.p_paddr, s.p_offset, s.p_filesz, s.p_memsz, err);
        /* Kernels linked for the upper half name their entry by its virtual address. */
        if (program.entry >= s.p_vaddr && program.entry - s.p_vaddr < s.p_memsz)
            image->entry = program.entry - s.p_vaddr + s.p_paddr;
    }
    if (!ret && !image->end)
        ret = err_set(err, -EINVAL, "the kernel %s has nothing to load", file->path);
    if (!ret && !image->entry)
        image->entry = program.entry;
    return ret;
}

/* ---- What the kernel is told ----------------------------------------------------------------- */

/* The record and all it points to, gathered here and copied to @gpa at once. */
struct builder {
    u64 gpa;
    size_t len, size;
    u8 *bytes;
};

static u32 put(struct builder *b, const void *data, size_t len)
{
    size_t at = align_up(b->len, 8);

    memcpy(b->bytes + at, data, len);
    b->len = at + len;
    return (u32)(b->gpa + at);
}

static u32 put_string(struct builder *b, const char *text)
{
    return put(b, text, strlen(text) + 1);
}

/* "FILE[ ARGS][,FILE...]": cuts off the next module; the rest, or NULL after the last. */
static char *next_module(char *text)
{
    char *comma = strchr(text, ',');

    if (comma)
        *comma++ = '\0';
    return comma;
}

/* Loads one module on a page boundary from *@next on. */
static int load_module(struct boot_context *ctx, const char *text, struct builder *b, u64 *next,
                       u64 end, struct module *module, struct err *err)
{
    char *path = strndup(text, strcspn(text, " "));
    struct boot_file file;
    int ret = path ? boot_read_file(path, "module", &file, err) : -ENOMEM;
    u64 gpa = align_up(*next, MEM_PAGE_SIZE);

    if (!ret) {
        if (gpa + file.size > end || mem_write(ctx->mem, gpa, file.data, file.size))
            ret = err_set(err, -E2BIG,
                          "the module %s (%zu KiB) does not fit into the guest's memory; give it "
                          "more with --mem",
                          path, (file.size + 1023) / 1024);
        *next = gpa + file.size;
        *module = (struct module){(u32)gpa, (u32)*next, put_string(b, text), 0};
        boot_free_file(&file);
    }
    free(path);
    return ret;
}

static int load_modules(struct boot_context *ctx, const struct image *image, struct builder *b,
                        struct info *info, struct err *err)
{
    struct module modules[MAX_MODULES];
    u64 next = image->end > MiB ? image->end : MiB;
    char *list = ctx->initrd_path ? strdup(ctx->initrd_path) : NULL, *rest;
    int ret = 0;

    if (b->gpa >= next)
        next = b->gpa + b->size;
    info->flags |= INFO_MODULES;
    for (char *text = list; !ret && text; text = rest) {
        rest = next_module(text);
        if (info->module_count == MAX_MODULES)
            ret = err_set(err, -E2BIG, "--initrd: more than %u modules", MAX_MODULES);
        else
            ret = load_module(ctx, text, b, &next, ctx->low_end, &modules[info->module_count], err);
        info->module_count += !ret;
    }
    info->modules = put(b, modules, info->module_count * sizeof(modules[0]));
    free(list);
    return ret;
}

static void put_map(const struct boot_context *ctx, struct builder *b, struct info *info)
{
    struct map_entry entries[ARRAY_SIZE(ctx->map->ranges)];

    for (unsigned i = 0; i < ctx->map->count; i++)
        entries[i] = (struct map_entry){sizeof(entries[i]) - sizeof(entries[i].size),
                                        ctx->map->ranges[i].first, ctx->map->ranges[i].size,
                                        ctx->map->ranges[i].type};
    info->flags |= INFO_MAP | INFO_MEMORY;
    info->map_length = (u32)(ctx->map->count * sizeof(entries[0]));
    info->map = put(b, entries, info->map_length);
    info->mem_lower = (u32)(ctx->map->ranges[0].size / KiB);
    info->mem_upper = (u32)((ctx->low_end - MiB) / KiB);
}

static void put_command_line(const struct boot_context *ctx, const struct boot_file *file,
                             struct builder *b, struct info *info)
{
    const char *rest = ctx->command_line ? ctx->command_line : "";
    size_t path = strlen(file->path), len = strlen(rest);
    u8 *at = b->bytes + align_up(b->len, 8);

    info->flags |= INFO_COMMAND_LINE;
    info->command_line = (u32)(b->gpa + (u64)(at - b->bytes));
    memcpy(at, file->path, path);
    if (len)
        at[path++] = ' ';
    memcpy(at + path, rest, len + 1);
    b->len = (size_t)(at - b->bytes) + path + len + 1;
}

/* Everything is below 1 MiB if the image leaves that free, else just after it. */
static int describe(struct boot_context *ctx, const struct boot_file *file,
                    const struct image *image, struct err *err)
{
    size_t texts = strlen(file->path) + (ctx->command_line ? strlen(ctx->command_line) : 0) +
                   (ctx->initrd_path ? strlen(ctx->initrd_path) : 0);
    struct builder b = {.size = align_up(texts + 4 * KiB, MEM_PAGE_SIZE)};
    struct info info = {0};
    int ret;

    b.gpa = BOOT_PARAMS;
    if (image->first < BOOT_PARAMS + b.size && image->end > BOOT_PARAMS)
        b.gpa = align_up(image->end > MiB ? image->end : MiB, MEM_PAGE_SIZE);
    if (texts > BOOT_COMMAND_LINE_MAX)
        return err_set(err, -E2BIG, "the kernel command line has %zu characters", texts);
    b.bytes = calloc(1, b.size);
    if (!b.bytes)
        return err_set(err, -ENOMEM, "out of memory");
    put(&b, &info, sizeof(info));
    put_map(ctx, &b, &info);
    put_command_line(ctx, file, &b, &info);
    info.flags |= INFO_LOADER_NAME;
    info.loader_name = put_string(&b, "Triode");
    ret = load_modules(ctx, image, &b, &info, err);
    memcpy(b.bytes, &info, sizeof(info));
    if (!ret && (boot_put_base_memory(ctx) || mem_write(ctx->mem, b.gpa, b.bytes, b.len)))
        ret = err_set(err, -E2BIG,
                      "the guest has too little memory for the kernel %s; give it more with --mem",
                      file->path);
    free(b.bytes);
    ctx->regs.rbx = b.gpa;
    return ret;
}

int boot_multiboot(struct boot_context *ctx, const struct boot_file *file, struct err *err)
{
    struct image image = {.first = ~0ull};
    struct header header;
    s64 at = find_header(file, &header);
    u64 info;
    int ret;

    if (at < 0)
        return err_set(err, -EINVAL, "the kernel %s has no Multiboot header", file->path);
    if (header.flags & UNKNOWN)
        return err_set(err, -EINVAL,
                       "the Multiboot header of the kernel %s asks for what no loader knows "
                       "(flags %#x)",
                       file->path, header.flags & UNKNOWN);
    if (header.flags & WANTS_VIDEO)
        log_info("the kernel %s would like a video mode: there is no video", file->path);
    if (header.flags & HAS_ADDRESSES)
        ret = load_by_addresses(ctx, file, (u64)at, &header, &image, err);
    else
        ret = load_elf(ctx, file, &image, err);
    if (ret)
        return ret;
    if (image.entry < image.first || image.entry >= image.end)
        return err_set(err, -EINVAL,
                       "the entry %#" PRIx64 " of the kernel %s is outside what is loaded of it",
                       image.entry, file->path);
    ret = describe(ctx, file, &image, err);
    info = ctx->regs.rbx;
    if (!ret)
        ret = boot_enter_protected_mode(ctx, (u32)image.entry);
    ctx->regs.rax = LOADER_MAGIC;
    ctx->regs.rbx = info;
    return ret;
}
