/* A second CPU: INIT and SIPI in VMX operation (26.2, 27.7.2), and a VMCS that somebody
 * overwrites. */
#include "harness.h"

extern u8 second_start[], second_end[];
void second_main(void);

/* The second CPU's tests wait for the first to do what they ask for. */
enum { NOTHING, SEND_INIT, SEND_SIPI, REPEAT_SIPI, RUIN, STOP };
enum { ROUNDS = 60 };
static volatile u32 request, starts; /* of requests no two are equal: a number from bit 8 on */
static volatile bool done, went_on;

static u32 lapic_id(void)
{
    return LAPIC[0x20 / 4];
}

static void send(u32 command)
{
    LAPIC[0x310 / 4] = 1u << 24;
    LAPIC[0x300 / 4] = command;
}

static void pause(unsigned n)
{
    while (n--)
        __asm__ volatile("pause");
}

static void start(u32 what)
{
    static u32 number;

    request = ++number << 8 | what;
}

static void ask(u32 what)
{
    start(what);
    while (request)
        __asm__ volatile("pause");
}

GUEST(code_wait, "1: pause; jmp 1b");
static void init_signals(void)
{
    begin("26.2 INIT while the guest runs", code_wait);
    start(SEND_INIT);
    EXPECT(run(), 3);
    EXPECT(GET(guest_activity_state), 0);

    begin("26.2 INIT in the HLT state", code_wait);
    PUT(guest_activity_state, 1);
    start(SEND_INIT);
    EXPECT(run(), 3);
    EXPECT(GET(guest_activity_state), 1);

    begin("26.2 INIT in the shutdown state", code_wait);
    PUT(guest_activity_state, 2);
    start(SEND_INIT);
    EXPECT(run(), 3);
    EXPECT(GET(guest_activity_state), 2);

    begin("26.2 INIT in VMX root operation waits", code_wait);
    ask(SEND_INIT);
    EXPECT(run(), 3);
    EXPECT(guest_at(code_wait), 0);
}

static void startup(void)
{
    begin("26.2 SIPI in the wait-for-SIPI state", code_nops);
    PUT(guest_activity_state, 3);
    start(REPEAT_SIPI); /* one that comes before the entry is lost */
    EXPECT(run(), 4);
    request = 0;
    EXPECT(GET(exit_qualification), 8);
    EXPECT(GET(guest_activity_state), 3);

    begin("26.5.1 the timer does not end the wait-for-SIPI state", code_nops);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 1);
    PUT(guest_activity_state, 3);
    start(REPEAT_SIPI);
    EXPECT(run(), 4);
    request = 0;

    begin("26.2 SIPI is lost on a CPU that does not wait for it", code_nops);
    ask(SEND_SIPI);
    EXPECT(run(), 18);
}

/* Whatever the region holds then, the entry works or fails, and the next VMCS is none the worse. */
static void ruined(void)
{
    begin("25.2 a VMCS region overwritten while it is current", code_wait);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 1000);
    start(RUIN);
    for (unsigned i = 0; i < 200; i++)
        run();
    ask(NOTHING);
    begin("25.2 another VMCS after it", code_nops);
    EXPECT(run(), 18);
}

static void tests(void)
{
    static void (*const groups[])(void) = {init_signals, startup, ruined};

    vmcs_number = 1;
    if (!vmx_start()) {
        print("VMXON failed on the second CPU\n");
        failures++;
        return;
    }
    run_groups("INIT and SIPI", groups, sizeof(groups) / sizeof(groups[0]));
}

/* 26.2: an INIT that comes in VMX operation is taken after VMXOFF, at whatever moment both come. In
 * odd rounds it is there before, in even ones the first CPU sends it at about the same time. */
static void leave_vmx(u32 round)
{
    if (round % 2)
        ask(SEND_INIT);
    start(STOP);
    pause(round * 97 % 2000);
    if (round % 2)
        __asm__ volatile("vmxoff; movb $1, %0" : "=m"(went_on));
    else
        __asm__ volatile("vmxoff");
    for (;;)
        __asm__ volatile("pause");
}

void second_main(void)
{
    u32 round = ++starts;

    LAPIC[0xf0 / 4] = 0x1ff;
    if (round == 1)
        tests();
    else if (round <= ROUNDS && !vmx_start())
        return;
    if (round <= ROUNDS)
        leave_vmx(round);
    done = true;
}

/* What the first CPU does meanwhile. */
static void serve(void)
{
    u32 taken, what;

    while ((what = (taken = request) & 0xff) != STOP) {
        pause(2000);
        if (what == SEND_INIT)
            send(0x4500);
        else if (what == SEND_SIPI)
            send(0x4608);
        while (what == REPEAT_SIPI && request == taken) {
            send(0x4608);
            pause(2000);
        }
        if (what == RUIN)
            for (unsigned i = 4; i < 4096; i++)
                vmcs_regions[1][i] = (u8)(i * 7 + vmcs_regions[1][i]);
        pause(200);
        __sync_bool_compare_and_swap(&request, taken, 0);
    }
}

/* SIPIs in a row, for one is lost until the second CPU waits for it. */
static bool start_again(u32 round)
{
    request = 0;
    if (round % 2 == 0) {
        pause(round * 61 % 2000);
        send(0x4500);
    }
    for (u32 i = 0; i < 1000000 && starts == round; i++) {
        send(0x4608);
        pause(i % 64);
    }
    return starts == round + 1;
}

unsigned test_smp(void)
{
    unsigned before = failures;
    u8 *to = (u8 *)0x8000;

    if (lapic_id() != 0)
        return 0;
    for (size_t i = 0; i < (size_t)(second_end - second_start); i++)
        to[i] = second_start[i];
    LAPIC[0xf0 / 4] = 0x1ff;
    send(0x4500);
    while (!starts) {
        pause(2000);
        send(0x4608);
    }
    do
        serve();
    while (start_again(starts) && starts <= ROUNDS);
    for (unsigned i = 0; i < 1000000 && !done; i++)
        pause(10);
    begin("26.2 INIT and VMXOFF", code_nops);
    EXPECT(starts, ROUNDS + 1);
    EXPECT(went_on, false); /* it comes before the next instruction */
    EXPECT(done, true);
    return failures - before;
}
