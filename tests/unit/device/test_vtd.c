/* The IOMMU (VT-d in legacy mode): what a driver does with it, and what it should not do. */
#include <sys/mman.h>
#include <unistd.h>

#include "board.h"

#include "base/bits.h"
#include "base/thread.h"
#include "device/pci/pci.h"
#include "device/vtd/vtd.h"

#define RAM (256 * KiB)
#define UNIT 0xfed90000u

enum {
    /* Registers. */
    VER = 0x00,
    CAP = 0x08,
    ECAP = 0x10,
    GCMD = 0x18,
    GSTS = 0x1c,
    RTADDR = 0x20,
    CCMD = 0x28,
    FSTS = 0x34,
    FECTL = 0x38,
    IQH = 0x80,
    IQT = 0x88,
    IQA = 0x90,
    ICS = 0x9c,
    IECTL = 0xa0,
    IRTA = 0xb8,
    FRCD = 0x400,
    IOTLB = 0x508,

    /* Where the tables are. */
    ROOT = 0x1000,
    CONTEXT = 0x2000,
    TABLES = 0x3000, /* level 4, 3, 2, 1 */
    QUEUE = 0x8000,
    INTERRUPTS = 0xa000,
    STATUS = 0xb000,
    DATA = 0x20000,

    SOURCE = 2 << 3, /* 00:02.0 */
};

static struct {
    struct board *b;
    struct device *dev;
    u8 *arena, *ram;
    unsigned messages;
    u64 address;
    u32 data;
} t;

static void on_msi(void *opaque, u64 address, u32 data)
{
    (void)opaque;
    t.messages++;
    t.address = address;
    t.data = data;
}

static void setup_with(const char *options)
{
    struct device_place place;

    memset(&t, 0, sizeof(t));
    t.arena = mmap(NULL, RAM + 2 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    t.ram = t.arena + MiB;
    assert_int_equal(mprotect(t.ram, RAM, PROT_READ | PROT_WRITE), 0);
    t.b = board_new("pci-host", NULL);
    t.b->env.msi = on_msi;
    t.b->env.mem = mem_create();
    assert_int_equal(mem_set_slot(t.b->env.mem, 0, 0, 0, RAM, t.ram), 0);
    place = board_place(t.b);
    place.parent = t.b->dev;
    assert_int_equal(device_create(&t.dev, "vtd", options, &place, NULL), 0);
}

static void cleanup(void)
{
    device_destroy(t.dev);
    mem_destroy(t.b->env.mem);
    board_free(t.b);
    munmap(t.arena, RAM + 2 * MiB);
}

static u64 get(u64 reg, unsigned size)
{
    u64 value;

    assert_true(device_bus_read(&t.b->memory, UNIT + reg, size, &value));
    return value;
}

static void set(u64 reg, unsigned size, u64 value)
{
    assert_true(device_bus_write(&t.b->memory, UNIT + reg, size, value));
}

/* As drivers do it: everything that is on stays, one thing changes. */
static void command(u32 on)
{
    u32 kept = (u32)get(GSTS, 4) & 0x86800000;

    set(GCMD, 4, kept | on);
    assert_int_equal(get(GSTS, 4) & on, on);
}

static void put64(u64 gpa, u64 value)
{
    memcpy(t.ram + gpa, &value, 8);
}

static u64 *table(unsigned level)
{
    return (u64 *)(t.ram + TABLES + (4 - level) * 0x1000u);
}

/* Tables of four levels in which nothing is mapped yet, on. */
static void translate_by_tables(void)
{
    put64(ROOT, CONTEXT | 1);
    put64(CONTEXT + 16 * SOURCE, TABLES | 1);
    put64(CONTEXT + 16 * SOURCE + 8, 7 << 8 | 2);
    for (unsigned level = 4; level > 1; level--)
        table(level)[0] = (u64)(TABLES + (5 - level) * 0x1000u) | 3;
    set(RTADDR, 8, ROOT);
    command(VTD_GCMD_SRTP);
    command(VTD_GCMD_TE);
}

#define BLOCKED ~0ull

static u64 go(u64 address, bool write)
{
    u64 gpa, len = 1;

    return vtd_translate(t.dev, SOURCE, address, write, &gpa, &len) ? BLOCKED : gpa;
}

/* The one fault that is recorded, its reason; and forgets it. */
static unsigned fault(void)
{
    unsigned first = get(FSTS, 4) >> 8 & 0xff;
    u64 source = get(FRCD + 16 * first + 8, 8);

    if (!(source >> 63)) {
        assert_int_equal(get(FSTS, 4) & 3, 0);
        return 0;
    }
    assert_int_equal(get(FSTS, 4) & 3, 2);
    set(FRCD + 16 * first + 12, 4, 0x80000000);
    assert_int_equal(get(FSTS, 4) & 3, 0);
    return source >> 32 & 0xff;
}

static void capabilities(void **state)
{
    u64 cap, ecap;

    (void)state;
    setup_with(NULL);
    assert_int_equal(get(VER, 4), 0x10);
    cap = get(CAP, 8);
    ecap = get(ECAP, 8);
    assert_int_equal(cap >> 8 & 31, 6);   /* 3 and 4 levels */
    assert_int_equal(cap >> 16 & 63, 47); /* 48 bits */
    assert_int_equal(cap >> 34 & 15, 3);  /* 2 MiB, 1 GiB */
    assert_int_equal((cap >> 24 & 0x3ff) * 16, FRCD);
    assert_int_equal((ecap >> 8 & 0x3ff) * 16 + 8, IOTLB);
    assert_int_equal(ecap & 0xff, 0xdb);
    assert_int_equal(get(CAP, 4), (u32)cap);
    assert_int_equal(get(CAP + 4, 4), cap >> 32);
    set(CAP, 8, 0);
    assert_true(get(CAP, 8) == cap);
    assert_int_equal(get(FECTL, 4), 0x80000000);
    set(FECTL + 4, 8, 0x11223344aabbccdd); /* two registers at once */
    assert_int_equal(get(FECTL + 4, 4), 0xaabbccdd);
    assert_int_equal(get(FECTL + 8, 4), 0x11223344);
    set(RTADDR, 2, 0x5000);
    assert_int_equal(get(RTADDR, 8), 0); /* too narrow */
    set(RTADDR + 4, 4, 1);
    set(RTADDR, 4, 0x5fff);
    assert_true(get(RTADDR, 8) == 0x100005000);
    assert_int_equal(get(0xff8, 8), 0);
    cleanup();
    /* Without interrupt remapping it cannot be turned on either. */
    setup_with("interrupts=0");
    assert_int_equal(get(ECAP, 8) & 0xff, 0xc3);
    set(GCMD, 4, VTD_GCMD_IRE | VTD_GCMD_SIRTP | VTD_GCMD_CFI);
    assert_int_equal(get(GSTS, 4), 0);
    cleanup();
}

static void pages(void **state)
{
    u64 gpa, len = 0x3000;

    (void)state;
    setup_with(NULL);
    assert_true(go(0x123456789000, true) == 0x123456789000); /* off */
    translate_by_tables();
    table(1)[5] = DATA | 3;
    table(1)[6] =
        (DATA + 0x5000) | 1 | 0xbff00000000004fc | 0x800; /* read-only; ignored bits, snooping */
    table(1)[7] = (DATA + 0x6000) | 2;
    assert_true(go(0x5123, true) == DATA + 0x123);
    assert_true(go(0x6fff, false) == DATA + 0x5fff);
    assert_true(go(0x7000, true) == DATA + 0x6000);
    assert_int_equal(fault(), 0);
    assert_int_equal(vtd_translate(t.dev, SOURCE, 0x5f00, false, &gpa, &len), 0);
    assert_int_equal(len, 0x100); /* to the end of the page */
    len = 0x10;
    assert_int_equal(vtd_translate(t.dev, SOURCE, 0x5f00, false, &gpa, &len), 0);
    assert_int_equal(len, 0x10);
    assert_true(go(0x6000, true) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_WRITE);
    assert_true(go(0x7000, false) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_READ);
    assert_true(go(0x8000, true) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_WRITE);
    assert_true(go(0xfee00000, true) == 0xfee00000); /* interrupts, never memory */
    assert_true(go(0xfef00000, true) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_WRITE);
    /* Large pages; all levels must allow it. */
    table(2)[3] = 0x40000000 | 0x83;
    table(3)[2] = 0x80000000 | 0x81;
    assert_true(go(0x6abcde, true) == 0x400abcde);
    assert_true(go(0x80123456, false) == 0x80123456);
    len = 8 * MiB;
    assert_int_equal(vtd_translate(t.dev, SOURCE, 0x601000, false, &gpa, &len), 0);
    assert_int_equal(len, 0x1ff000);
    assert_true(go(0x80123456, true) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_WRITE);
    table(3)[0] &= ~2ull;
    assert_true(go(0x5123, true) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_WRITE);
    assert_true(go(0x5123, false) == DATA + 0x123);
    /* Three levels: the same table is one lower. */
    put64(CONTEXT + 16 * SOURCE, (TABLES + 0x1000) | 1);
    put64(CONTEXT + 16 * SOURCE + 8, 1);
    assert_true(go(0x5123, false) == DATA + 0x123);
    assert_true(go(1ull << 39, false) == BLOCKED);
    assert_int_equal(fault(), VTD_BEYOND_WIDTH);
    /* Passed through. */
    put64(CONTEXT + 16 * SOURCE, 2 << 2 | 1);
    put64(CONTEXT + 16 * SOURCE + 8, 2);
    assert_true(go(0x5123, false) == 0x5123);
    assert_true(go(1ull << 46, false) == BLOCKED);
    assert_int_equal(fault(), VTD_BEYOND_WIDTH);
    /* Software goes on with the old table until it says otherwise. */
    set(RTADDR, 8, 0x9000);
    assert_true(go(0x5123, false) == 0x5123);
    command(VTD_GCMD_SRTP);
    assert_true(go(0x5123, false) == BLOCKED);
    assert_int_equal(fault(), VTD_NO_ROOT);
    set(GCMD, 4, 0);
    assert_int_equal(get(GSTS, 4) & VTD_GCMD_TE, 0);
    assert_true(go(0x5123, false) == 0x5123);
    cleanup();
}

/* Each way to be wrong: the place that is broken, with what, and the fault. */
static void faults(void **state)
{
    static const struct {
        u64 gpa, value;
        enum vtd_fault fault;
    } breaks[] = {
        {ROOT, 0, VTD_NO_ROOT},
        {ROOT, CONTEXT | 0x801, VTD_ROOT_RESERVED},
        {ROOT, BIT(46) | CONTEXT | 1, VTD_ROOT_RESERVED},
        {ROOT + 8, 1, VTD_ROOT_RESERVED},
        {ROOT, 0x80000000 | 1, VTD_CONTEXT_ACCESS},
        {CONTEXT + 16 * SOURCE, TABLES, VTD_NO_CONTEXT},
        {CONTEXT + 16 * SOURCE, TABLES | 0x11, VTD_CONTEXT_RESERVED},
        {CONTEXT + 16 * SOURCE, BIT(50) | TABLES | 1, VTD_CONTEXT_RESERVED},
        {CONTEXT + 16 * SOURCE + 8, 0x82, VTD_CONTEXT_RESERVED},
        {CONTEXT + 16 * SOURCE + 8, BIT(24) | 2, VTD_CONTEXT_RESERVED},
        {CONTEXT + 16 * SOURCE, TABLES | 1 << 2 | 1, VTD_BAD_CONTEXT},
        {CONTEXT + 16 * SOURCE, TABLES | 3 << 2 | 1, VTD_BAD_CONTEXT},
        {CONTEXT + 16 * SOURCE + 8, 0, VTD_BAD_CONTEXT},
        {CONTEXT + 16 * SOURCE + 8, 3, VTD_BAD_CONTEXT},
        {CONTEXT + 16 * SOURCE, 0x80000000 | 1, VTD_BAD_CONTEXT},
        {TABLES, 0x80000000 | 3, VTD_PAGING_ACCESS},
        {TABLES, TABLES | 0x83, VTD_PAGING_RESERVED}, /* no pages of 512 GiB */
        {TABLES, 0x800, VTD_NO_READ},
        {TABLES, BIT(46) | 3, VTD_PAGING_RESERVED},
        {TABLES + 0x1000, 0x40100083, VTD_PAGING_RESERVED}, /* not at a multiple of 1 GiB */
        {TABLES + 0x2000, 0x40001083, VTD_PAGING_RESERVED},
        {TABLES + 0x2000, TABLES | 0x803, VTD_PAGING_RESERVED}, /* snooping is of pages */
        {TABLES + 0x3000, 0xfee00003, VTD_TO_INTERRUPTS},
        {TABLES + 0x2000, 0xfee00083, VTD_TO_INTERRUPTS},
        {TABLES + 0x3000, BIT(62) | DATA | 3, VTD_PAGING_RESERVED},
        {TABLES + 0x3000, BIT(62), VTD_NO_READ},
    };

    (void)state;
    setup_with(NULL);
    translate_by_tables();
    table(1)[0] = DATA | 3;
    for (unsigned i = 0; i < ARRAY_SIZE(breaks); i++) {
        u64 kept;

        memcpy(&kept, t.ram + breaks[i].gpa, 8);
        put64(breaks[i].gpa, breaks[i].value);
        assert_true(go(0x10, false) == BLOCKED);
        assert_int_equal(fault(), breaks[i].fault);
        put64(breaks[i].gpa, kept);
        assert_true(go(0x10, false) == DATA + 0x10);
    }
    assert_true(go(1ull << 48, false) == BLOCKED);
    assert_int_equal(fault(), VTD_BEYOND_WIDTH);
    /* Faults of this function are not to be recorded. */
    put64(CONTEXT + 16 * SOURCE, TABLES | 3);
    assert_true(go(0x1000, false) == BLOCKED);
    assert_int_equal(fault(), 0);
    set(RTADDR, 8, 0xfffff00000000000);
    command(VTD_GCMD_SRTP);
    assert_true(go(0x10, false) == BLOCKED);
    assert_int_equal(fault(), VTD_ROOT_ACCESS);
    cleanup();
}

static void fault_records(void **state)
{
    (void)state;
    setup_with(NULL);
    translate_by_tables();
    set(FECTL + 4, 4, 0x4123);
    set(FECTL + 8, 4, 0xfee01000);
    set(FECTL + 12, 4, 0x100);
    go(0x12345678, true);
    assert_int_equal(t.messages, 0); /* masked: pending */
    assert_int_equal(get(FECTL, 4), 0xc0000000);
    assert_true(get(FRCD, 8) == 0x12345000);
    assert_true(get(FRCD + 8, 8) == (BIT(63) | (u64)VTD_NO_WRITE << 32 | SOURCE));
    set(FECTL, 4, 0);
    assert_int_equal(t.messages, 1);
    assert_true(t.address == 0x100fee01000);
    assert_int_equal(t.data, 0x4123);
    assert_int_equal(get(FECTL, 4), 0);
    for (unsigned i = 1; i < VTD_FAULTS; i++)
        go(0x1000 * i, false);
    assert_int_equal(t.messages, 1);                   /* software has not looked yet */
    assert_true(get(FRCD + 16 * 7 + 8, 8) >> 62 == 3); /* a read */
    assert_int_equal(get(FSTS, 4), 2);
    go(0x99000, false); /* one too many */
    assert_int_equal(get(FSTS, 4), 3);
    /* Overflow stays until it is cleared, and nothing is recorded meanwhile. */
    set(FRCD + 8, 8, BIT(63));
    go(0x98000, false);
    assert_true(get(FRCD, 8) == 0x12345000);
    set(FSTS, 4, 1);
    assert_int_equal(get(FSTS, 4), 2);
    go(0x97000, false);
    assert_true(get(FRCD, 8) == 0x97000);
    for (unsigned i = 0; i < VTD_FAULTS; i++)
        set(FRCD + 16 * i + 12, 4, 0x80000000);
    assert_int_equal(get(FSTS, 4) & 3, 0);
    go(0x96000, false);
    assert_int_equal(get(FSTS, 4), 0x102); /* the first is number 1 */
    assert_int_equal(t.messages, 2);
    /* An event that nobody saw is forgotten with its cause. */
    set(FRCD + 16 + 12, 4, 0x80000000);
    set(FECTL, 4, 0x80000000);
    go(0x95000, false);
    assert_int_equal(get(FECTL, 4), 0xc0000000);
    set(FRCD + 32 + 12, 4, 0x80000000);
    assert_int_equal(get(FECTL, 4), 0x80000000);
    set(FECTL, 4, 0);
    assert_int_equal(t.messages, 2);
    /* Turned off and on, it begins with the first record. */
    set(GCMD, 4, 0);
    command(VTD_GCMD_TE);
    go(0x94000, false);
    assert_int_equal(get(FSTS, 4), 2);
    assert_true(get(FRCD, 8) == 0x94000);
    cleanup();
}

static unsigned tail;

static void queue(u64 low, u64 high)
{
    put64(QUEUE + tail, low);
    put64(QUEUE + tail + 8, high);
    tail = (tail + 16) % 0x1000;
}

static void submit(void)
{
    set(IQT, 8, tail);
}

static u32 status(void)
{
    u32 value;

    memcpy(&value, t.ram + STATUS, 4);
    return value;
}

static void invalidation(void **state)
{
    static const struct {
        u64 low, high;
    } wrong[] = {
        {0, 0},
        {3, 0},
        {6, 0},
        {0x205, STATUS},
        {1, 0},
        {2, 0},
        {0x2040001, 0x1},
        {0x11 | BIT(50), 0},
        {0x12, 0x80},
        {0x14, 1},
        {0x25, STATUS + 2},
        {0x32, 19},
        {0xa5, STATUS},
    };

    (void)state;
    setup_with(NULL);
    tail = 0;
    set(IQA, 8, QUEUE);
    queue(0x100000025, STATUS); /* before it is on: nothing happens */
    submit();
    assert_int_equal(status(), 0);
    command(VTD_GCMD_QIE);
    assert_int_equal(status(), 1);
    assert_int_equal(get(IQH, 8), 16);
    queue(0x11, 0);             /* all contexts */
    queue(0x500d2, 0);          /* a domain, draining */
    queue(0x500f2, 0x12345003); /* pages of it */
    queue(4, 0);                /* interrupt entries */
    queue(0x200000065, STATUS);
    submit();
    assert_int_equal(get(IQH, 8), 16 * 6);
    assert_int_equal(status(), 2);
    queue(0x300000025, 0x80000000); /* no memory there */
    queue(0x400000025, STATUS);
    submit();
    assert_int_equal(status(), 4);
    /* Interrupts. */
    set(IECTL + 4, 4, 0x55);
    set(IECTL + 8, 4, 0xfee00000);
    queue(0x15, 0);
    submit();
    assert_int_equal(get(ICS, 4), 1);
    assert_int_equal(get(IECTL, 4), 0xc0000000);
    set(IECTL, 4, 0);
    assert_int_equal(t.messages, 1);
    assert_int_equal(t.data, 0x55);
    queue(0x15, 0);
    submit();
    assert_int_equal(t.messages, 1); /* not served yet */
    set(ICS, 4, 1);
    assert_int_equal(get(ICS, 4), 0);
    queue(0x15, 0);
    submit();
    assert_int_equal(t.messages, 2);
    /* What is no descriptor stops the queue until software has mended it. */
    set(FECTL, 4, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        unsigned at = tail;

        t.messages = 0;
        queue(wrong[i].low, wrong[i].high);
        queue((u64)(100 + i) << 32 | 0x25, STATUS);
        submit();
        assert_int_equal(get(FSTS, 4), 0x10);
        assert_int_equal(get(IQH, 8), at);
        assert_int_not_equal(status(), 100 + i);
        assert_int_equal(t.messages, 1);
        put64(QUEUE + at, 0x11);
        put64(QUEUE + at + 8, 0);
        set(FSTS, 4, 0x10);
        assert_int_equal(status(), 100 + i);
        assert_int_equal(get(IQH, 8), tail);
    }
    /* Around the end, several times. */
    for (unsigned i = 0; i < 1000; i++) {
        queue((u64)(1000 + i) << 32 | 0x25, STATUS);
        submit();
        assert_int_equal(status(), 1000 + i);
    }
    set(IQT, 8, 0x1000); /* beyond the queue */
    assert_int_equal(get(FSTS, 4), 0x10);
    set(IQT, 8, tail);
    set(FSTS, 4, 0x10);
    assert_int_equal(get(FSTS, 4), 0);
    set(GCMD, 4, 0);
    assert_int_equal(get(IQH, 8), 0);
    /* By registers: done at once, with the granularity that was asked for. */
    set(CCMD, 8, BIT(63) | 2ull << 61 | 7);
    assert_true(get(CCMD, 8) == (2ull << 61 | 2ull << 59 | 7));
    set(IOTLB, 8, BIT(63) | 1ull << 60);
    assert_true(get(IOTLB, 8) == (1ull << 60 | 1ull << 57));
    cleanup();
}

static void *invalidate(void *opaque)
{
    (void)opaque;
    queue(0xd2 | 1 << 16, 0);
    queue(0x700000025, STATUS);
    submit();
    return NULL;
}

/* Invalidation ends when what is under way has, and not later than that. */
static void draining(void **state)
{
    pthread_t thread;

    (void)state;
    setup_with(NULL);
    tail = 0;
    set(IQA, 8, QUEUE);
    command(VTD_GCMD_QIE);
    vtd_begin(t.dev);
    assert_int_equal(pthread_create(&thread, NULL, invalidate, NULL), 0);
    while (get(IQT, 8) != 32)
        usleep(1000);
    usleep(20000);
    assert_int_equal(get(IQH, 8), 0);
    assert_int_equal(__atomic_load_n((u32 *)(t.ram + STATUS), __ATOMIC_ACQUIRE), 0);
    vtd_end(t.dev);
    vtd_begin(t.dev); /* the next request is none of its business */
    pthread_join(thread, NULL);
    assert_int_equal(status(), 7);
    vtd_end(t.dev);
    cleanup();
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static void entry(unsigned index, u64 low, u64 high)
{
    put64(INTERRUPTS + 16 * index, low);
    put64(INTERRUPTS + 16 * index + 8, high);
}

static u64 handle(unsigned index)
{
    return 0xfee00010 | (index & 0x7fff) << 5 | (index >> 15) << 2;
}

/* Sends a message and looks at what comes of it. */
static bool arrives(u64 address, u32 data, u64 *to, u32 *what)
{
    *to = address;
    *what = data;
    return device_vtd_remap(t.dev, SOURCE, to, what);
}

static void remapping(void **state)
{
    static const struct {
        u64 low, high;
        unsigned fault;
    } wrong[] = {
        {0, 0, VTD_INTERRUPT_ABSENT},
        {1 | BIT(12), 0, VTD_ENTRY_RESERVED},
        {1 | BIT(15), 0, VTD_ENTRY_RESERVED}, /* posted */
        {1 | BIT(24), 0, VTD_ENTRY_RESERVED},
        {1 | BIT(32), 0, VTD_ENTRY_RESERVED}, /* destinations have 8 bits */
        {1 | BIT(48), 0, VTD_ENTRY_RESERVED},
        {1, BIT(20), VTD_ENTRY_RESERVED},
        {1, 1 << 18 | (SOURCE + 8), VTD_WRONG_SOURCE},
        {1, 1 << 18 | 1 << 16 | (SOURCE + 1), VTD_WRONG_SOURCE},
        {1, 2 << 18 | 0x0102, VTD_WRONG_SOURCE},
        {1 | BIT(12), 1 << 18 | (SOURCE + 8), VTD_WRONG_SOURCE}, /* this comes first */
        {1, 3 << 18, VTD_ENTRY_RESERVED},
        {2, 0, 0}, /* absent, and not to be recorded */
    };
    u64 to;
    u32 what;

    (void)state;
    setup_with(NULL);
    assert_true(arrives(0xfee01000, 0x4123, &to, &what)); /* off: as it is */
    assert_true(to == 0xfee01000 && what == 0x4123);
    set(IRTA, 8, INTERRUPTS | 3); /* 16 entries */
    command(VTD_GCMD_SIRTP);
    command(VTD_GCMD_IRE);
    assert_false(arrives(0xfee01000, 0x4123, &to, &what));
    assert_int_equal(fault(), VTD_COMPATIBILITY);
    command(VTD_GCMD_CFI);
    assert_true(arrives(0xfee01000, 0x4123, &to, &what));
    entry(5, 1 | 1 << 2 | 1 << 3 | 1 << 5 | 0x66 << 16 | (u64)0x12 << 40, 0);
    assert_true(arrives(handle(5), 0, &to, &what));
    assert_true(to == (0xfee00000 | 0x12 << 12 | 0xc));
    assert_int_equal(what, 0x4166);
    entry(7, 1 | 1 << 4 | 0x77 << 16, 1 << 18 | SOURCE);
    assert_true(arrives(handle(5) | 8, 2, &to, &what)); /* with a subhandle */
    assert_true(to == 0xfee00000);
    assert_int_equal(what, 0xc077);
    assert_false(arrives(handle(5) | 8, 0x10002, &to, &what));
    assert_int_equal(fault(), VTD_INTERRUPT_RESERVED);
    assert_false(arrives(handle(16), 0, &to, &what));
    assert_true(get(FRCD + 16 * 2, 8) == 16ull << 48);
    assert_int_equal(fault(), VTD_INTERRUPT_INDEX);
    assert_false(arrives(handle(0x8005), 0, &to, &what));
    assert_int_equal(fault(), VTD_INTERRUPT_INDEX);
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        entry(5, wrong[i].low, wrong[i].high);
        assert_false(arrives(handle(5), 0, &to, &what));
        assert_int_equal(fault(), wrong[i].fault);
    }
    /* Ways to know a source. */
    for (unsigned bits = 0; bits < 8; bits++) {
        entry(5, 1, 1 << 18 | 3 << 16 | (SOURCE + bits));
        assert_true(arrives(handle(5), 0, &to, &what));
    }
    entry(5, 1, 1 << 18 | 1 << 16 | (SOURCE + 4));
    assert_true(arrives(handle(5), 0, &to, &what));
    entry(5, 1, 2 << 18 | 0x0003);
    assert_true(arrives(handle(5), 0, &to, &what));
    /* Destinations of 32 bits; then what is not remapped is blocked whatever software said. */
    set(IRTA, 8, INTERRUPTS | BIT(11) | 3);
    command(VTD_GCMD_SIRTP);
    entry(5, 1 | 0x66 << 16 | (u64)0x12345678 << 32, 0);
    assert_true(arrives(handle(5), 0, &to, &what));
    assert_true(to == 0x12345600fee78000);
    assert_false(arrives(0xfee01000, 0x4123, &to, &what));
    assert_int_equal(fault(), VTD_COMPATIBILITY);
    set(IRTA, 8, 0x80000000 | 15);
    command(VTD_GCMD_SIRTP);
    assert_false(arrives(handle(0xffff), 0, &to, &what));
    assert_int_equal(fault(), VTD_INTERRUPT_ACCESS);
    set(IRTA, 8, 0xfffff00000000000 | 15);
    command(VTD_GCMD_SIRTP);
    assert_false(arrives(handle(0xffff), 0, &to, &what));
    assert_int_equal(fault(), VTD_INTERRUPT_INDEX);
    cleanup();
}

/* Through the bus: who is no PCI function sends by its own id. */
static void other_senders(void **state)
{
    (void)state;
    setup_with(NULL);
    set(IRTA, 8, INTERRUPTS | 3);
    command(VTD_GCMD_SIRTP);
    command(VTD_GCMD_IRE);
    entry(1, 1 | 0x44 << 16, 1 << 18 | DEVICE_VTD_SOURCE(DEVICE_VTD_HPET_SLOT));
    pci_host_msi(t.b->dev, DEVICE_VTD_SOURCE(DEVICE_VTD_HPET_SLOT), handle(1), 0);
    assert_int_equal(t.messages, 1);
    assert_int_equal(t.data, 0x4044);
    pci_host_msi(t.b->dev, DEVICE_VTD_SOURCE(DEVICE_VTD_IO_APIC_SLOT), handle(1), 0);
    assert_int_equal(t.messages, 1);
    assert_int_equal(fault(), VTD_WRONG_SOURCE);
    cleanup();
}

/* Tables, queue and registers full of anything: the memory beside the guest's stays untouched. */
static void random_everything(void **state)
{
    u64 seed = 88172645463325252ull;

    (void)state;
    setup_with(NULL);
    for (unsigned round = 0; round < 20000; round++) {
        u64 gpa, len, address;
        u32 data;

        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        put64((seed >> 20) % (RAM / 8) * 8,
              seed % 3 ? seed * 0x9e3779b97f4a7c15ull : seed % RAM | 3);
        set(seed % 0x140 * 4, seed & 1 ? 4 : 8, seed % 5 ? (seed >> 8) % RAM : seed * 25214903917);
        if (seed % 7 == 0)
            set(GCMD, 4, (seed >> 3 & 0x47800000) | VTD_GCMD_TE);
        if (seed % 11 == 0)
            set(FSTS, 4, ~0ull);
        len = seed % 0x20000 + 1;
        if (!vtd_translate(t.dev, (u16)(seed >> 30), seed >> 20, seed & 1, &gpa, &len))
            assert_in_range(len, 1, 0x20000);
        address = 0xfee00000 | (seed >> 5 & 0xfffff);
        data = (u32)seed;
        if (device_vtd_remap(t.dev, (u16)(seed >> 40), &address, &data))
            assert_true(((u32)address & 0xfff00000) == 0xfee00000);
    }
    cleanup();
}

static void survives_a_load(void **state)
{
    size_t len;
    u8 *saved;

    (void)state;
    setup_with(NULL);
    translate_by_tables();
    table(1)[0] = DATA | 3;
    go(0x5000, true);
    len = device_state_size(t.dev);
    saved = malloc(len);
    device_save(t.dev, saved);
    device_reset(t.dev);
    assert_true(go(0, true) == 0);
    assert_int_equal(get(FSTS, 4), 0);
    assert_int_equal(device_load(t.dev, saved, len), 0);
    free(saved);
    assert_true(go(0, true) == DATA);
    assert_int_equal(fault(), VTD_NO_WRITE);
    cleanup();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities),
        cmocka_unit_test(pages),
        cmocka_unit_test(faults),
        cmocka_unit_test(fault_records),
        cmocka_unit_test(invalidation),
        cmocka_unit_test(draining),
        cmocka_unit_test(remapping),
        cmocka_unit_test(other_senders),
        cmocka_unit_test(random_everything),
        cmocka_unit_test(survives_a_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
