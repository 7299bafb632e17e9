/* The 16550A, by its data sheet. */
#include "board.h"

enum {
    BASE = 0x3f8,
    IER = 0x3f9,
    IIR = 0x3fa,
    FCR = 0x3fa,
    LCR = 0x3fb,
    MCR = 0x3fc,
    LSR = 0x3fd,
    MSR = 0x3fe,
    SCR = 0x3ff
};

static size_t type(struct board *b, const char *text)
{
    return b->stream.receive(b->stream.device, (const u8 *)text, strlen(text));
}

static struct board *opened(void)
{
    struct board *b = board_new("serial", NULL);

    outb(b, MCR, 0x0b); /* DTR, RTS, OUT2 */
    return b;
}

static void output_leaves_at_once(void **state)
{
    struct board *b = opened();

    (void)state;
    assert_int_equal(inb(b, LSR), 0x60);
    outb(b, BASE, 'h');
    outb(b, BASE, 'i');
    assert_int_equal(b->sent_len, 2);
    assert_memory_equal(b->sent, "hi", 2);
    assert_int_equal(inb(b, LSR), 0x60);
    board_free(b);
}

static void full_back_end_shows_as_busy_transmitter(void **state)
{
    struct board *b = opened();

    (void)state;
    b->send_room = 1;
    outb(b, IER, 2);
    assert_int_equal(inb(b, IIR), 0x02);
    outb(b, BASE, 'a');
    assert_int_equal(b->line[4], 1);
    outb(b, BASE, 'b');
    assert_int_equal(inb(b, LSR), 0x00);
    assert_int_equal(b->line[4], 0);
    assert_int_equal(inb(b, IIR), 0x01);
    b->send_room = 10;
    b->stream.writable(b->stream.device);
    assert_memory_equal(b->sent, "ab", 2);
    assert_int_equal(inb(b, LSR), 0x60);
    assert_int_equal(b->line[4], 1);
    board_free(b);
}

static void transmitter_interrupt(void **state)
{
    struct board *b = opened();

    (void)state;
    assert_int_equal(inb(b, IIR), 0x01);
    outb(b, IER, 0x02); /* raised by enabling it while empty */
    assert_int_equal(b->line[4], 1);
    assert_int_equal(inb(b, IIR), 0x02);
    assert_int_equal(b->line[4], 0); /* reading it acknowledges */
    assert_int_equal(inb(b, IIR), 0x01);
    outb(b, BASE, 'x');
    assert_int_equal(b->line[4], 1);
    outb(b, MCR, 0x03); /* OUT2 gates the line */
    assert_int_equal(b->line[4], 0);
    outb(b, MCR, 0x0b);
    assert_int_equal(b->line[4], 1);
    board_free(b);
}

static void input_without_fifo(void **state)
{
    struct board *b = opened();

    (void)state;
    outb(b, IER, 0x01);
    assert_int_equal(type(b, "xy"), 1);
    assert_int_equal(b->line[4], 1);
    assert_int_equal(inb(b, IIR), 0x04);
    assert_int_equal(inb(b, LSR), 0x61);
    assert_int_equal(b->rooms, 0);
    assert_int_equal(inb(b, BASE), 'x');
    assert_int_equal(b->rooms, 1);
    assert_int_equal(b->line[4], 0);
    assert_int_equal(inb(b, LSR), 0x60);
    board_free(b);
}

static void input_waits_for_request_to_send(void **state)
{
    struct board *b = board_new("serial", NULL);

    (void)state;
    assert_int_equal(type(b, "typed too early"), 0);
    assert_int_equal(b->rooms, 0);
    outb(b, MCR, 0x03);
    assert_int_equal(b->rooms, 1);
    assert_int_equal(type(b, "t"), 1);
    board_free(b);
}

static void fifo_trigger_and_timeout(void **state)
{
    struct board *b = opened();

    (void)state;
    outb(b, FCR, 0x81); /* trigger at 8 */
    outb(b, IER, 0x01);
    assert_int_equal(inb(b, IIR), 0xc1);
    assert_int_equal(type(b, "1234567"), 7);
    assert_int_equal(b->line[4], 0);
    board_fire(b);
    assert_int_equal(b->line[4], 1);
    assert_int_equal(inb(b, IIR), 0xcc);
    assert_int_equal(inb(b, BASE), '1');
    assert_int_equal(b->line[4], 0); /* reading ends the timeout */
    assert_int_equal(type(b, "89"), 2);
    assert_int_equal(inb(b, IIR), 0xc4);
    assert_int_equal(type(b, "abcdefghijk"), 8);
    for (const char *c = "23456789abcdefgh"; *c; c++)
        assert_int_equal(inb(b, BASE), *c);
    assert_int_equal(inb(b, LSR), 0x60);
    assert_int_equal(inb(b, IIR), 0xc1);
    board_free(b);
}

static void fifo_reset_drops_input(void **state)
{
    struct board *b = opened();

    (void)state;
    outb(b, FCR, 0x01);
    assert_int_equal(type(b, "abc"), 3);
    outb(b, FCR, 0x03);
    assert_int_equal(inb(b, LSR), 0x60);
    assert_int_equal(type(b, "abc"), 3);
    outb(b, FCR, 0x00); /* leaving FIFO mode clears as well */
    assert_int_equal(inb(b, LSR), 0x60);
    assert_int_equal(inb(b, IIR), 0x01);
    board_free(b);
}

static void break_is_a_line_error(void **state)
{
    struct board *b = opened();

    (void)state;
    outb(b, FCR, 0x01);
    outb(b, IER, 0x05);
    assert_int_equal(type(b, "a"), 1);
    b->stream.line_break(b->stream.device);
    assert_int_equal(inb(b, IIR), 0xc4); /* the break is not at the head yet */
    assert_int_equal(inb(b, LSR), 0xe1); /* but the FIFO knows */
    assert_int_equal(inb(b, BASE), 'a');
    assert_int_equal(inb(b, IIR), 0xc6);
    assert_int_equal(inb(b, LSR), 0xf1);
    assert_int_equal(inb(b, LSR), 0x61);
    assert_int_equal(inb(b, BASE), 0);
    assert_int_equal(inb(b, IIR), 0xc1);
    board_free(b);
}

static void loopback(void **state)
{
    struct board *b = opened();

    (void)state;
    assert_int_equal(inb(b, MSR) & 0xf0, 0xb0);
    outb(b, MCR, 0x10);
    assert_int_equal(inb(b, MSR), 0x0b); /* CTS, DSR and DCD fell; all deltas but the ring's */
    assert_int_equal(inb(b, MSR), 0x00);
    outb(b, MCR, 0x1f);
    assert_int_equal(inb(b, MSR), 0xfb);
    outb(b, MCR, 0x1b);
    assert_int_equal(inb(b, MSR), 0xb4); /* the ring's end */
    outb(b, BASE, 0x5a);
    assert_int_equal(b->sent_len, 0);
    assert_int_equal(inb(b, LSR), 0x61);
    assert_int_equal(inb(b, BASE), 0x5a);
    assert_int_equal(type(b, "lost"), 4);
    assert_int_equal(inb(b, LSR), 0x60);
    /* Without room the second character overruns the first. */
    outb(b, BASE, 1);
    outb(b, BASE, 2);
    assert_int_equal(inb(b, LSR), 0x63);
    assert_int_equal(inb(b, BASE), 2);
    board_free(b);
}

static void modem_interrupt(void **state)
{
    struct board *b = opened();

    (void)state;
    inb(b, MSR);
    outb(b, IER, 0x08);
    outb(b, MCR, 0x1b); /* RI falls: RTS, DTR, OUT2 look like CTS, DSR, DCD */
    assert_int_equal(inb(b, IIR), 0x01);
    outb(b, MCR, 0x18);
    assert_int_equal(inb(b, IIR), 0x00);
    assert_int_equal(b->line[4], 1);
    inb(b, MSR);
    assert_int_equal(b->line[4], 0);
    board_free(b);
}

static void divisor_and_scratch(void **state)
{
    struct board *b = opened();

    (void)state;
    outb(b, IER, 0x0f);
    outb(b, LCR, 0x83);
    outb(b, BASE, 0x34);
    outb(b, IER, 0x12);
    assert_int_equal(in(b, BASE, 2), 0x1234);
    outb(b, LCR, 0x03);
    assert_int_equal(inb(b, IER), 0x0f);
    assert_int_equal(inb(b, LCR), 0x03);
    assert_int_equal(b->sent_len, 0);
    outb(b, SCR, 0xa5);
    assert_int_equal(inb(b, SCR), 0xa5);
    outb(b, IER, 0xff);
    assert_int_equal(inb(b, IER), 0x0f); /* high bits do not exist: drivers test it */
    outb(b, MCR, 0xff);
    assert_int_equal(inb(b, MCR), 0x1f);
    board_free(b);
}

static void state_survives_a_move(void **state)
{
    struct board *b = opened();

    (void)state;
    outb(b, FCR, 0x01);
    outb(b, IER, 0x03);
    outb(b, SCR, 0x77);
    assert_int_equal(type(b, "abc"), 3);
    board_migrate(b, NULL);
    assert_int_equal(b->line[4], 1);
    assert_int_equal(inb(b, SCR), 0x77);
    assert_int_equal(inb(b, BASE), 'a');
    assert_int_equal(inb(b, BASE), 'b');
    device_reset(b->dev);
    assert_int_equal(b->line[4], 0);
    assert_int_equal(inb(b, LSR), 0x60);
    board_free(b);
}

/* Input waits for RTS, unless the other side does not look at it. */
static void ready_to_send(void **state)
{
    struct board *b = board_new("serial", "port=0x3f8,irq=4");

    (void)state;
    assert_int_equal(b->stream.receive(b->stream.device, (const u8 *)"x", 1), 0);
    assert_int_equal(inb(b, 0x3fd) & 1, 0);
    outb(b, 0x3fc, 2);
    assert_int_equal(b->rooms, 1);
    assert_int_equal(b->stream.receive(b->stream.device, (const u8 *)"x", 1), 1);
    assert_int_equal(inb(b, 0x3f8), 'x');
    board_free(b);
    b = board_new("serial", "port=0x3f8,irq=4,rts=0");
    assert_int_equal(b->stream.receive(b->stream.device, (const u8 *)"xy", 2), 1);
    assert_int_equal(inb(b, 0x3fd) & 1, 1);
    assert_int_equal(inb(b, 0x3f8), 'x');
    assert_int_equal(b->rooms, 1); /* for the second one */
    board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_to_send),
        cmocka_unit_test(output_leaves_at_once),
        cmocka_unit_test(full_back_end_shows_as_busy_transmitter),
        cmocka_unit_test(transmitter_interrupt),
        cmocka_unit_test(input_without_fifo),
        cmocka_unit_test(input_waits_for_request_to_send),
        cmocka_unit_test(fifo_trigger_and_timeout),
        cmocka_unit_test(fifo_reset_drops_input),
        cmocka_unit_test(break_is_a_line_error),
        cmocka_unit_test(loopback),
        cmocka_unit_test(modem_interrupt),
        cmocka_unit_test(divisor_and_scratch),
        cmocka_unit_test(state_survives_a_move),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
