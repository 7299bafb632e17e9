/* Exceptions: vectors, error codes, which RIP is saved, double and nested faults, IST. */
#include "rt.h"

static void divide(void)
{
    word ax = 1, dx = 0;

    EXPECT(TRAPS("divb %%bl", : "+a"(ax) : "b"(0)), 0);
    EXPECT(ax, 1);
    ax = 0;
    dx = 1;
    EXPECT(TRAPS("divl %%ebx", : "+a"(ax), "+d"(dx) : "b"(1)), 0); /* quotient of 33 bits */
    EXPECT(dx, 1);
    ax = 0x80000000;
    dx = 0xffffffff;
    EXPECT(TRAPS("idivl %%ebx", : "+a"(ax), "+d"(dx) : "b"(-1)), 0);
}

static void illegal(void)
{
    word ip;

    EXPECT(TRAPS("mov" W " $8f, %0; 8: ud2", : "=r"(ip)), 6);
    EXPECT(fault.ip, ip); /* a fault: RIP of the instruction */
    EXPECT(TRAPS(".byte 0x0f, 0xff, 0xc0", :), 6);
    EXPECT(TRAPS(".byte 0xf0; nop", :), 6);           /* LOCK where it may not be */
    EXPECT(TRAPS(".byte 0xf0, 0x01, 0xc0", :), 6);    /* LOCK ADD register */
    EXPECT(TRAPS(".byte 0xf0, 0x8b, 0x00", :), 6);    /* LOCK MOV */
    EXPECT(TRAPS(".byte 0x8e, 0xc8", : : "a"(0)), 6); /* MOV CS, AX */
}

static void traps(void)
{
    word ip;

    EXPECT(TRAPS("mov" W " $8f, %0; int3; 8:", : "=r"(ip)), 3);
    EXPECT(fault.ip, ip); /* a trap: RIP behind the instruction */
    EXPECT(TRAPS("mov" W " $8f, %0; .byte 0xcd, 3; 8:", : "=r"(ip)), 3);
    EXPECT(fault.ip, ip);
    EXPECT(TRAPS("int $0x44", :), 0x44);
#ifndef __x86_64__
    EXPECT(TRAPS("mov $0x7fffffff, %%eax; inc %%eax; into", : : : "eax"), 4);
    static const int bounds[2] = {1, 5};

    EXPECT(TRAPS("bound %0, %1", : : "r"(3), "m"(bounds)), NO_FAULT);
    EXPECT(TRAPS("bound %0, %1", : : "r"(6), "m"(bounds)), 5);
#else
    EXPECT(TRAPS(".byte 0xce", :), 6); /* INTO is no instruction in 64-bit mode */
    EXPECT(TRAPS(".byte 0x06", :), 6); /* nor is PUSH ES */
    EXPECT(TRAPS(".byte 0x27", :), 6); /* nor DAA */
#endif
}

static void protection(void)
{
    EXPECT(TRAPS("mov %w0, %%ds", : : "r"(0x48 | 4)), 13); /* LDT that is not there */
    EXPECT(fault.error, 0x48 | 4);
    EXPECT(TRAPS("mov %w0, %%es", : : "r"(0x1000)), 13); /* beyond the GDT */
    EXPECT(fault.error, 0x1000);
#ifdef __x86_64__
    EXPECT(TRAPS("mov %w0, %%ss", : : "r"(0)), NO_FAULT); /* 64-bit code needs no stack segment */
    asm volatile("mov %w0, %%ss" : : "r"(SELECTOR_DATA));
#else
    EXPECT(TRAPS("mov %w0, %%ss", : : "r"(0)), 13);
    EXPECT(fault.error, 0);
#endif
    EXPECT(TRAPS("mov %w0, %%ss", : : "r"(SELECTOR_CODE)), 13);
    EXPECT(fault.error, SELECTOR_CODE);
    EXPECT(TRAPS("mov %w0, %%ss", : : "r"(SELECTOR_USER_DATA)), 13);
    EXPECT(fault.error, SELECTOR_USER_DATA & ~3);
    /* A segment that is not present: #NP, for the stack #SS. */
    set_descriptor(SELECTOR_FREE, 0x00cf13000000ffff);
    EXPECT(TRAPS("mov %w0, %%ds", : : "r"(SELECTOR_FREE)), 11);
    EXPECT(fault.error, SELECTOR_FREE);
    EXPECT(TRAPS("mov %w0, %%ss", : : "r"(SELECTOR_FREE)), 12);
    EXPECT(fault.error, SELECTOR_FREE);
    EXPECT(TRAPS("mov %w0, %%fs", : : "r"(0)), NO_FAULT);
    /* Control register bits that do not go together. */
    EXPECT(TRAPS("mov %0, %%cr0", : : "r"(0x80000000ul | 0x10)), 13); /* PG without PE */
    EXPECT(TRAPS("mov %0, %%cr0",
                 :
                 : "r"((read_cr0() | 0x20000000ul) & ~0x40000000ul)),
           13);                                                         /* NW without CD */
    EXPECT(TRAPS("mov %0, %%cr4", : : "r"(read_cr4() | 0x8000ul)), 13); /* reserved */
}

/* Accessed and busy bits, and loads that leave the register alone when they fault. */
static void descriptors(void)
{
    word selector = 0;

    set_descriptor(SELECTOR_FREE, 0x00cf92000000ffff);
    asm volatile("mov %w1, %%fs; mov %%fs, %w0" : "+r"(selector) : "r"(SELECTOR_FREE));
    EXPECT(selector, SELECTOR_FREE);
    EXPECT(get_descriptor(SELECTOR_FREE), 0x00cf93000000ffff);
    EXPECT(TRAPS("mov %w0, %%fs", : : "r"(0x1000)), 13);
    asm volatile("mov %%fs, %w0" : "+r"(selector));
    EXPECT(selector, SELECTOR_FREE);
    EXPECT(get_descriptor(SELECTOR_TSS) >> 40 & 0xf, 0xb); /* LTR made it busy */
    EXPECT(TRAPS("ltr %w0", : : "r"(SELECTOR_TSS)), 13);
    EXPECT(fault.error, SELECTOR_TSS);
    asm volatile("str %w0" : "=r"(selector));
    EXPECT((u16)selector, SELECTOR_TSS);

    u32 limit = 0, rights = 0;
    u8 ok;

    asm volatile("lsl %2, %0; setz %1" : "+r"(limit), "=r"(ok) : "r"(SELECTOR_FREE));
    EXPECT(ok, 1);
    EXPECT(limit, 0xffffffff);
    asm volatile("lar %2, %0; setz %1" : "+r"(rights), "=r"(ok) : "r"(SELECTOR_FREE));
    EXPECT(ok, 1);
    EXPECT(rights, 0x00cf9300 & 0x00f0ff00);
    asm volatile("verr %w1; setz %0" : "=r"(ok) : "r"(SELECTOR_FREE));
    EXPECT(ok, 1);
    asm volatile("verw %w1; setz %0" : "=r"(ok) : "r"(SELECTOR_CODE));
    EXPECT(ok, 0);
}

static volatile u32 steps;
static volatile word step_ip[4];

static void step_handler(struct frame *frame)
{
    if (steps < 4)
        step_ip[steps] = frame->ip;
    steps++;
    if (steps == 3)
        frame->flags &= ~0x100ul;
}

static void single_step(void)
{
    word first;

    handlers[1] = step_handler;
    asm volatile("pushf; or" W " $0x100, (%%"
#ifdef __x86_64__
                 "rsp"
#else
                 "esp"
#endif
                 "); popf\n"
                 "7: nop\n nop\n nop\n nop\n"
                 "mov" W " $7b, %0"
                 : "=r"(first)
                 :
                 : "memory", "cc");
    EXPECT(steps, 3);
    EXPECT(step_ip[0], first + 1); /* the instruction after POPF runs first */
    EXPECT(step_ip[1], first + 2);
    EXPECT(step_ip[2], first + 3);
    handlers[1] = NULL;
}

static void breakpoints(void)
{
    static volatile u64 watched; /* its low half */
    word ip, dr6;

    asm volatile("mov %0, %%dr6" : : "r"((word)0xffff0ff0));
    asm volatile("mov %0, %%dr0" : : "r"(&watched));
    asm volatile("mov %0, %%dr7" : : "r"((word)0x000d0402)); /* 4 bytes, writes, globally */
    EXPECT(TRAPS("movl $1, %1; 8: nop; mov" W " $8b, %0", : "=&r"(ip), "=m"(watched)), 1);
    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    EXPECT(dr6 & 0xf, 1);
    EXPECT(watched, 1); /* a trap: the write is done */
    asm volatile("mov %0, %%dr6" : : "r"((word)0xffff0ff0));
    EXPECT(TRAPS("movb %%al, 3+%0", : "=m"(watched) : "a"(0)), 1); /* a part of it counts */
    EXPECT(TRAPS("movb %%al, 4+%0", : "=m"(watched) : "a"(0)), NO_FAULT);
    EXPECT(TRAPS("movl %1, %k0", : "=r"(ip) : "m"(watched)), NO_FAULT); /* reads do not */
    /* An instruction's address: a fault, before it is executed. */
    asm volatile("mov %0, %%dr6" : : "r"((word)0xffff0ff0));
    asm volatile("mov" W " $8f, %0; mov %0, %%dr1; mov %1, %%dr7; jmp 7f; 8: ud2; 7:"
                 : "=&r"(ip)
                 : "r"((word)0x408));
    EXPECT(TRAPS("jmp *%0", : : "r"(ip)), 1);
    EXPECT(fault.ip, ip);
    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    EXPECT(dr6 & 0xf, 2);
    asm volatile("mov %0, %%dr7" : : "r"((word)0x400));
    EXPECT(TRAPS("movl $2, %0", : "=m"(watched)), NO_FAULT);
}

static void fpu_not_available(void)
{
    word cr0 = read_cr0();

    write_cr0((cr0 | 8) & ~4ul); /* TS */
    EXPECT(TRAPS("fnop", :), 7);
    asm volatile("clts");
    EXPECT(read_cr0() & 8, 0);
    write_cr0((cr0 | 4) & ~8ul); /* EM */
    EXPECT(TRAPS("fninit", :), 7);
    write_cr0(cr0);
}

void guest_main(void)
{
    divide();
    traps();
    protection();
    descriptors();
    single_step();
    breakpoints();
    fpu_not_available();
    illegal();
}
