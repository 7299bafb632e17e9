/* Puts the cases together to a program: a few lines of RISC-V machine code of our own. */
#include <elf.h>
#include <string.h>
#include <unistd.h>

#include "isa_riscv.h"

enum { X0, RA = 1, T0 = 5, A0 = 10, A1, A2, A3, A7 = 17, SCRATCH = 29 };
enum { SYS_WRITE = 64, SYS_EXIT = 93, SYS_SIGALTSTACK = 132, SYS_SIGACTION = 134 };
enum { SIGNAL_ON_STACK = 0x08000000, SIGNAL_INFO = 4 };
#define UCONTEXT_PC 176 /* Linux: struct ucontext of riscv64, uc_mcontext.gregs[0] */
#define STACK_BYTES 0x10000u

static void emit(struct isa_program *p, u32 word)
{
    p->text[p->words++] = word;
}

static u64 here(const struct isa_program *p)
{
    return ISA_TEXT + p->words * 4ull;
}

static void i_type(struct isa_program *p, u32 opcode, u32 funct3, u32 rd, u32 rs1, u32 imm)
{
    emit(p, (imm & 0xfff) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode);
}

static void s_type(struct isa_program *p, u32 opcode, u32 rs2, u32 rs1, u32 imm)
{
    emit(p, (imm >> 5 & 127) << 25 | rs2 << 20 | rs1 << 15 | 3 << 12 | (imm & 31) << 7 | opcode);
}

static void addi(struct isa_program *p, u32 rd, u32 rs1, u32 imm)
{
    i_type(p, 0x13, 0, rd, rs1, imm);
}

static void load(struct isa_program *p, u32 rd, u32 base, u32 offset)
{
    i_type(p, 0x03, 3, rd, base, offset);
}

static void store(struct isa_program *p, u32 rs, u32 base, u32 offset)
{
    s_type(p, 0x23, rs, base, offset);
}

static void li(struct isa_program *p, u32 rd, u32 value)
{
    emit(p, ((value + 0x800) & 0xfffff000) | rd << 7 | 0x37);
    addi(p, rd, rd, value);
}

static void jal(struct isa_program *p, u32 rd, u64 to)
{
    u32 d = (u32)(to - here(p));

    emit(p, (d >> 20 & 1) << 31 | (d >> 1 & 0x3ff) << 21 | (d >> 11 & 1) << 20 |
                (d >> 12 & 0xff) << 12 | rd << 7 | 0x6f);
}

static void ret(struct isa_program *p, u32 link)
{
    i_type(p, 0x67, 0, X0, link, 0);
}

static void do_syscall(struct isa_program *p, u32 number)
{
    addi(p, A7, X0, number);
    emit(p, 0x73);
}

#define X_OFFSET(n) (u32)(offsetof(struct isa_area, x) + 8 * (n))
#define F_OFFSET(n) (u32)(offsetof(struct isa_area, f) + 8 * (n))
#define FCSR_OFFSET (u32) offsetof(struct isa_area, fcsr)
#define FAULT_OFFSET (u32) offsetof(struct isa_area, fault)

static u64 emit_load_state(struct isa_program *p)
{
    u64 at = here(p);

    load(p, SCRATCH, ISA_AREA, FCSR_OFFSET);
    i_type(p, 0x73, 1, X0, SCRATCH, 3); /* FSCSR */
    for (u32 n = 0; n < 32; n++)
        i_type(p, 0x07, 3, n, ISA_AREA, F_OFFSET(n));
    for (u32 n = 1; n < ISA_LINK; n++)
        load(p, n, ISA_AREA, X_OFFSET(n));
    ret(p, ISA_LINK);
    return at;
}

static u64 emit_save_state(struct isa_program *p)
{
    u64 at = here(p);

    for (u32 n = 1; n < ISA_LINK; n++)
        store(p, n, ISA_AREA, X_OFFSET(n));
    for (u32 n = 0; n < 32; n++)
        s_type(p, 0x27, n, ISA_AREA, F_OFFSET(n));
    i_type(p, 0x73, 2, SCRATCH, X0, 3); /* FRCSR */
    store(p, SCRATCH, ISA_AREA, FCSR_OFFSET);
    ret(p, ISA_LINK);
    return at;
}

/* Notes the signal and steps over the instruction. */
static u64 emit_handler(struct isa_program *p)
{
    u64 at = here(p);

    load(p, T0, A2, UCONTEXT_PC + 8 * ISA_AREA);
    store(p, A0, T0, FAULT_OFFSET);
    load(p, T0, A2, UCONTEXT_PC);
    addi(p, T0, T0, 4);
    store(p, T0, A2, UCONTEXT_PC);
    ret(p, RA);
    return at;
}

static void emit_signals(struct isa_program *p, u64 stack, u64 action)
{
    static const u8 signals[] = {4, 5, 7, 11};

    li(p, A0, (u32)stack);
    addi(p, A1, X0, 0);
    do_syscall(p, SYS_SIGALTSTACK);
    for (unsigned i = 0; i < sizeof(signals); i++) {
        addi(p, A0, X0, signals[i]);
        li(p, A1, (u32)action);
        addi(p, A2, X0, 0);
        addi(p, A3, X0, 8);
        do_syscall(p, SYS_SIGACTION);
    }
}

void isa_make_program(struct isa_program *p, const struct isa_case *cases, unsigned count)
{
    u64 load_state, save_state, handler;
    u64 behind = count * sizeof(struct isa_area);
    u64 stack[3] = {ISA_DATA + behind + 64, 0, STACK_BYTES};
    u64 action[3] = {0, SIGNAL_ON_STACK | SIGNAL_INFO, 0};

    p->words = 0;
    p->results_bytes = behind;
    p->data_bytes = behind + 64 + STACK_BYTES;
    memset(p->data, 0, p->data_bytes);
    load_state = emit_load_state(p);
    save_state = emit_save_state(p);
    handler = emit_handler(p);
    action[0] = handler;
    memcpy(p->data + behind, stack, sizeof(stack));
    memcpy(p->data + behind + sizeof(stack), action, sizeof(action));
    p->entry = here(p);
    emit_signals(p, ISA_DATA + behind, ISA_DATA + behind + sizeof(stack));
    for (unsigned i = 0; i < count; i++) {
        memcpy(p->data + i * sizeof(struct isa_area), &cases[i].in, sizeof(cases[i].in));
        while (here(p) < isa_case_pc(i) - 12)
            addi(p, X0, X0, 0);
        li(p, ISA_AREA, (u32)isa_area_address(i));
        jal(p, ISA_LINK, load_state);
        for (unsigned n = 0; n < isa_words; n++)
            emit(p, n >= cases[i].count ? 0x13
                    : cases[i].text     ? cases[i].text[n]
                                        : cases[i].word[n]);
        jal(p, ISA_LINK, save_state);
    }
    addi(p, A0, X0, 1);
    li(p, A1, ISA_DATA);
    li(p, A2, (u32)behind);
    do_syscall(p, SYS_WRITE);
    addi(p, A0, X0, 0);
    do_syscall(p, SYS_EXIT);
}

int isa_write_elf(const struct isa_program *p, int fd)
{
    struct {
        Elf64_Ehdr head;
        Elf64_Phdr text, data;
    } h = {
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_RISCV,
                 .e_version = EV_CURRENT,
                 .e_entry = p->entry,
                 .e_phoff = sizeof(Elf64_Ehdr),
                 .e_flags = 5, /* RVC, double-precision calls */
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .text = {.p_type = PT_LOAD,
                 .p_flags = PF_R | PF_W | PF_X,
                 .p_offset = 4096,
                 .p_vaddr = ISA_TEXT,
                 .p_filesz = p->words * 4ull,
                 .p_memsz = p->words * 4ull,
                 .p_align = 4096},
        .data = {.p_type = PT_LOAD,
                 .p_flags = PF_R | PF_W,
                 .p_offset = 4096 + ISA_TEXT_SIZE,
                 .p_vaddr = ISA_DATA,
                 .p_filesz = p->data_bytes,
                 .p_memsz = p->data_bytes,
                 .p_align = 4096},
    };

    if (pwrite(fd, &h, sizeof(h), 0) != sizeof(h) ||
        pwrite(fd, p->text, p->words * 4, 4096) != (ssize_t)(p->words * 4) ||
        pwrite(fd, p->data, p->data_bytes, 4096 + ISA_TEXT_SIZE) != (ssize_t)p->data_bytes)
        return -1;
    return 0;
}
