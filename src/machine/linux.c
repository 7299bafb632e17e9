/*
 * Linux bzImage by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst).
 *
 * A bzImage carries a small program that decompresses the kernel proper, an ELF file, and jumps to
 * its entry. By default we do that work here, on the host's own CPU, and enter the ELF file at its
 * entry with the same state in which the decompressor would: paging with an identity map, RSI at
 * the zero page. What the guest loses by it is KASLR, because the kernel runs where it was linked,
 * and 5-level paging, which the decompressor would switch on. With ctx->unpack off, or when the
 * payload is of a kind we cannot unpack, the bzImage's own 64-bit entry runs.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/entropy.h"
#include "base/log.h"
#include "machine/boot.h"

#define HEADER_OFFSET 0x1f1
#define HEADER_MAGIC 0x53726448 /* "HdrS" */
#define BOOT_FLAG 0xaa55
#define OLDEST_PROTOCOL 0x020c /* 2.12: xloadflags */
#define ENTRY_64 0x200         /* offset of the 64-bit entry in the protected-mode kernel */
#define LOADER_UNDEFINED 0xff
#define SECTOR 512
#define SEED_BYTES 32

struct image {
    struct setup_header hdr;
    const u8 *kernel; /* the protected-mode part */
    size_t size;
};

bool boot_linux_recognizes(const struct boot_file *file)
{
    struct setup_header hdr;

    if (file->size < HEADER_OFFSET + sizeof(hdr))
        return false;
    memcpy(&hdr, file->data + HEADER_OFFSET, sizeof(hdr));
    return hdr.boot_flag == BOOT_FLAG && hdr.header == HEADER_MAGIC;
}

static int parse(const struct boot_file *file, struct image *image, struct err *err)
{
    struct setup_header *hdr = &image->hdr;
    size_t setup, whole;

    memcpy(hdr, file->data + HEADER_OFFSET, sizeof(*hdr));
    if (hdr->version < OLDEST_PROTOCOL)
        return err_set(err, -EINVAL,
                       "the kernel %s speaks boot protocol %u.%02u; 2.12 or newer is needed",
                       file->path, hdr->version >> 8, hdr->version & 0xff);
    if (!(hdr->xloadflags & XLF_KERNEL_64))
        return err_set(err, -EINVAL, "the kernel %s is a 32-bit kernel: it has no 64-bit entry",
                       file->path);
    if (!(hdr->loadflags & LOADED_HIGH))
        return err_set(err, -EINVAL, "the kernel %s is a zImage, which loads below 1 MiB",
                       file->path);
    setup = ((hdr->setup_sects ? hdr->setup_sects : 4) + 1) * SECTOR;
    whole = setup + (size_t)hdr->syssize * 16;
    /* syssize is rounded up to 16 bytes, and signed images have a tail after it. */
    if (file->size + 15 < whole || file->size <= setup + ENTRY_64)
        return err_set(err, -EINVAL,
                       "the kernel %s is truncated: its header speaks of %zu bytes, the file has "
                       "%zu",
                       file->path, whole, file->size);
    image->kernel = file->data + setup;
    image->size = file->size - setup;
    return 0;
}

/* Where the bzImage's protected-mode part may lie: where it likes best if that is RAM. */
static int choose_address(const struct boot_context *ctx, const struct boot_file *file,
                          const struct setup_header *hdr, u64 *address, struct err *err)
{
    u64 align = hdr->kernel_alignment ? hdr->kernel_alignment : MiB;

    *address = hdr->pref_address;
    if (*address + hdr->init_size > ctx->low_end && hdr->relocatable_kernel)
        *address = align_up(MiB, align);
    if (*address < MiB || *address + hdr->init_size > ctx->low_end)
        return err_set(err, -ENOMEM,
                       "the kernel %s needs memory up to %" PRIu64 " MiB, the guest has %" PRIu64
                       " MiB; give it more with --mem",
                       file->path, (*address + hdr->init_size + MiB - 1) / MiB, ctx->low_end / MiB);
    return 0;
}

/* The payload, and how many bytes it says it unpacks to. */
struct payload {
    const u8 *data;
    size_t len, unpacked;
};

static int find_payload(const struct image *image, struct payload *payload)
{
    const char *format;
    u32 size;

    payload->data = image->kernel + image->hdr.payload_offset;
    payload->len = image->hdr.payload_length;
    if (image->hdr.payload_offset > image->size ||
        payload->len > image->size - image->hdr.payload_offset || payload->len < 8)
        return -EINVAL;
    /* The build appends the unpacked size to whatever the compressor made; gzip's ends with it. */
    memcpy(&size, payload->data + payload->len - 4, 4);
    format = boot_unpack_format(payload->data, payload->len);
    if (!size || size > image->hdr.init_size || !format)
        return -EINVAL;
    if (!boot_unpack_supported(format)) {
        log_info("this build cannot unpack %s: the kernel's own decompressor runs instead", format);
        return -EOPNOTSUPP;
    }
    if (strcmp(format, "gzip"))
        payload->len -= 4;
    payload->unpacked = size;
    return 0;
}

static int unpack(const struct payload *payload, u8 *out)
{
    s64 done = boot_unpack(payload->data, payload->len, out, payload->unpacked);

    return done == (s64)payload->unpacked ? 0 : -EINVAL;
}

/* The kernel proper must lie in RAM and be entered within. */
static int check_unpacked(const struct boot_context *ctx, const struct boot_file *vmlinux,
                          struct boot_elf *elf)
{
    int ret = boot_elf_parse(vmlinux, elf, NULL);

    return !ret && elf->first >= MiB && elf->end <= ctx->low_end && elf->entry >= elf->first &&
                   elf->entry < elf->end
               ? 0
               : -EINVAL;
}

/*
 * Unpacks straight into guest memory, so far below the kernel's place that its first segment comes
 * to lie where it belongs (kernels are linked with segments at file offsets of 2 MiB and up). When
 * that does not work out, the memory is as before.
 */
static int unpack_in_place(struct boot_context *ctx, const struct boot_file *file,
                           const struct image *image, const struct payload *payload,
                           struct boot_elf *elf)
{
    enum { FIRST_OFFSET = 2 * MiB };
    u64 gpa = image->hdr.pref_address - FIRST_OFFSET;
    struct boot_file vmlinux = {.path = file->path, .size = payload->unpacked};
    int ret;

    if (gpa < MiB || gpa > ctx->low_end || payload->unpacked > ctx->low_end - gpa)
        return -ENOTSUP;
    vmlinux.data = mem_hva(ctx->mem, gpa, payload->unpacked, true);
    if (!vmlinux.data)
        return -ENOTSUP;
    ret = unpack(payload, vmlinux.data);
    if (!ret)
        ret = check_unpacked(ctx, &vmlinux, elf);
    if (!ret)
        ret = boot_elf_settle(ctx, &vmlinux, gpa);
    if (ret)
        mem_fill(ctx->mem, gpa, 0, payload->unpacked);
    return ret;
}

static int unpack_and_copy(struct boot_context *ctx, const struct boot_file *file,
                           const struct payload *payload, struct boot_elf *elf)
{
    struct boot_file vmlinux = {.path = file->path, .size = payload->unpacked};
    int ret;

    vmlinux.data =
        mmap(NULL, vmlinux.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vmlinux.data == MAP_FAILED)
        return -ENOTSUP;
    ret = unpack(payload, vmlinux.data);
    if (!ret)
        ret = check_unpacked(ctx, &vmlinux, elf);
    if (!ret)
        ret = boot_elf_load(ctx, &vmlinux, NULL);
    boot_free_file(&vmlinux);
    return ret ? -ENOTSUP : 0;
}

/* Loads the kernel proper at its linked address. -ENOTSUP when the bzImage must do it itself. */
static int load_unpacked(struct boot_context *ctx, const struct boot_file *file,
                         const struct image *image, u64 *entry, u64 *first, u64 *end)
{
    struct payload payload;
    struct boot_elf elf;
    int ret = find_payload(image, &payload);

    if (!ret) {
        ret = unpack_in_place(ctx, file, image, &payload, &elf);
        if (ret)
            ret = unpack_and_copy(ctx, file, &payload, &elf);
    }
    if (ret)
        return -ENOTSUP;
    *entry = elf.entry;
    *first = elf.first;
    *end = elf.first + image->hdr.init_size;
    if (*end < elf.end)
        *end = elf.end;
    return 0;
}

static int load_packed(struct boot_context *ctx, const struct boot_file *file,
                       const struct image *image, u64 *entry, u64 *first, u64 *end, struct err *err)
{
    int ret = choose_address(ctx, file, &image->hdr, first, err);

    if (ret)
        return ret;
    *entry = *first + ENTRY_64;
    *end = *first + image->hdr.init_size;
    if (image->size > image->hdr.init_size)
        return err_set(err, -EINVAL, "the kernel %s is larger than the memory it asks for",
                       file->path);
    return mem_write(ctx->mem, *first, image->kernel, image->size);
}

/* Random bytes for the guest's generator, which without KASLR has no other early source. */
static int put_seed(struct boot_context *ctx)
{
    struct {
        struct setup_data head;
        u8 bytes[SEED_BYTES];
    } seed = {.head = {.type = SETUP_RNG_SEED, .len = SEED_BYTES}};

    entropy_fill(seed.bytes, sizeof(seed.bytes));
    return mem_write(ctx->mem, BOOT_SEED, &seed, sizeof(seed));
}

static int put_zero_page(struct boot_context *ctx, const struct image *image, u64 kernel,
                         u64 initrd, u64 initrd_size)
{
    struct boot_params *bp = calloc(1, sizeof(*bp));
    int ret;

    if (!bp)
        return -ENOMEM;
    bp->hdr = image->hdr;
    bp->hdr.type_of_loader = LOADER_UNDEFINED;
    bp->hdr.code32_start = (u32)kernel;
    bp->hdr.cmd_line_ptr = BOOT_COMMAND_LINE;
    bp->hdr.ramdisk_image = (u32)initrd;
    bp->hdr.ramdisk_size = (u32)initrd_size;
    bp->hdr.setup_data = BOOT_SEED;
    bp->hdr.vid_mode = 0xffff; /* "normal" */
    bp->acpi_rsdp_addr = ctx->rsdp;
    bp->e820_entries = (u8)ctx->map->count;
    for (unsigned i = 0; i < ctx->map->count; i++) {
        bp->e820_table[i].addr = ctx->map->ranges[i].first;
        bp->e820_table[i].size = ctx->map->ranges[i].size;
        bp->e820_table[i].type = ctx->map->ranges[i].type;
    }
    ret = mem_write(ctx->mem, BOOT_PARAMS, bp, sizeof(*bp));
    free(bp);
    return ret;
}

int boot_linux(struct boot_context *ctx, const struct boot_file *file, struct err *err)
{
    u64 entry, first, end, initrd, initrd_size;
    struct image image;
    int ret = parse(file, &image, err);

    if (ret)
        return ret;
    ret = ctx->unpack ? load_unpacked(ctx, file, &image, &entry, &first, &end) : -ENOTSUP;
    if (ret == -ENOTSUP)
        ret = load_packed(ctx, file, &image, &entry, &first, &end, err);
    if (ret)
        return ret;
    if (end > ctx->low_end)
        return choose_address(ctx, file, &image.hdr, &first, err);
    ret = boot_load_initrd(ctx, (u64)image.hdr.initrd_addr_max + 1, first, end, &initrd,
                           &initrd_size, err);
    if (!ret)
        ret = boot_put_command_line(ctx, image.hdr.cmdline_size, err);
    if (!ret)
        ret = put_seed(ctx);
    if (!ret)
        ret = put_zero_page(ctx, &image, first, initrd, initrd_size);
    if (!ret)
        ret = boot_enter_long_mode(ctx, entry);
    ctx->regs.rsi = BOOT_PARAMS;
    return ret;
}
