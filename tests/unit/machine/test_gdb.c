/* The GDB server: packets, a whole session with an engine without a CPU, and debuggers gone mad. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake_engine.h"

#include "base/clock.h"
#include "machine/gdb.h"

#define ENTRY 0x100000

static const u8 code[] = {0xfa, 0xf4, 0x90, 0x90};
static char kernel_path[] = "/tmp/triode-test-XXXXXX";
static char socket_path[64], address[80];
static u64 random_state = 1;

static u64 next_random(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return random_state >> 33;
}

/* ---- Packets --------------------------------------------------------------------------------- */

static enum gdb_event parse_all(struct gdb_parser *p, const char *bytes, size_t len)
{
    enum gdb_event event = GDB_EVENT_NONE;

    for (size_t i = 0; i < len && event == GDB_EVENT_NONE; i++)
        event = gdb_parse(p, (u8)bytes[i]);
    return event;
}

static enum gdb_event parse(struct gdb_parser *p, const char *text)
{
    return parse_all(p, text, strlen(text));
}

static struct gdb_parser parser;

static void packets_by_the_manual(void **state)
{
    (void)state;
    assert_int_equal(parse(&parser, "+$g#67"), GDB_EVENT_PACKET);
    assert_string_equal(parser.data, "g");
    assert_int_equal(parse(&parser, "$#00"), GDB_EVENT_PACKET);
    assert_string_equal(parser.data, "");
    assert_int_equal(parse(&parser, "$g#68"), GDB_EVENT_BAD);
    assert_int_equal(parse(&parser, "$g#6x"), GDB_EVENT_BAD);
    assert_int_equal(parse(&parser, "$g#xx"), GDB_EVENT_BAD);
    assert_int_equal(parse(&parser, "$g}#e4"), GDB_EVENT_BAD);
    assert_int_equal(parse(&parser, "$}\003#80"), GDB_EVENT_PACKET);
    assert_string_equal(parser.data, "#");
    assert_int_equal(parse(&parser, "$broken off$m1,1#fb"), GDB_EVENT_PACKET);
    assert_string_equal(parser.data, "m1,1");
    assert_int_equal(parse(&parser, "nonsense\n\003"), GDB_EVENT_INTERRUPT);
    assert_int_equal(parse(&parser, "-"), GDB_EVENT_NAK);
}

static void long_packets_are_passed_over(void **state)
{
    struct strbuf text = {0};

    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        char *data = calloc(1, GDB_PACKET_MAX + more);

        memset(data, 'a', GDB_PACKET_MAX + more);
        text.len = 0;
        gdb_frame(&text, data, GDB_PACKET_MAX + more);
        assert_int_equal(parse_all(&parser, text.text, text.len),
                         more ? GDB_EVENT_TOO_LONG : GDB_EVENT_PACKET);
        free(data);
    }
    assert_int_equal(parse(&parser, "$g#67"), GDB_EVENT_PACKET);
    strbuf_free(&text);
}

static void frames_come_back(void **state)
{
    struct strbuf text = {0};
    char data[600];

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        size_t len = next_random() % sizeof(data);

        for (size_t i = 0; i < len; i++)
            data[i] = (char)(next_random() % 3 ? next_random() : (u8) "$#}*"[next_random() & 3]);
        text.len = 0;
        gdb_frame(&text, data, len);
        assert_int_equal(parse_all(&parser, text.text, text.len), GDB_EVENT_PACKET);
        assert_int_equal(parser.len, len);
        assert_memory_equal(parser.data, data, len);
    }
    strbuf_free(&text);
}

static void garbage_is_survived(void **state)
{
    static const char spice[] = "$$$$##}+-\003agmXZ,:;0123456789";
    unsigned events[GDB_EVENT_NAK + 1] = {0};

    (void)state;
    for (unsigned i = 0; i < 3000000; i++) {
        u64 r = next_random();
        u8 byte = r & 1 ? (u8)(r >> 8) : (u8)spice[(r >> 8) % (sizeof(spice) - 1)];
        enum gdb_event event = gdb_parse(&parser, byte);

        assert_true(event <= GDB_EVENT_NAK);
        events[event]++;
        assert_true(parser.len <= GDB_PACKET_MAX);
    }
    assert_true(events[GDB_EVENT_BAD] && events[GDB_EVENT_NAK] && events[GDB_EVENT_INTERRUPT]);
    while (gdb_parse(&parser, '#') != GDB_EVENT_BAD && parser.state != GDB_BETWEEN)
        ;
    assert_int_equal(parse(&parser, "$g#67"), GDB_EVENT_PACKET);
}

static void numbers(void **state)
{
    const char *at = "12ab,";
    u64 value;
    u8 bytes[2];

    (void)state;
    assert_true(gdb_parse_hex(&at, &value));
    assert_int_equal(value, 0x12ab);
    assert_int_equal(*at, ',');
    assert_false(gdb_parse_hex(&at, &value));
    at = "ffffffffffffffff";
    assert_true(gdb_parse_hex(&at, &value));
    assert_int_equal(value, ~0ull);
    at = "11111111111111111";
    assert_false(gdb_parse_hex(&at, &value));
    assert_true(gdb_parse_bytes("12Fe", bytes, 2));
    assert_int_equal(bytes[1], 0xfe);
    assert_false(gdb_parse_bytes("12f", bytes, 2));
    assert_false(gdb_parse_bytes("1g", bytes, 1));
}

/* ---- A session ------------------------------------------------------------------------------- */

static struct machine *machine;
static struct gdb_parser answer;
static u32 break_now; /* atomic: the first vCPU's next run ends at INT3 */
static u32 runs;      /* atomic */

static int sleep_or_break(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)number;
    __atomic_fetch_add(&runs, 1, __ATOMIC_SEQ_CST);
    if (vcpu->vcpu.index || !__atomic_exchange_n(&break_now, 0, __ATOMIC_SEQ_CST))
        return FAKE_SLEEP;
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch = (struct kvm_debug_exit_arch){.exception = 3, .pc = ENTRY};
    return 0;
}

static void begin(bool wait)
{
    struct machine_config config = fake_config(kernel_path);
    struct err err;

    fake.script = sleep_or_break;
    config.topology = (struct engine_topology){3, 1, 3, 1};
    config.gdb = address;
    config.gdb_wait = wait;
    runs = break_now = 0;
    if (machine_create(&machine, &config, &err))
        fail_msg("%s", err.text);
    assert_int_equal(machine_start(machine, NULL), 0);
}

static void end(void)
{
    struct pollfd pfd = {.fd = machine_done_fd(machine), .events = POLLIN};
    enum machine_end how;

    machine_stop(machine);
    assert_int_equal(poll(&pfd, 1, 5000), 1);
    assert_true(machine_join_for(machine, 5 * NSEC_PER_SEC, &how));
    assert_int_equal(how, MACHINE_STOPPED);
    machine_destroy(machine);
    assert_int_equal(fake.vcpus, 0);
}

static int dial(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 5};

    strcpy(to.sun_path, socket_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    memset(&answer, 0, sizeof(answer));
    return fd;
}

static void put(int fd, const char *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

/* The next packet that comes. */
static const char *hear(int fd)
{
    u8 byte;

    for (;;) {
        if (read(fd, &byte, 1) != 1)
            fail_msg("no answer");
        if (gdb_parse(&answer, byte) == GDB_EVENT_PACKET)
            return answer.data;
    }
}

static void say(int fd, const char *text)
{
    struct strbuf frame = {0};

    gdb_frame(&frame, text, strlen(text));
    put(fd, frame.text, frame.len);
    strbuf_free(&frame);
}

static const char *ask(int fd, const char *text)
{
    say(fd, text);
    return hear(fd);
}

/* A new debugger may have to wait until the guest is rid of the last one. */
static int dial_patiently(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        int fd = dial();
        u8 byte;

        /* It may have hung up already. */
        if (send(fd, "$?#3f", 5, MSG_NOSIGNAL) == 5 && read(fd, &byte, 1) == 1 && byte == '+') {
            assert_int_equal(strncmp(hear(fd), "T05thread:", 10), 0);
            return fd;
        }
        close(fd);
        usleep(5000);
    }
    fail_msg("nobody answers any more");
    return -1;
}

static void a_session(void **state)
{
    struct fake_vcpu *vcpu;
    u8 byte = 0;
    int fd;

    (void)state;
    begin(true);
    fd = dial();
    assert_string_equal(ask(fd, "?"), "T05thread:1;");
    assert_int_equal(runs, 0); /* --gdb-wait */
    vcpu = to_fake(machine->vcpus[0].vcpu);
    assert_string_equal(ask(fd, "qfThreadInfo"), "m1,2,3");
    assert_string_equal(ask(fd, "qsThreadInfo"), "l");
    assert_non_null(strstr(ask(fd, "qSupported:multiprocess+"), "PacketSize=4000"));
    assert_int_equal(strncmp(ask(fd, "qXfer:features:read:target.xml:0,ffb"), "m<?xml", 6), 0);
    assert_int_equal(strncmp(ask(fd, "qXfer:features:read:target.xml:fffff,10"), "l", 1), 0);
    assert_string_equal(ask(fd, "QStartNoAckMode"), "OK");

    /* Registers: RIP is number 16; RAX the first of all. */
    assert_string_equal(ask(fd, "p10"), "0000100000000000");
    assert_string_equal(ask(fd, "P0=8877665544332211"), "OK");
    assert_int_equal(vcpu->regs.rax, 0x1122334455667788);
    assert_int_equal(strlen(ask(fd, "g")), 2 * 632);
    assert_string_equal(ask(fd, "P0=88"), "E16");
    assert_string_equal(ask(fd, "pffff"), "E16");
    assert_string_equal(ask(fd, "P28=000102030405060708090a0b0c0d0e0f"), "OK"); /* xmm0 */
    assert_int_equal(vcpu->xsave.region[40], 0x03020100);
    assert_int_equal(vcpu->xsave.region[128] & 3, 3);

    /* Memory, and a breakpoint that is not seen in it. */
    assert_string_equal(ask(fd, "m100000,4"), "faf49090");
    assert_string_equal(ask(fd, "Z0,100000,1"), "OK");
    assert_string_equal(ask(fd, "m100000,4"), "faf49090");
    assert_int_equal(mem_read(machine->mem, ENTRY, &byte, 1), 0);
    assert_int_equal(byte, 0xcc);
    assert_string_equal(ask(fd, "Mfffff,3:010203"), "OK");
    assert_string_equal(ask(fd, "mfffff,3"), "010203");
    assert_string_equal(ask(fd, "m4000000,4"), "E0e");
    assert_string_equal(ask(fd, "M100000,4:00"), "E16");

    /* Debug registers: a watched range takes as many as it needs. */
    assert_string_equal(ask(fd, "Z1,1234,1"), "OK");
    assert_string_equal(ask(fd, "Z2,2001,7"), "OK");
    assert_string_equal(ask(fd, "Z3,3000,4"), "E1c");
    assert_string_equal(ask(fd, "Z7,3000,4"), "");
    assert_int_equal(vcpu->debug.arch.debugreg[7] & 0xffff00ff, 0xd51000aa);
    assert_int_equal(vcpu->debug.arch.debugreg[2], 0x2002);

    break_now = 1;
    assert_string_equal(ask(fd, "vCont;c"), "T05thread:1;swbreak:;");
    assert_true(runs > 0);
    assert_string_equal(ask(fd, "z0,100000,1"), "OK");
    assert_int_equal(mem_read(machine->mem, ENTRY, &byte, 1), 0);
    assert_int_equal(byte, 2); /* what M put under it */
    assert_string_equal(ask(fd, "vCont;s:9"), "E16");
    assert_string_equal(ask(fd, "vCont;x"), "E16");
    say(fd, "vCont;s:2;c");
    usleep(20000);
    put(fd, "\003", 1);
    assert_int_equal(strncmp(hear(fd), "T02thread:", 10), 0);
    assert_int_equal(to_fake(machine->vcpus[1].vcpu)->debug.control & KVM_GUESTDBG_SINGLESTEP,
                     KVM_GUESTDBG_SINGLESTEP);
    assert_int_equal(vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP, 0);
    assert_string_equal(ask(fd, "D"), "OK");
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
    close(dial_patiently());
    usleep(20000);
    assert_int_equal(vcpu->debug.control, 0);
    end();
}

/* INT3 is the guest's own when the debugger did not put it there. */
static void foreign_breakpoints_are_given_back(void **state)
{
    struct fake_vcpu *vcpu;
    u32 before;
    int fd;

    (void)state;
    begin(true);
    fd = dial();
    vcpu = to_fake(machine->vcpus[0].vcpu);
    assert_string_equal(ask(fd, "Z0,100002,1"), "OK");
    before = runs;
    break_now = 1;
    say(fd, "c");
    while (__atomic_load_n(&runs, __ATOMIC_SEQ_CST) < before + 2 ||
           !(vcpu->debug.control & KVM_GUESTDBG_INJECT_BP))
        usleep(1000);
    put(fd, "\003", 1);
    assert_int_equal(strncmp(hear(fd), "T02thread:", 10), 0);
    close(fd);
    end();
}

static void the_end_is_told(void **state)
{
    int fd;

    (void)state;
    begin(true);
    fd = dial();
    assert_string_equal(ask(fd, "?"), "T05thread:1;");
    say(fd, "c");
    usleep(10000);
    machine_stop(machine);
    assert_string_equal(hear(fd), "W00");
    close(fd);
    end();
    begin(false);
    fd = dial();
    assert_string_equal(ask(fd, "vKill;1"), "OK");
    close(fd);
    end();
}

/* Packets that are well-formed but mean nothing, or too much; each has exactly one answer. */
static void mad_debuggers(void **state)
{
    static const char *const starts[] = {
        "g",        "G",          "p",
        "P",        "m",          "M",
        "X",        "Z0,",        "Z2,",
        "z",        "H",          "Hg",
        "T",        "qXfer:",     "qXfer:features:read:target.xml:",
        "qRcmd,6",  "vCont?",     "qThreadExtraInfo,",
        "?",        "Z",          "P1",
        "m100000,", "qSupported", "M100000,1:",
        "X100000,", "qC",         "qfThreadInfo",
        "QStart",   "\x80",       "Z1,",
        "",
    };
    static const char spice[] = "0123456789abcdef,,::;;-#$}=\001";

    (void)state;
    begin(false);
    for (unsigned round = 0; round < 60; round++) {
        int fd = dial_patiently();
        unsigned packets = next_random() % 40;

        for (unsigned i = 0; i < packets; i++) {
            char text[128];
            size_t len = 0, more = next_random() % 40;

            len = (size_t)snprintf(text, sizeof(text), "%s",
                                   starts[next_random() % ARRAY_SIZE(starts)]);
            while (more--)
                text[len++] = spice[next_random() % (sizeof(spice) - 1)];
            text[len] = '\0';
            ask(fd, text);
        }
        switch (next_random() % 4) {
        case 0:
            put(fd, "$m1000", 6); /* gone in the middle of a packet */
            break;
        case 1:
            say(fd, "vCont;c"); /* gone while the guest runs */
            break;
        case 2:
            say(fd, "Z0,100000,1");
            say(fd, "vCont;c");
            put(fd, "\003\003", 2);
            break;
        default:
            for (unsigned i = 0; i < 200; i++)
                say(fd, "g"); /* never reads the answers */
            break;
        }
        close(fd);
    }
    end();
}

static void noise(void **state)
{
    (void)state;
    begin(false);
    for (unsigned round = 0; round < 40; round++) {
        int fd = dial_patiently();
        char bytes[2000];

        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (char)next_random();
            if (bytes[i] == 'k') /* would end the run, were the checksum right */
                bytes[i] = 'K';
        }
        put(fd, bytes, sizeof(bytes));
        close(fd);
    }
    end();
}

static void two_debuggers_are_one_too_many(void **state)
{
    int first, second;
    char byte;

    (void)state;
    begin(false);
    first = dial();
    assert_string_equal(ask(first, "?"), "T05thread:1;");
    second = dial();
    assert_int_equal(read(second, &byte, 1), 0);
    close(second);
    memset(&answer, 0, sizeof(answer));
    assert_string_equal(ask(first, "qC"), "QC1");
    close(first);
    end();
}

static void bad_addresses(void **state)
{
    static const char *const bad[] = {"",         "x",
                                      "tcp:",     "70000",
                                      "unix:",    "1.2.3.4:x",
                                      "udp:1234", "12 34",
                                      "-1",       "unix:/nonexistent/socket"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct machine_config config = fake_config(kernel_path);
        struct err err = {0};

        config.gdb = bad[i];
        assert_true(machine_create(&machine, &config, &err) < 0);
        assert_int_equal(strncmp(err.text, "--gdb", 5), 0);
    }
}

static void tcp_stays_at_home(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    struct err err = {0};

    (void)state;
    config.gdb = "tcp:0";
    fake.script = sleep_or_break;
    assert_int_equal(machine_create(&machine, &config, &err), 0);
    assert_int_equal(strncmp(machine_gdb_address(machine), "127.0.0.1:", 10), 0);
    machine_destroy(machine);
}

static int set_up(void **state)
{
    (void)state;
    fake_kernel(kernel_path, code, sizeof(code));
    snprintf(socket_path, sizeof(socket_path), "/tmp/triode-test-gdb-%d", (int)getpid());
    snprintf(address, sizeof(address), "unix:%s", socket_path);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    unlink(kernel_path);
    return access(socket_path, F_OK) ? 0 : -1; /* removed by its server */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_by_the_manual),
        cmocka_unit_test(long_packets_are_passed_over),
        cmocka_unit_test(frames_come_back),
        cmocka_unit_test(garbage_is_survived),
        cmocka_unit_test(numbers),
        cmocka_unit_test(a_session),
        cmocka_unit_test(foreign_breakpoints_are_given_back),
        cmocka_unit_test(the_end_is_told),
        cmocka_unit_test(mad_debuggers),
        cmocka_unit_test(noise),
        cmocka_unit_test(two_debuggers_are_one_too_many),
        cmocka_unit_test(bad_addresses),
        cmocka_unit_test(tcp_stays_at_home),
    };

    return cmocka_run_group_tests(tests, set_up, clean_up);
}
