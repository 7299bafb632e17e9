/*
 * Linux bzImage (Linux, Documentation/arch/x86/boot.rst), from protocol 2.02 (Linux 2.4) on.
 *
 * A bzImage carries a small program that decompresses the kernel proper, an ELF file, and jumps to
 * its entry. By default we do that work here, on the host's own CPU, and enter the ELF file at its
 * entry with the same state in which the decompressor would: (R)SI at the zero page, and for a
 * 64-bit kernel paging with an identity map, of five levels where the decompressor would take them.
 * What the guest loses by it is KASLR, because the kernel runs where it was linked. With
 * ctx->unpack off, or when the payload is of a kind we cannot unpack, one of the bzImage's own
 * entries runs: the 64-bit one if it has it, else the 32-bit one; the 16-bit one of what is too old
 * to say which it has, which may be no Linux at all (iPXE).
 *
 * The 16-bit entry is the start of its real-mode program, which asks a BIOS for the memory map and
 * then goes to the 32-bit entry itself; linux_bios.c has that BIOS.
 *
 * The zero page's screen_info stays empty: there is no screen, and so Linux looks for none.
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
#define OLDEST_PROTOCOL 0x0202 /* cmd_line_ptr */
#define XLOADFLAGS_PROTOCOL 0x020c
#define ENTRY_64 0x200 /* offset of the 64-bit entry in the protected-mode kernel */
#define LOADER_UNDEFINED 0xff
#define REAL_MODE_MAX                                                                              \
    0xe000 /* bytes of real-mode program with heap and stack, as boot.rst has it */
#define HEAP_END_BIAS 0x200
#define SECTOR 512
#define SEED_BYTES 32

struct image {
    struct setup_header hdr;
    const u8 *kernel; /* the protected-mode part */
    size_t size;
    size_t setup; /* bytes of the real-mode part, before it */
};

bool boot_linux_recognizes(const struct boot_file *file)
{
    struct setup_header hdr;

    if (file->size < HEADER_OFFSET + sizeof(hdr))
        return false;
    memcpy(&hdr, file->data + HEADER_OFFSET, sizeof(hdr));
    return hdr.boot_flag == BOOT_FLAG && hdr.header == HEADER_MAGIC;
}

/* Fields that came with later protocols, as their absence is to be understood. What an old header
 * has in their place is code. */
static void complete_header(struct image *image)
{
    enum { UNPACKED_RATIO = 4 }; /* more than any compressor made of a kernel of that time */
    struct setup_header *hdr = &image->hdr;

    if (hdr->version < 0x0203)
        hdr->initrd_addr_max = 0x37ffffff;
    if (hdr->version < 0x0205)
        hdr->relocatable_kernel = hdr->min_alignment = 0, hdr->kernel_alignment = 0;
    if (hdr->version < 0x0206)
        hdr->cmdline_size = 255;
    if (hdr->version < 0x0207)
        hdr->hardware_subarch = 0, hdr->hardware_subarch_data = 0;
    if (hdr->version < 0x0208)
        hdr->payload_offset = hdr->payload_length = 0;
    if (hdr->version < 0x0209)
        hdr->setup_data = 0;
    if (hdr->version < 0x020a) {
        hdr->pref_address = MiB;
        hdr->init_size = (u32)image->size * UNPACKED_RATIO;
    }
    if (hdr->version < 0x020b)
        hdr->handover_offset = 0;
    if (hdr->version < XLOADFLAGS_PROTOCOL)
        hdr->xloadflags = 0;
    if (hdr->version < 0x020f)
        hdr->kernel_info_offset = 0;
}

static int parse(const struct boot_file *file, struct image *image, struct err *err)
{
    struct setup_header *hdr = &image->hdr;
    size_t setup, whole;

    memcpy(hdr, file->data + HEADER_OFFSET, sizeof(*hdr));
    if (hdr->version < OLDEST_PROTOCOL)
        return err_set(err, -EINVAL,
                       "the kernel %s speaks boot protocol %u.%02u; 2.02 or newer is needed",
                       file->path, hdr->version >> 8, hdr->version & 0xff);
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
    image->setup = setup;
    complete_header(image);
    return 0;
}

/* AUTO becomes one of the others: the 16-bit one, which all have, for what is older than the word
 * that tells of entries. */
static int choose_entry(const struct boot_context *ctx, const struct boot_file *file,
                        const struct image *image, enum machine_entry *entry, struct err *err)
{
    bool has_64 = image->hdr.xloadflags & XLF_KERNEL_64;

    *entry = ctx->entry;
    if (*entry == MACHINE_ENTRY_AUTO)
        *entry = has_64                                      ? MACHINE_ENTRY_64
                 : image->hdr.version >= XLOADFLAGS_PROTOCOL ? MACHINE_ENTRY_32
                                                             : MACHINE_ENTRY_16;
    if (*entry == MACHINE_ENTRY_64 && !has_64)
        return err_set(err, -EINVAL, "the kernel %s has no 64-bit entry, only --entry 32 and 16",
                       file->path);
    if (*entry == MACHINE_ENTRY_16 && image->setup > REAL_MODE_MAX / 2)
        return err_set(err, -EINVAL, "the real-mode program of the kernel %s is too large",
                       file->path);
    return 0;
}

/* Is [address, address + size) RAM above the first MiB? The sum may be beyond 64 bits. */
static bool fits(const struct boot_context *ctx, u64 address, u64 size)
{
    return address >= MiB && address <= ctx->low_end && size <= ctx->low_end - address;
}

static int too_large(const struct boot_context *ctx, const struct boot_file *file, u64 address,
                     u64 size, struct err *err)
{
    return err_set(err, -E2BIG,
                   "the kernel %s needs memory up to %" PRIu64 " MiB, the guest has %" PRIu64
                   " MiB; give it more with --mem",
                   file->path, address / MiB + (address % MiB + size + MiB - 1) / MiB,
                   ctx->low_end / MiB);
}

/* Where the bzImage's protected-mode part lies: where it likes best. Linux, loaded lower, would
 * move itself up to there (LOAD_PHYSICAL_ADDR), so less memory is of no use to it. */
static int choose_address(const struct boot_context *ctx, const struct boot_file *file,
                          const struct setup_header *hdr, u64 *address, struct err *err)
{
    u64 align = hdr->kernel_alignment ? hdr->kernel_alignment : MiB;

    *address = hdr->pref_address;
    if (*address < MiB && hdr->relocatable_kernel)
        *address = align_up(MiB, align);
    return fits(ctx, *address, hdr->init_size)
               ? 0
               : too_large(ctx, file, *address, hdr->init_size, err);
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

/* The kernel proper must lie in RAM, be entered within, and want the mode we enter it in. */
static int check_unpacked(const struct boot_context *ctx, const struct boot_file *vmlinux,
                          bool is_32bit, struct boot_elf *elf)
{
    int ret = boot_elf_parse(vmlinux, elf, NULL);

    return !ret && elf->is_32bit == is_32bit && elf->first >= MiB && elf->end <= ctx->low_end &&
                   elf->entry >= elf->first && elf->entry < elf->end
               ? 0
               : -EINVAL;
}

/*
 * Unpacks straight into guest memory, so far below the kernel's place that its first segment comes
 * to lie where it belongs (64-bit kernels are linked with segments at file offsets of 2 MiB and
 * up). When that does not work out, the memory is as before.
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
    mem_populate(vmlinux.data, vmlinux.size);
    ret = unpack(payload, vmlinux.data);
    if (!ret)
        ret = check_unpacked(ctx, &vmlinux, false, elf);
    if (!ret)
        ret = boot_elf_settle(ctx, &vmlinux, gpa);
    if (ret)
        mem_fill(ctx->mem, gpa, 0, payload->unpacked);
    return ret;
}

static int unpack_and_copy(struct boot_context *ctx, const struct boot_file *file,
                           const struct payload *payload, bool is_32bit, struct boot_elf *elf)
{
    struct boot_file vmlinux = {.path = file->path, .size = payload->unpacked};
    int ret;

    vmlinux.data =
        mmap(NULL, vmlinux.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vmlinux.data == MAP_FAILED)
        return -ENOTSUP;
    ret = unpack(payload, vmlinux.data);
    if (!ret)
        ret = check_unpacked(ctx, &vmlinux, is_32bit, elf);
    if (!ret)
        ret = boot_elf_load(ctx, &vmlinux, NULL);
    boot_free_file(&vmlinux);
    return ret ? -ENOTSUP : 0;
}

/* Where the kernel is, and how it is entered. */
struct placed {
    u64 first, end;
    u64 entry; /* gpa; with 16: of the code that the real-mode program goes to */
    enum machine_entry mode;
    unsigned levels; /* of page tables to enter with, by the 64-bit entry */
};

/* Is @word one of the words of @text? */
static bool has_word(const char *text, const char *word)
{
    size_t len = strlen(word);

    while (text && *text) {
        size_t there = strcspn(text, " \t\n");

        if (there == len && !memcmp(text, word, len))
            return true;
        text += there + strspn(text + there, " \t\n");
    }
    return false;
}

/* As the decompressor decides, in whose place we enter the kernel: by the CPU, by what the kernel
 * was built for, and by its command line. */
static unsigned paging_levels(const struct boot_context *ctx, const struct setup_header *hdr)
{
    const unsigned able = XLF_5LEVEL | XLF_5LEVEL_ENABLED;

    if (!ctx->la57 || (hdr->xloadflags & able) != able)
        return 4;
    return has_word(ctx->command_line, "no5lvl") ? 4 : 5;
}

/* Loads the kernel proper at its linked address. -ENOTSUP when the bzImage must do it itself. */
static int load_unpacked(struct boot_context *ctx, const struct boot_file *file,
                         const struct image *image, struct placed *placed)
{
    bool is_32bit = placed->mode == MACHINE_ENTRY_32;
    struct payload payload;
    struct boot_elf elf;
    int ret = find_payload(image, &payload);

    if (!ret) {
        ret = is_32bit ? -ENOTSUP : unpack_in_place(ctx, file, image, &payload, &elf);
        if (ret)
            ret = unpack_and_copy(ctx, file, &payload, is_32bit, &elf);
    }
    if (ret)
        return -ENOTSUP;
    placed->entry = elf.entry;
    placed->levels = paging_levels(ctx, &image->hdr);
    placed->first = elf.first;
    placed->end = elf.first + image->hdr.init_size;
    if (placed->end < elf.end)
        placed->end = elf.end;
    return 0;
}

static int load_packed(struct boot_context *ctx, const struct boot_file *file,
                       const struct image *image, struct placed *placed, struct err *err)
{
    int ret = choose_address(ctx, file, &image->hdr, &placed->first, err);

    if (ret)
        return ret;
    placed->entry = placed->first + (placed->mode == MACHINE_ENTRY_64 ? ENTRY_64 : 0);
    placed->levels = 4;
    placed->end = placed->first + image->hdr.init_size;
    if (image->size > image->hdr.init_size)
        return err_set(err, -EINVAL, "the kernel %s is larger than the memory it asks for",
                       file->path);
    return mem_write(ctx->mem, placed->first, image->kernel, image->size);
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

/* What the kernel is told in its own header, whichever way it is entered. */
static struct setup_header fill_header(const struct image *image, const struct placed *placed,
                                       u64 initrd, u64 initrd_size)
{
    struct setup_header hdr = image->hdr;

    hdr.type_of_loader = LOADER_UNDEFINED;
    hdr.code32_start = (u32)placed->first;
    hdr.cmd_line_ptr = BOOT_COMMAND_LINE;
    hdr.ramdisk_image = (u32)initrd;
    hdr.ramdisk_size = (u32)initrd_size;
    if (hdr.version >= 0x0209)
        hdr.setup_data = BOOT_SEED;
    hdr.vid_mode = 0xffff; /* "normal" */
    return hdr;
}

static int put_zero_page(struct boot_context *ctx, const struct setup_header *hdr)
{
    struct boot_params *bp = calloc(1, sizeof(*bp));
    int ret;

    if (!bp)
        return -ENOMEM;
    bp->hdr = *hdr;
    bp->acpi_rsdp_addr = ctx->rsdp;
    bp->alt_mem_k = (u32)((ctx->low_end - MiB) / KiB);
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

/* The real-mode program with the header it finds in itself. Of that no more is replaced than it
 * has: its length is in the jump over it. */
static int put_real_mode(struct boot_context *ctx, const struct boot_file *file,
                         const struct image *image, const struct setup_header *filled)
{
    struct setup_header hdr = *filled;
    u64 len = 0x202 + (hdr.jump >> 8) - HEADER_OFFSET;
    int ret;

    hdr.loadflags |= CAN_USE_HEAP;
    hdr.heap_end_ptr = REAL_MODE_MAX - HEAP_END_BIAS;
    ret = mem_write(ctx->mem, BOOT_PARAMS, file->data, image->setup);
    if (!ret)
        ret = mem_write(ctx->mem, BOOT_PARAMS + HEADER_OFFSET, &hdr,
                        len < sizeof(hdr) ? len : sizeof(hdr));
    if (!ret)
        ret = boot_put_bios(ctx);
    if (!ret)
        boot_enter_real_mode(ctx, BOOT_PARAMS, (BOOT_PARAMS + 0x200) >> 4, REAL_MODE_MAX);
    return ret;
}

/* Everything is in place: the header, and the state that the entry asks for. */
static int enter(struct boot_context *ctx, const struct boot_file *file, const struct image *image,
                 const struct placed *placed, const struct setup_header *hdr)
{
    int ret;

    if (placed->mode == MACHINE_ENTRY_16)
        return put_real_mode(ctx, file, image, hdr);
    ret = put_zero_page(ctx, hdr);
    if (!ret)
        ret = placed->mode == MACHINE_ENTRY_64
                  ? boot_enter_long_mode(ctx, placed->entry, placed->levels)
                  : boot_enter_protected_mode(ctx, (u32)placed->entry);
    ctx->regs.rsi = BOOT_PARAMS;
    return ret;
}

int boot_linux(struct boot_context *ctx, const struct boot_file *file, struct err *err)
{
    struct setup_header hdr;
    u64 initrd, initrd_size;
    struct placed placed = {0};
    struct image image = {0};
    int ret = parse(file, &image, err);

    if (!ret)
        ret = choose_entry(ctx, file, &image, &placed.mode, err);
    if (ret)
        return ret;
    ret = ctx->unpack && ctx->entry == MACHINE_ENTRY_AUTO
              ? load_unpacked(ctx, file, &image, &placed)
              : -ENOTSUP;
    if (ret == -ENOTSUP)
        ret = load_packed(ctx, file, &image, &placed, err);
    if (ret)
        return ret;
    if (placed.end > ctx->low_end)
        return too_large(ctx, file, placed.first, placed.end - placed.first, err);
    ret = boot_load_initrd(ctx, (u64)image.hdr.initrd_addr_max + 1, placed.first, placed.end,
                           &initrd, &initrd_size, err);
    if (!ret)
        ret = boot_put_command_line(ctx, image.hdr.cmdline_size, err);
    if (ret)
        return ret;
    hdr = fill_header(&image, &placed, initrd, initrd_size);
    ret = put_seed(ctx);
    return ret ? ret : enter(ctx, file, &image, &placed, &hdr);
}
