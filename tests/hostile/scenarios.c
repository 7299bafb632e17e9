/* What a guest can do to its virtual machine monitor, scenario by scenario. */
#include "guest.h"

/* Everywhere something is, or nothing: holes, ROM, APICs, ECAM, the ends of RAM and of 4 GiB. */
static const u64 places[] = {0xa0000,    0xb8000,    0xc0000,    0xdfff0,    0xe0000,
                             0xfffc0,    0x3fffff0,  0x4000000,  0xb0000000, 0xb0100000,
                             0xc0000000, 0xe0000000, 0xfe000000, 0xfec00000, 0xfec00ff0,
                             0xfed00000, 0xfee00000, 0xfee00ff0, 0xfff00000, 0xfffffff0};

static u64 place(void)
{
    u64 r = random(), at = places[(r >> 32) % (sizeof places / sizeof *places)];

    at += r & 0x300 ? r & 0x3f : r & 0x1fff;
    /* An INIT of itself would be the end: not the ICR. */
    if ((at & ~0xffull) == 0xfee00300)
        at += 0x100;
    return at & 0xffffffff;
}

static void read_memory(u64 at)
{
    u8 *scratch = SCRATCH;
    u64 count = random() & 0x1f;

    switch (random() % 6) {
    case 0:
        TRY("movb (%0), %%al", : : "r"(at) : "rax");
        break;
    case 1:
        TRY("movl (%0), %%eax", : : "r"(at) : "rax");
        break;
    case 2:
        TRY("movq (%0), %%rax", : : "r"(at) : "rax");
        break;
    case 3:
        TRY("movdqu (%0), %%xmm0", : : "r"(at));
        break;
    case 4:
        TRY("fxrstor (%0)", : : "r"(at & ~15ull));
        break;
    default:
        TRY("rep movsb", : "+S"(at), "+D"(scratch), "+c"(count) : : "memory");
        break;
    }
}

static void access_memory(u64 at)
{
    u64 value = random();
    u8 *scratch = SCRATCH;
    u64 count = value & 0xf;

    switch (random() % 20) {
    case 0:
        TRY("movb (%0), %%al", : : "r"(at) : "rax");
        break;
    case 1:
        TRY("movw (%0), %%ax", : : "r"(at) : "rax");
        break;
    case 2:
        TRY("movl (%0), %%eax", : : "r"(at) : "rax");
        break;
    case 3:
        TRY("movq (%0), %%rax", : : "r"(at) : "rax");
        break;
    case 4:
        TRY("movb %b1, (%0)", : : "r"(at), "r"(value));
        break;
    case 5:
        TRY("movw %w1, (%0)", : : "r"(at), "r"(value));
        break;
    case 6:
        TRY("movl %k1, (%0)", : : "r"(at), "r"(value));
        break;
    case 7:
        TRY("movq %1, (%0)", : : "r"(at), "r"(value));
        break;
    case 8:
        TRY("movdqu (%0), %%xmm0", : : "r"(at));
        break;
    case 9:
        TRY("movdqu %%xmm0, (%0)", : : "r"(at));
        break;
    case 10:
        TRY("lock addl %k1, (%0)", : : "r"(at), "r"(value));
        break;
    case 11:
        TRY("xchgq %1, (%0)", : : "r"(at), "r"(value));
        break;
    case 12:
        TRY("lock cmpxchg16b (%0)", : : "r"(at) : "rax", "rdx");
        break;
    case 13:
        TRY("rep movsb", : "+S"(at), "+D"(scratch), "+c"(count) : : "memory");
        break;
    case 14:
        TRY("rep stosq", : "+D"(at), "+c"(count) : "a"(value) : "memory");
        break;
    case 15:
        asm volatile(
            "movq %%rsp, %%rbx; movq $9f, guard_ip; movq %0, %%rsp; pushq %%rax; popq %%rax\n"
            "9: movq %%rbx, %%rsp; movq $0, guard_ip"
            :
            : "r"(at)
            : "rbx", "rax", "memory");
        break;
    case 16:
        TRY("fxsave (%0)", : : "r"(at & ~15ull));
        break;
    case 17:
        TRY("fldt (%0); fstpt (%0)", : : "r"(at));
        break;
    case 18:
        TRY("lock btsq %1, (%0)", : : "r"(at), "r"(value & 0xff));
        break;
    default:
        TRY("incw (%0); notb (%0); shll $3, (%0)", : : "r"(at));
        break;
    }
}

static void mmio(void)
{
    for (unsigned i = 0; i < 30000; i++)
        access_memory(place());
}

/* What ends or resets the machine, or is the way to say so. */
static bool deadly(u16 port)
{
    static const u16 first_last[][2] = {{0x64, 0x64},   {0x92, 0x92},    {0xf4, 0xf7},
                                        {0x3f8, 0x3ff}, {0x402, 0x402},  {0x600, 0x607},
                                        {0xcf9, 0xcf9}, {0x8900, 0x8900}};

    for (unsigned i = 0; i < sizeof first_last / sizeof *first_last; i++)
        if (port + 3 >= first_last[i][0] && port <= first_last[i][1])
            return true;
    return false;
}

static void ports(void)
{
    u8 *at = SCRATCH;
    u64 count;

    for (u32 port = 0; port < 65536; port++) {
        asm volatile("inb %w0, %%al; inw %w0, %%ax; inl %w0, %%eax" : : "d"(port) : "rax");
        if (!(port & 0xff)) {
            at = SCRATCH;
            count = 64;
            asm volatile("rep insl" : "+D"(at), "+c"(count) : "d"(port) : "memory");
        }
    }
    for (u32 port = 0; port < 65536; port++) {
        if (deadly((u16)port))
            continue;
        asm volatile("outb %b1, %w0; outw %w1, %w0; outl %1, %w0"
                     :
                     : "d"(port), "a"((u32)random()));
        if (!(port & 0x3ff)) {
            at = SCRATCH;
            count = 64;
            asm volatile("rep outsw" : "+S"(at), "+c"(count) : "d"(port) : "memory");
        }
    }
}

/* IPIs to itself and everybody, with a fast timer and level-triggered lines that nobody serves. */
static void storm(void)
{
    outb(0x21, 0xff); /* the 8259's vectors would look like exceptions */
    outb(0xa1, 0xff);
    start_cpus(2);
    for (unsigned pin = 0; pin < 24; pin++) {
        *(volatile u32 *)0xfec00000 = 0x10 + pin * 2;
        *(volatile u32 *)0xfec00010 = 0x8041 + pin % 8; /* level */
    }
    lapic_timer(200);
    asm volatile("sti");
    for (unsigned i = 0; i < 40000; i++) {
        u32 shorthand = (u32)(random() % 3 + 1) << 18;

        lapic_write(0x300, shorthand | 0x4000 | (0x42 + i % 32));
        lapic_write(0x380, (u32)random() & 0xff);
        if (!(i & 15))
            asm volatile("outl %0, %w1" : : "a"((u32)i & 16), "d"(0x2000 + i % 16));
    }
    asm volatile("cli");
}

static void write_cr3(u64 value)
{
    asm volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}

/* Tables that point to themselves, to MMIO, to nowhere, with reserved bits, and that change all the
 * time. */
static void paging(void)
{
    volatile u64 *pdpt = tables + 512;
    volatile u64 *directory = (volatile u64 *)(SCRATCH + 0x10000);
    u64 base = 0x100000000; /* the fifth GiB */

    for (unsigned i = 0; i < 20000; i++) {
        static const u64 targets[] = {0,          0xfee00000,     0xfec00000, 0x4000000,
                                      0xb0000000, 0xfffffffff000, 0x800000,   0xc0000};
        u64 r = random(), entry = targets[r >> 40 & 7] | (r & 0xfff) | (r & 0x30 ? 3 : 0);

        if (r >> 60 == 0)
            entry |= r << 1;
        if (r >> 60 == 1)
            entry = (u64)tables | 3; /* a loop */
        if (r >> 60 == 2)
            entry = (u64)pdpt | 7;
        if (r >> 60 >= 12)
            entry = (u64)directory | 7;
        if (i & 1)
            pdpt[4] = entry;
        else
            directory[r >> 32 & 511] = entry;
        if (r & 0x1000)
            write_cr3((u64)tables);
        read_memory(base + (r >> 20 & 0x3fffffff));
    }
    pdpt[4] = 0;
    /* A CR3 that leads to nothing is a triple fault: the last thing to do. */
    for (u64 r = 0; r < 64; r++)
        TRY("movq %%cr3, %%rbx; movq %0, %%cr3; movq %%rbx, %%cr3",
            :
            : "r"((u64)tables | r)
            : "rbx", "memory");
}

static void jump_to(u64 at)
{
    u64 regs[15] = {0};

    attempting = true;
    attempt(8, at, 16, (u64)SCRATCH, 0x202, regs);
    attempting = false;
}

/* Executing what is no RAM ends as the documentation says: status 4. What is there to execute
 * runs. */
static void execute_rom(void)
{
    lapic_timer(100000);
    jump_to(0xc0000);
    jump_to(0xffff0);
    for (unsigned i = 0; i < 200; i++)
        jump_to(0xe0000 + random() % 0x1fff0);
}

static void execute_mmio(void)
{
    jump_to(0xfee00000);
}

static void execute_nothing(void)
{
    jump_to(0x4000000 - 1); /* across the end of RAM */
}

/* Instructions across the end of a page, with the next one missing, changing and coming back. */
static void page_ends(void)
{
    static const u8 code[] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xc3}; /* movabs; ret */
    volatile u64 *directory = tables + 1024;
    volatile u64 *table = (volatile u64 *)(SCRATCH + 0x20000);
    u8 *ram = SCRATCH + 0x200000;

    for (u64 i = 0; i < 512; i++)
        table[i] = ((u64)ram + i * 4096) | 3;
    directory[8] = (u64)table | 7;
    write_cr3((u64)tables);
    for (unsigned i = 0; i < 20000; i++) {
        u64 start = 4096 - random() % sizeof code, r = random();
        u64 target = 0x1000000 + start;

        for (unsigned k = 0; k < sizeof code; k++)
            ram[start + k] = code[k];
        ram[start + 2 + r % 8] = (u8)(r >> 8);
        if (r & 0x10000) {
            table[1] = r & 0x20000 ? 0 : (0xfee00000 | 3);
            asm volatile("invlpg (%0)" : : "r"(0x1001000ull) : "memory");
        }
        if (!(table[1] & 1))
            TRY("jmp *%0", : : "r"(target) : "rax", "memory");
        else if (!(r & 0x10000))
            asm volatile("call *%0" : : "r"(target) : "rax", "memory");
        table[1] = ((u64)ram + 4096) | 3;
        asm volatile("invlpg (%0)" : : "r"(0x1001000ull) : "memory");
    }
}

/* 2^20 changes of code that runs. */
static void self_modify(void)
{
    u8 *code = SCRATCH + 0x1000;
    u32 got, wrong = 0;

    code[0] = 0xb8;
    code[5] = 0xc3;
    for (u32 i = 0; i < 1u << 20; i++) {
        *(volatile u32 *)(code + 1) = i;
        asm volatile("call *%1" : "=a"(got) : "r"(code) : "memory");
        wrong += got != i;
    }
    if (wrong) {
        say("old code ran\n");
        outb(PORT_EXIT, FORBIDDEN);
    }
}

static void msrs(void)
{
    static const u32 ranges[] = {0,     0x100,      0x170,      0x1d0,      0x200,      0x260,
                                 0x2f0, 0x400,      0x480,      0x600,      0x6e0,      0x800,
                                 0xd90, 0xc0000080, 0xc0000100, 0x40000000, 0x4b564d00, 0xc0010000};

    for (unsigned i = 0; i < 100000; i++) {
        u64 r = random(), value = random();
        u32 msr = ranges[(r >> 32) % (sizeof ranges / sizeof *ranges)] + (r & 0x7f);

        if (!(r & 0xf00000))
            msr = (u32)(r >> 8);
        if (r & 0x1000000)
            value &= 0xffff;
        TRY("rdmsr", : : "c"(msr) : "rax", "rdx");
        /* Not what makes our own way here lead elsewhere: EFER, the APIC's base and its INITs. */
        if (msr == 0xc0000080 || msr == 0x1b || msr == 0x830)
            continue;
        TRY("wrmsr", : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
    }
}

static void control_registers(void)
{
    u64 cr0, cr4;

    asm volatile("mov %%cr0, %0; mov %%cr4, %1" : "=r"(cr0), "=r"(cr4));
    for (unsigned i = 0; i < 30000; i++) {
        u64 r = random(), bit = 1ull << (r >> 8 & 63);

        switch (r & 7) {
        case 0:
            TRY("mov %0, %%cr4", : : "r"(cr4 ^ (bit & ~0x20ull)));
            break;
        case 1:
            TRY("mov %0, %%cr0", : : "r"(cr0 ^ (bit & ~0x80000001ull)));
            break;
        case 2:
            TRY("mov %0, %%cr8", : : "r"(r >> (r >> 10 & 63)));
            break;
        case 3:
            TRY("mov %0, %%cr2", : : "r"(r));
            break;
        case 4:
            TRY("mov %0, %%cr4; xsetbv; xgetbv",
                :
                : "r"(cr4 | 1 << 18), "a"(r >> 16), "d"(r >> 60), "c"(r >> 40 & 3 ? 0 : r >> 32));
            break;
        case 5:
            TRY("mov %0, %%dr7; mov %0, %%dr0", : : "r"(r & ~0xffull));
            break;
        case 6:
            TRY("lmsw %w0; clts", : : "r"((r >> 16 & ~1ull) | 1));
            break;
        default:
            TRY("mov %0, %%cr3; mov %1, %%cr3",
                :
                : "r"((u64)tables | (r & 0x18)), "r"((u64)tables));
            break;
        }
        TRY("mov %0, %%cr4; mov %1, %%cr0", : : "r"(cr4), "r"(cr0));
    }
}

static void random_code(u8 *code)
{
    static const u8 common[] = {0x0f, 0x48, 0x66, 0xf3, 0xf2, 0x8b, 0x89, 0xff, 0xe8, 0xeb, 0x74,
                                0xc3, 0xcd, 0x50, 0x58, 0xa4, 0xab, 0xf0, 0x38, 0x3a, 0xd9, 0xdd};

    for (unsigned i = 0; i < 256; i++) {
        u64 r = random();

        code[i] = r & 0x100 ? (u8)r : common[(r >> 16) % sizeof common];
    }
}

static void random_registers(u64 regs[15], u64 where)
{
    for (unsigned i = 0; i < 15; i++) {
        u64 r = random();

        regs[i] = r & 1 ? where + (r >> 8 & 0xfff) : r >> (r >> 1 & 63);
    }
}

/* Random bytes as code. At level 3 a timer ends what does not end; at level 0 nothing can, and
 * whoever started us has to. */
static void run_bytes(bool user, unsigned attempts)
{
    u8 *code = SCRATCH + 0x400000;
    u64 regs[15];

    tables[1024 + 6] |= user ? 4 : 0; /* 2 MiB at SCRATCH + 4 MiB */
    for (u64 i = 32; i < 2048; i++)   /* jumps beyond RAM are page faults, not the end */
        tables[1024 + i] = i == LAPIC >> 21 ? i << 21 | 0x8000000000000083 : 0;
    write_cr3((u64)tables);
    lapic_timer(500000);
    for (unsigned i = 0; i < attempts; i++) {
        u64 start = (random() & 0x1fff) + 0x1000;

        random_code(code + start);
        random_registers(regs, (u64)code);
        attempting = true;
        attempt(user ? 0x2b : 8, (u64)code + start, user ? 0x23 : 16, (u64)code + 0x8000, 0x202,
                regs);
        attempting = false;
    }
}

static void bytes_user(void)
{
    run_bytes(true, 4000);
}

static void bytes_kernel(void)
{
    run_bytes(false, 4000);
}

void litmus2(void);
void litmus4(void);
void locked2(void);
void locked4(void);
void cross_modify(void);
void shootdown(void);

const struct scenario scenarios[] = {
    {"mmio", mmio},
    {"ports", ports},
    {"storm", storm},
    {"paging", paging},
    {"execute-rom", execute_rom},
    {"execute-mmio", execute_mmio},
    {"execute-nothing", execute_nothing},
    {"page-ends", page_ends},
    {"self-modify", self_modify},
    {"msrs", msrs},
    {"control-registers", control_registers},
    {"bytes-user", bytes_user},
    {"bytes-kernel", bytes_kernel},
    {"litmus", litmus2},
    {"litmus4", litmus4},
    {"locked", locked2},
    {"locked4", locked4},
    {"cross-modify", cross_modify},
    {"shootdown", shootdown},
    {0, 0},
};
