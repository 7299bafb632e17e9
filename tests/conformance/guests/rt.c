#include "rt.h"

volatile struct fault fault;
volatile word guard_ip;
void (*volatile handlers[256])(struct frame *frame);
volatile u32 count[256];
struct frame user_frame;
u8 tss[104] __attribute__((aligned(16)));

static u32 checks;
static u8 user_stack[4096] __attribute__((aligned(16)));
static u8 trap_stack[4096] __attribute__((aligned(16)));

u64 gdt[12] __attribute__((aligned(16))) = {
    0,
#ifdef __x86_64__
    0x00af9b000000ffff, /* 0x08 kernel code */
#else
    0x00cf9b000000ffff,
#endif
    0x00cf93000000ffff, /* 0x10 kernel data */
    0x00cffb000000ffff, /* 0x18 user code, 32 bits */
    0x00cff3000000ffff, /* 0x20 user data */
    0x00affb000000ffff, /* 0x28 user code, 64 bits */
};

static struct gate {
    u16 low, selector, flags, middle;
#ifdef __x86_64__
    u32 high, zero;
#endif
} idt[256] __attribute__((aligned(16)));

struct pointer {
    u16 limit;
    word base;
} __attribute__((packed));

void *memcpy(void *to, const void *from, size_t n)
{
    u8 *t = to;
    const u8 *f = from;

    while (n--) {
        *t++ = *f++;
        asm volatile("" : : : "memory"); /* keeps the compiler from making this a memcpy */
    }
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    u8 *t = to;

    while (n--) {
        *t++ = byte;
        asm volatile("" : : : "memory");
    }
    return to;
}

void expect(u32 line, u64 got, u64 want)
{
    checks++;
    outl(PORT_EXPECT, line);
    outl(PORT_EXPECT, got);
    outl(PORT_EXPECT, got >> 32);
    outl(PORT_EXPECT, want);
    outl(PORT_EXPECT, want >> 32);
}

void console(const char *text)
{
    while (*text)
        outb(PORT_CONSOLE, *text++);
}

void command(u32 number, u32 a, u32 b)
{
    outl(PORT_ARG_A, a);
    outl(PORT_ARG_B, b);
    outl(PORT_COMMAND, number);
}

static void end_user(struct frame *frame)
{
    user_frame = *frame;
    frame->ip = (word)user_return;
    frame->cs = SELECTOR_CODE;
    frame->flags = 2;
#ifdef __x86_64__
    frame->ss = SELECTOR_DATA;
    frame->sp = (word)trap_stack + sizeof trap_stack;
#endif
}

void runtime_trap(struct frame *frame)
{
    bool from_user = frame->cs & 3;

    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    fault.vector = frame->vector;
    fault.error = frame->error;
    fault.cr2 = read_cr2();
    fault.ip = frame->ip;
    fault.cs = frame->cs;
    fault.flags = frame->flags;
    if (from_user) {
        end_user(frame);
#ifndef __x86_64__
        /* IRET to the same privilege level pops no stack; user_return takes its own. */
#endif
        return;
    }
    if (guard_ip) {
        frame->ip = guard_ip;
        return;
    }
    console("unexpected trap\n");
    EXPECT(frame->vector, 0x1000);
    EXPECT(frame->error, 0x1000);
    EXPECT(frame->ip, 0x1000);
    EXPECT(read_cr2(), 0x1000);
    outl(PORT_DONE, checks);
    for (;;)
        asm volatile("cli; hlt");
}

int user_at(word cs, word ip, word flags)
{
    fault.vector = -1;
    user_enter(cs, ip, (word)user_stack + sizeof user_stack - 8, flags);
    return fault.vector;
}

int user(void (*code)(void))
{
#ifdef __x86_64__
    return user_at(SELECTOR_USER64, (word)code, 2);
#else
    return user_at(SELECTOR_USER32, (word)code, 2);
#endif
}

void set_gate(unsigned vector, unsigned dpl, unsigned ist)
{
    word entry = entry_table[vector];

    idt[vector] = (struct gate){
        .low = entry,
        .selector = SELECTOR_CODE,
        .flags = 0x8e00 | dpl << 13 | ist,
        .middle = entry >> 16,
#ifdef __x86_64__
        .high = entry >> 32,
#endif
    };
}

void set_descriptor(unsigned selector, u64 value)
{
    ((volatile u64 *)gdt)[selector / 8] = value;
}

u64 get_descriptor(unsigned selector)
{
    return ((volatile u64 *)gdt)[selector / 8];
}

static void load_tss(void)
{
    word base = (word)tss, top = (word)trap_stack + sizeof trap_stack;

#ifdef __x86_64__
    memcpy(tss + 4, &top, 8);
    gdt[7] = base >> 32;
#else
    u32 ss0 = SELECTOR_DATA;

    memcpy(tss + 4, &top, 4);
    memcpy(tss + 8, &ss0, 4);
#endif
    tss[102] = sizeof tss; /* no I/O permission map */
    gdt[6] = (sizeof tss - 1) | (u64)(base & 0xffffff) << 16 | (u64)0x89 << 40 |
             (u64)(base >> 24 & 0xff) << 56;
    asm volatile("ltr %w0" : : "r"(SELECTOR_TSS));
}

void runtime_main(void)
{
    struct pointer gdtr = {sizeof gdt - 1, (word)gdt}, idtr = {sizeof idt - 1, (word)idt};

    for (unsigned i = 0; i < 256; i++)
        set_gate(i, i == 0x80 ? 3 : 0, 0);
    asm volatile("lgdt %0" : : "m"(gdtr));
    asm volatile("lidt %0" : : "m"(idtr));
    load_tss();
    guest_main();
    outl(PORT_DONE, checks);
}

void lapic_enable(void)
{
    lapic_write(LAPIC_SPURIOUS, 0x1ff);
}

/* Remaps the 8259 pair to vectors 0x20..0x2f and masks all lines. */
void pic_disable(void)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, 0x20);
    outb(0xa1, 0x28);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

void counting_handler(struct frame *frame)
{
    count[frame->vector]++;
    lapic_write(LAPIC_EOI, 0);
}
