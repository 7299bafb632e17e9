/* What all boot protocols share: files, initrd, command line, descriptor and page tables. */
#include "machine/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"

static int open_file(const char *path, const char *what, int *fd, u64 *size, struct err *err)
{
    struct stat st;

    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no waiting for a pipe's writer */
    if (*fd < 0)
        return err_set(err, -errno, "cannot open the %s %s: %s", what, path, strerror(errno));
    if (fstat(*fd, &st) || !S_ISREG(st.st_mode)) {
        close(*fd);
        return err_set(err, -EINVAL, "the %s %s is %s", what, path,
                       S_ISDIR(st.st_mode) ? "a directory" : "not a plain file");
    }
    if (!st.st_size) {
        close(*fd);
        return err_set(err, -EINVAL, "the %s %s is empty", what, path);
    }
    *size = (u64)st.st_size;
    return 0;
}

static int read_all(int fd, u8 *to, u64 size)
{
    for (u64 done = 0; done < size;) {
        ssize_t len = read(fd, to + done, size - done);

        if (len < 0 && errno == EINTR)
            continue;
        if (len <= 0)
            return len ? -errno : -EIO;
        done += (u64)len;
    }
    return 0;
}

int boot_read_file(const char *path, const char *what, struct boot_file *file, struct err *err)
{
    u64 size = 0;
    int fd, ret;

    ret = open_file(path, what, &fd, &size, err);
    if (ret)
        return ret;
    *file = (struct boot_file){.path = path, .size = size};
    file->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (file->data == MAP_FAILED) {
        close(fd);
        return err_set(err, -ENOMEM, "out of memory for the %s %s", what, path);
    }
    mem_populate(file->data, size);
    ret = read_all(fd, file->data, size);
    close(fd);
    if (ret) {
        boot_free_file(file);
        return err_set(err, ret, "cannot read the %s %s: %s", what, path, strerror(-ret));
    }
    return 0;
}

void boot_free_file(struct boot_file *file)
{
    munmap(file->data, file->size);
}

/* Kernels packed whole by gzip, as boot loaders take them: the size comes last (RFC 1952,
 * 2.3.1). */
static int unpack_file(struct boot_file *file, struct err *err)
{
    struct boot_file plain = {.path = file->path};
    const char *format = boot_unpack_format(file->data, file->size);
    u32 size;

    if (!format || strcmp(format, "gzip") || file->size < 18 || !boot_unpack_supported(format))
        return 0;
    memcpy(&size, file->data + file->size - 4, 4);
    plain.size = size;
    plain.data = size ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                      : MAP_FAILED;
    if (plain.data == MAP_FAILED)
        return err_set(err, -EINVAL,
                       "the kernel %s cannot be unpacked: it says that it has %u bytes", file->path,
                       size);
    if (boot_unpack(file->data, file->size, plain.data, size) != (s64)size) {
        boot_free_file(&plain);
        return err_set(err, -EINVAL, "the kernel %s is damaged: its gzip data cannot be unpacked",
                       file->path);
    }
    boot_free_file(file);
    *file = plain;
    return 0;
}

int boot_kernel(struct boot_context *ctx, const char *path, struct err *err)
{
    static const u8 arm64_magic[] = {'A', 'R', 'M', 0x64};
    struct boot_file file;
    int ret = boot_read_file(path, "kernel", &file, err);

    if (ret)
        return ret;
    ret = unpack_file(&file, err);
    if (ret) {
        boot_free_file(&file);
        return ret;
    }
    if (ctx->entry != MACHINE_ENTRY_AUTO && !boot_linux_recognizes(&file))
        ret = err_set(err, -EINVAL, "--entry is for a Linux bzImage, which %s is not", path);
    else if (boot_linux_recognizes(&file))
        ret = boot_linux(ctx, &file, err);
    else if (boot_multiboot_recognizes(&file))
        ret = boot_multiboot(ctx, &file, err);
    else if (boot_elf_recognizes(&file))
        ret = boot_pvh(ctx, &file, err);
    else if (file.size > 0x40 && !memcmp(file.data + 0x38, arm64_magic, sizeof(arm64_magic)))
        ret = err_set(err, -EINVAL, "the kernel %s is for arm64, not for x86-64", path);
    else
        ret = err_set(err, -EINVAL,
                      "the kernel %s is neither a Linux bzImage nor an ELF file nor a Multiboot "
                      "kernel",
                      path);
    boot_free_file(&file);
    return ret;
}

int boot_load_initrd(struct boot_context *ctx, u64 limit, u64 used_first, u64 used_end, u64 *gpa,
                     u64 *size, struct err *err)
{
    u64 end = limit < ctx->low_end ? limit : ctx->low_end;
    u8 *hva;
    int fd, ret;

    *gpa = *size = 0;
    if (!ctx->initrd_path)
        return 0;
    ret = open_file(ctx->initrd_path, "initrd", &fd, size, err);
    if (ret)
        return ret;
    /* As high as it may be, so that it is out of the kernel's way; below the kernel at worst. */
    *gpa = *size < end ? align_down(end - *size, MEM_PAGE_SIZE) : 0;
    if (*gpa<used_end && * gpa + *size> used_first)
        *gpa = *size < used_first ? align_down(used_first - *size, MEM_PAGE_SIZE) : 0;
    if (*gpa < MiB) {
        close(fd);
        return err_set(err, -E2BIG,
                       "the initrd %s (%" PRIu64 " KiB) does not fit into the guest's memory "
                       "beside the kernel; give it more with --mem",
                       ctx->initrd_path, (*size + KiB - 1) / KiB);
    }
    hva = mem_hva(ctx->mem, *gpa, *size, true);
    ret = hva ? read_all(fd, hva, *size) : -EFAULT;
    close(fd);
    if (ret)
        return err_set(err, ret, "cannot read the initrd %s: %s", ctx->initrd_path, strerror(-ret));
    mem_wrote(ctx->mem, *gpa, *size);
    return 0;
}

int boot_put_command_line(struct boot_context *ctx, u64 max, struct err *err)
{
    const char *text = ctx->command_line ? ctx->command_line : BOOT_DEFAULT_COMMAND_LINE;
    u64 len = strlen(text);

    if (max >= BOOT_COMMAND_LINE_MAX)
        max = BOOT_COMMAND_LINE_MAX - 1;
    if (len > max)
        return err_set(err, -E2BIG,
                       "the kernel command line has %" PRIu64
                       " characters; this kernel takes %" PRIu64,
                       len, max);
    return mem_write(ctx->mem, BOOT_COMMAND_LINE, text, len + 1);
}

int boot_put_base_memory(struct boot_context *ctx)
{
    u16 kilobytes = (u16)(ctx->map->ranges[0].size / KiB);

    return mem_write(ctx->mem, BOOT_BASE_MEMORY, &kilobytes, sizeof(kilobytes));
}

enum { SELECTOR_CODE = 0x10, SELECTOR_DATA = 0x18, SELECTOR_TSS = 0x20 };

static struct kvm_segment flat_segment(u16 selector, u8 type, bool code, bool code64)
{
    return (struct kvm_segment){
        .base = 0,
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .g = 1,
        .db = !code64,
        .l = code && code64,
    };
}

/* A segment register's hidden part as a GDT entry (SDM 3.4.5). */
static u64 descriptor(const struct kvm_segment *s)
{
    u64 limit = s->g ? s->limit >> 12 : s->limit;

    return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (u64)s->type << 40 | (u64)s->s << 44 |
           (u64)s->dpl << 45 | (u64)s->present << 47 | (limit >> 16 & 15) << 48 | (u64)s->l << 53 |
           (u64)s->db << 54 | (u64)s->g << 55 | (s->base >> 24 & 0xff) << 56;
}

/* Flat segments in registers and in a GDT: boot.rst asks for __BOOT_CS 0x10 and __BOOT_DS 0x18. */
static int set_segments(struct boot_context *ctx, bool code64)
{
    struct kvm_sregs *s = &ctx->sregs;
    struct kvm_segment data = flat_segment(SELECTOR_DATA, 3, false, false);
    u64 gdt[6] = {0};

    s->cs = flat_segment(SELECTOR_CODE, 11, true, code64);
    s->ds = s->es = s->fs = s->gs = s->ss = data;
    s->tr = (struct kvm_segment){.limit = 0x67, .selector = SELECTOR_TSS, .type = 11, .present = 1};
    s->ldt = (struct kvm_segment){.type = 2, .unusable = 1};
    gdt[SELECTOR_CODE / 8] = descriptor(&s->cs);
    gdt[SELECTOR_DATA / 8] = descriptor(&data);
    gdt[SELECTOR_TSS / 8] = descriptor(&s->tr);
    s->gdt.base = BOOT_GDT;
    s->gdt.limit = sizeof(gdt) - 1;
    s->idt.base = 0;
    s->idt.limit = 0;
    return mem_write(ctx->mem, BOOT_GDT, gdt, sizeof(gdt));
}

static void set_registers(struct boot_context *ctx, u64 entry)
{
    memset(&ctx->regs, 0, sizeof(ctx->regs));
    ctx->regs.rip = entry;
    ctx->regs.rflags = 2;
}

#define CR0_PE BIT(0)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_PG BIT(31)
#define CR4_PAE BIT(5)
#define CR4_LA57 BIT(12)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)

int boot_enter_protected_mode(struct boot_context *ctx, u32 entry)
{
    set_registers(ctx, entry);
    ctx->sregs.cr0 = CR0_PE | CR0_ET;
    ctx->sregs.cr3 = ctx->sregs.cr4 = ctx->sregs.efer = 0;
    return set_segments(ctx, false);
}

void boot_enter_real_mode(struct boot_context *ctx, u32 gpa, u16 code_segment, u16 stack)
{
    struct kvm_sregs *s = &ctx->sregs;
    struct kvm_segment data = {
        .base = gpa,
        .limit = 0xffff,
        .selector = (u16)(gpa >> 4),
        .type = 3,
        .present = 1,
        .s = 1,
    };

    set_registers(ctx, 0);
    ctx->regs.rsp = stack;
    s->ds = s->es = s->fs = s->gs = s->ss = s->cs = data;
    s->cs.base = (u64)code_segment << 4;
    s->cs.selector = code_segment;
    s->cs.type = 11;
    s->cr0 = CR0_ET;
    s->cr3 = s->cr4 = s->efer = 0;
    s->idt.base = 0;
    s->idt.limit = 0x3ff;
}

/* The first 4 GiB mapped one to one by 2-MiB pages: four page directories, a PDPT, a PML4 and, with
 * 5 @levels, a PML5. Answers the outermost table's gpa in @root. */
static int put_page_tables(struct boot_context *ctx, unsigned levels, u64 *root)
{
    enum { PRESENT_WRITE = 3, LARGE = 0x80, ENTRIES = 512, DIRECTORIES = 4 };
    u64 tables[DIRECTORIES + 3][ENTRIES] = {0};
    const u64 base = BOOT_PAGE_TABLES;
    unsigned table = DIRECTORIES;

    for (unsigned i = 0; i < DIRECTORIES; i++) {
        tables[table][i] = (base + i * MEM_PAGE_SIZE) | PRESENT_WRITE;
        for (unsigned j = 0; j < ENTRIES; j++)
            tables[i][j] = i * GiB + j * 2 * MiB + (PRESENT_WRITE | LARGE);
    }
    for (unsigned level = 4; level <= levels; level++, table++)
        tables[table + 1][0] = (base + table * MEM_PAGE_SIZE) | PRESENT_WRITE;
    *root = base + table * MEM_PAGE_SIZE;
    return mem_write(ctx->mem, base, tables, sizeof(tables));
}

int boot_enter_long_mode(struct boot_context *ctx, u64 entry, unsigned levels)
{
    u64 root;
    int ret = put_page_tables(ctx, levels, &root);

    set_registers(ctx, entry);
    ctx->sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    ctx->sregs.cr3 = root;
    ctx->sregs.cr4 = CR4_PAE | (levels == 5 ? CR4_LA57 : 0);
    ctx->sregs.efer = EFER_LME | EFER_LMA;
    return ret ? ret : set_segments(ctx, true);
}
