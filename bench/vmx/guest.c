/*
 * A hypervisor that measures: the same work in VMX root and in non-root operation, and round trips
 * through a VM exit. Times are ticks of the TSC; `run` makes of them what people read.
 */
#include "../../tests/guests/vmx/vmx_guest.h"

#define ROUNDS 9
#define TRIPS 20000

static u64 tsc(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low | (u64)high << 32;
}

/* --- the work: a list, a matrix, a checksum, a state machine --- */

#define NODES 512
#define SIZE 24

static struct node {
    struct node *next;
    u32 key;
} nodes[NODES];
static u32 a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
static u8 text[4096];
static volatile u64 result;

static struct node *merge(struct node *x, struct node *y)
{
    struct node head, *last = &head;

    while (x && y) {
        struct node **least = x->key <= y->key ? &x : &y;

        last->next = *least;
        last = *least;
        *least = last->next;
    }
    last->next = x ? x : y;
    return head.next;
}

static struct node *sort(struct node *list, unsigned n)
{
    struct node *half = list, *rest;

    if (n < 2)
        return list;
    for (unsigned i = 1; i < n / 2; i++)
        half = half->next;
    rest = half->next;
    half->next = NULL;
    return merge(sort(list, n / 2), sort(rest, n - n / 2));
}

static u32 list_work(u32 seed)
{
    u32 sum = 0;

    for (unsigned i = 0; i < NODES; i++) {
        seed = seed * 1664525 + 1013904223;
        nodes[i].key = seed >> 16;
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
    }
    for (struct node *n = sort(nodes, NODES); n; n = n->next)
        sum = sum * 31 + n->key;
    return sum;
}

static u32 matrix_work(u32 seed)
{
    u32 sum = 0;

    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++) {
            a[i][j] = seed + i * j;
            b[i][j] = seed ^ (i + j);
        }
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++) {
            c[i][j] = 0;
            for (unsigned k = 0; k < SIZE; k++)
                c[i][j] += a[i][k] * b[k][j];
            sum ^= c[i][j] + (sum << 3);
        }
    return sum;
}

static u32 checksum(u32 crc)
{
    for (unsigned i = 0; i < sizeof(text); i++) {
        crc ^= text[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return crc;
}

static u32 state_work(u32 seed)
{
    u32 numbers = 0, words = 0, state = 0;

    for (unsigned i = 0; i < sizeof(text); i++) {
        seed = seed * 1103515245 + 12345;
        text[i] = " 0123456789abcdef,.-+"[(seed >> 16) % 21];
    }
    for (unsigned i = 0; i < sizeof(text); i++) {
        u8 ch = text[i];

        switch (state) {
        case 0:
            state = ch >= '0' && ch <= '9' ? 1 : ch >= 'a' ? 2 : 0;
            break;
        case 1:
            if (ch >= 'a' || ch == '.')
                state = 2;
            else if (ch < '0')
                numbers++, state = 0;
            break;
        default:
            if (ch == ' ' || ch == ',')
                words++, state = 0;
        }
    }
    return numbers * 65537 + words;
}

void work(void);
void work(void)
{
    u32 sum = 1;

    for (unsigned i = 0; i < 60; i++) {
        sum = list_work(sum);
        sum ^= matrix_work(sum);
        sum ^= state_work(sum);
        sum = checksum(sum);
    }
    result = sum;
}

/* --- guests --- */

void guest_work(void), guest_cpuid(void), guest_vmcall(void);
__asm__(".pushsection .text\n"
        "guest_work: call work; vmcall\n"
        "guest_cpuid: cpuid; jmp guest_cpuid\n"
        "guest_vmcall: vmcall; jmp guest_vmcall\n"
        ".popsection\n");

static void make(void (*code)(void))
{
    vmcs_make(code);
    vmwrite(FIELD_secondary_processor_based_controls, C_enable_ept | C_enable_vpid);
}

static u64 run_work(void)
{
    u64 start;

    make(guest_work);
    start = tsc();
    if (enter_guest(0) || vmread(FIELD_exit_reason) != 18)
        quit(1);
    return tsc() - start;
}

static void trips(const char *name, void (*code)(void), u64 reason)
{
    u64 start;

    make(code);
    if (enter_guest(0))
        quit(1);
    start = tsc();
    for (unsigned i = 0; i < TRIPS; i++) {
        if (vmread(FIELD_exit_reason) != reason)
            quit(1);
        vmwrite(FIELD_guest_rip,
                vmread(FIELD_guest_rip) + vmread(FIELD_vm_exit_instruction_length));
        if (enter_guest(1))
            quit(1);
    }
    print(name);
    print(" ");
    print_hex((tsc() - start) / TRIPS);
    print("\n");
}

void guest_main(void)
{
    if (!vmx_start())
        quit(1);
    work();
    run_work();
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 start = tsc(), l1;
        u64 first;

        work();
        l1 = tsc() - start;
        first = result;
        print("work ");
        print_hex(l1);
        print(" ");
        print_hex(run_work());
        print("\n");
        if (result != first)
            quit(1);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        trips("cpuid", guest_cpuid, 10);
        trips("vmcall", guest_vmcall, 18);
    }
    quit(0);
}
