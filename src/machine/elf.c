/* ELF executables for x86-64 and i386 (System V ABI and its supplements): header, segments,
 * notes. */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "machine/boot.h"

#define NT_XEN_PHYS32_ENTRY 18 /* Xen, public/elfnote.h */

bool boot_elf_recognizes(const struct boot_file *file)
{
    return file->size >= EI_NIDENT && !memcmp(file->data, ELFMAG, SELFMAG);
}

/* What both classes' headers have, in the wider one's types. */
struct header {
    bool is_32bit;
    u16 machine, type;
    u64 entry, table; /* table: offset of the program headers */
    unsigned count, entry_size;
};

static void read_header_32(const struct boot_file *file, struct header *header)
{
    Elf32_Ehdr raw;

    memcpy(&raw, file->data, sizeof(raw));
    *header = (struct header){true,        raw.e_machine, raw.e_type,     raw.e_entry,
                              raw.e_phoff, raw.e_phnum,   raw.e_phentsize};
}

static void read_header_64(const struct boot_file *file, struct header *header)
{
    Elf64_Ehdr raw;

    memcpy(&raw, file->data, sizeof(raw));
    *header = (struct header){false,       raw.e_machine, raw.e_type,     raw.e_entry,
                              raw.e_phoff, raw.e_phnum,   raw.e_phentsize};
}

static int check_header(const struct boot_file *file, struct header *header, struct err *err)
{
    bool is_32bit = file->data[EI_CLASS] == ELFCLASS32;
    size_t size = is_32bit ? sizeof(Elf32_Phdr) : sizeof(Elf64_Phdr);

    if (file->size < (is_32bit ? sizeof(Elf32_Ehdr) : sizeof(Elf64_Ehdr)))
        return err_set(err, -EINVAL, "the kernel %s is truncated within its ELF header",
                       file->path);
    (is_32bit ? read_header_32 : read_header_64)(file, header);
    if (file->data[EI_DATA] != ELFDATA2LSB || header->machine != (is_32bit ? EM_386 : EM_X86_64))
        return err_set(err, -EINVAL, "the kernel %s is an ELF file for another CPU (machine %u)",
                       file->path, header->machine);
    if (header->type != ET_EXEC)
        return err_set(err, -EINVAL,
                       "the kernel %s is an ELF file of type %u; a kernel has type %u, executable",
                       file->path, header->type, ET_EXEC);
    if (header->entry_size != size)
        return err_set(err, -EINVAL, "the kernel %s has program headers of %u bytes", file->path,
                       header->entry_size);
    if (header->table > file->size || (file->size - header->table) / size < header->count)
        return err_set(err, -EINVAL, "the kernel %s is truncated within its program headers",
                       file->path);
    return 0;
}

static Elf64_Phdr segment_at(const struct boot_file *file, const struct header *header, unsigned i)
{
    const u8 *at = file->data + header->table + (u64)i * header->entry_size;
    Elf64_Phdr segment;
    Elf32_Phdr raw;

    if (!header->is_32bit) {
        memcpy(&segment, at, sizeof(segment));
        return segment;
    }
    memcpy(&raw, at, sizeof(raw));
    return (Elf64_Phdr){
        .p_type = raw.p_type,
        .p_offset = raw.p_offset,
        .p_paddr = raw.p_paddr,
        .p_filesz = raw.p_filesz,
        .p_memsz = raw.p_memsz,
        .p_align = raw.p_align,
    };
}

static bool in_file(const struct boot_file *file, const Elf64_Phdr *segment)
{
    return segment->p_offset <= file->size && segment->p_filesz <= file->size - segment->p_offset;
}

/* Walks one PT_NOTE segment. Some linkers align notes to 8, and so say it in p_align. */
static u64 find_pvh_entry(const u8 *notes, u64 size, u64 align)
{
    u64 at = 0;

    align = align == 8 ? 8 : 4;
    while (size - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        u64 name = at + sizeof(note), desc, value = 0;

        memcpy(&note, notes + at, sizeof(note));
        desc = align_up(name + note.n_namesz, align);
        if (desc > size || note.n_descsz > size - desc)
            return 0;
        if (note.n_type == NT_XEN_PHYS32_ENTRY && note.n_namesz == 4 &&
            !memcmp(notes + name, "Xen", 4)) {
            memcpy(&value, notes + desc, note.n_descsz < 8 ? note.n_descsz : 8);
            return value;
        }
        at = align_up(desc + note.n_descsz, align);
        if (at > size)
            return 0;
    }
    return 0;
}

int boot_elf_parse(const struct boot_file *file, struct boot_elf *elf, struct err *err)
{
    struct header header;
    int ret = check_header(file, &header, err);

    if (ret)
        return ret;
    *elf = (struct boot_elf){.is_32bit = header.is_32bit, .entry = header.entry, .first = ~0ull};
    for (unsigned i = 0; i < header.count; i++) {
        Elf64_Phdr segment = segment_at(file, &header, i);

        if (segment.p_type != PT_LOAD && segment.p_type != PT_NOTE)
            continue;
        if (!in_file(file, &segment) || segment.p_filesz > segment.p_memsz ||
            segment.p_paddr + segment.p_memsz < segment.p_paddr)
            return err_set(err, -EINVAL, "the kernel %s is truncated within segment %u", file->path,
                           i);
        if (segment.p_type == PT_NOTE && !elf->pvh_entry)
            elf->pvh_entry =
                find_pvh_entry(file->data + segment.p_offset, segment.p_filesz, segment.p_align);
        if (segment.p_type != PT_LOAD || !segment.p_memsz)
            continue;
        if (segment.p_paddr < elf->first)
            elf->first = segment.p_paddr;
        if (segment.p_paddr + segment.p_memsz > elf->end)
            elf->end = segment.p_paddr + segment.p_memsz;
    }
    if (!elf->end)
        return err_set(err, -EINVAL, "the kernel %s has nothing to load", file->path);
    return 0;
}

int boot_elf_load(struct boot_context *ctx, const struct boot_file *file, struct err *err)
{
    struct header header;
    int ret = check_header(file, &header, err);

    for (unsigned i = 0; !ret && i < header.count; i++) {
        Elf64_Phdr segment = segment_at(file, &header, i);

        if (segment.p_type != PT_LOAD || !segment.p_memsz)
            continue;
        if (segment.p_paddr < MiB || segment.p_paddr + segment.p_memsz > ctx->low_end)
            return err_set(err, -E2BIG,
                           "segment %u of the kernel %s lies at %#" PRIx64 " to %#" PRIx64
                           ", where the guest has no memory",
                           i, file->path, (u64)segment.p_paddr,
                           (u64)(segment.p_paddr + segment.p_memsz));
        /* What lies beyond p_filesz is zero, and so is fresh guest memory. */
        ret = mem_write(ctx->mem, segment.p_paddr, file->data + segment.p_offset, segment.p_filesz);
    }
    return ret;
}

/* ---- A file that is in guest memory already ------------------------------------------------- */

#define MAX_MOVES 16

struct move {
    u64 from, to, len; /* from: offset in the file */
};

static int plan_moves(const struct boot_file *file, u64 gpa, struct move *moves, unsigned *count)
{
    struct header header;
    int ret = check_header(file, &header, NULL);

    *count = 0;
    for (unsigned i = 0; !ret && i < header.count; i++) {
        Elf64_Phdr segment = segment_at(file, &header, i);

        if (segment.p_type != PT_LOAD || !segment.p_memsz)
            continue;
        if (*count == MAX_MOVES)
            return -ENOTSUP;
        moves[(*count)++] = (struct move){segment.p_offset, segment.p_paddr, segment.p_filesz};
    }
    for (unsigned i = 0; i < *count; i++) {
        for (unsigned j = i + 1; j < *count; j++) {
            u64 source = gpa + moves[j].from;

            /* In order of place, and no move destroys what a later one needs. */
            if (moves[j].to < moves[i].to + moves[i].len ||
                (moves[i].to < source + moves[j].len && source < moves[i].to + moves[i].len))
                return -ENOTSUP;
        }
    }
    return ret;
}

/* Clears [from, to) as far as it lies within the file's range. */
static void clear(const struct boot_file *file, u64 gpa, u64 from, u64 to)
{
    u64 end = gpa + file->size;

    from = from < gpa ? gpa : from;
    to = to > end ? end : to;
    if (from < to)
        memset(file->data + (from - gpa), 0, to - from);
}

int boot_elf_settle(struct boot_context *ctx, const struct boot_file *file, u64 gpa)
{
    struct move moves[MAX_MOVES];
    u64 done = gpa;
    unsigned count;
    int ret = plan_moves(file, gpa, moves, &count);

    for (unsigned i = 0; !ret && i < count; i++)
        if (moves[i].to < MiB || !mem_hva(ctx->mem, moves[i].to, moves[i].len, true))
            ret = -ENOTSUP;
    if (ret)
        return -ENOTSUP;
    for (unsigned i = 0; i < count; i++)
        if (moves[i].to != gpa + moves[i].from)
            memmove(mem_hva(ctx->mem, moves[i].to, moves[i].len, true), file->data + moves[i].from,
                    moves[i].len);
    for (unsigned i = 0; i < count; i++) {
        clear(file, gpa, done, moves[i].to);
        done = moves[i].to + moves[i].len;
    }
    clear(file, gpa, done, gpa + file->size);
    mem_wrote(ctx->mem, gpa, file->size);
    for (unsigned i = 0; i < count; i++)
        mem_wrote(ctx->mem, moves[i].to, moves[i].len);
    return 0;
}
