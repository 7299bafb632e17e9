/* What the debugger asks, packet by packet (GDB manual, appendix E). Errors are "E" and an
 * errno. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/gdb.h"

#define MAX_MEMORY (GDB_PACKET_MAX / 2 - 64) /* bytes by one packet, two digits each */

static void error(struct gdb *gdb, int code)
{
    gdb->reply.len = 0;
    strbuf_printf(&gdb->reply, "E%02x", (code < 0 ? -code : code) & 0xff);
}

static void ok(struct gdb *gdb)
{
    strbuf_printf(&gdb->reply, "OK");
}

static void answer(struct gdb *gdb, int code)
{
    if (code)
        error(gdb, code);
    else
        ok(gdb);
}

static struct machine_vcpu *selected(struct gdb *gdb)
{
    return gdb_vcpu(gdb, gdb->selected);
}

static bool skip(const char **at, char expected)
{
    if (**at != expected)
        return false;
    (*at)++;
    return true;
}

/* ---- Threads: vCPU n is thread n + 1 --------------------------------------------------------- */

enum { THREAD_ALL = -1 };

/* "-1": all; "0": any, which is the first. False for anything that is not a vCPU. */
static bool parse_thread(struct gdb *gdb, const char **at, int *index)
{
    u64 id;

    if (!strncmp(*at, "-1", 2)) {
        *at += 2;
        *index = THREAD_ALL;
        return true;
    }
    if (!gdb_parse_hex(at, &id) || id > gdb_cpus(gdb))
        return false;
    *index = id ? (int)id - 1 : 0;
    return true;
}

static void cmd_select(struct gdb *gdb, const char *at)
{
    char what = *at;
    int index;

    if ((what != 'g' && what != 'c') || (at++, !parse_thread(gdb, &at, &index))) {
        error(gdb, EINVAL);
        return;
    }
    if (index == THREAD_ALL)
        index = 0;
    if (what == 'g')
        gdb->selected = (unsigned)index;
    else
        gdb->resumed = (unsigned)index;
    ok(gdb);
}

static void cmd_alive(struct gdb *gdb, const char *at)
{
    int index;

    answer(gdb, parse_thread(gdb, &at, &index) ? 0 : EINVAL);
}

static const char *activity(struct machine_vcpu *vcpu)
{
    struct kvm_mp_state state = {0};

    if (!vcpu->machine->ops->get_mp_state || vcpu->machine->ops->get_mp_state(vcpu->vcpu, &state))
        return "";
    switch (state.mp_state) {
    case KVM_MP_STATE_HALTED:
        return "halted";
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
        return "waits for SIPI";
    default:
        return "running";
    }
}

/* ---- Registers ------------------------------------------------------------------------------- */

static void cmd_read_registers(struct gdb *gdb, const char *at)
{
    struct gdb_context *context = gdb_context_read(selected(gdb)->vcpu);
    u8 bytes[GDB_REGISTER_BYTES];

    (void)at;
    if (!context) {
        error(gdb, EIO);
        return;
    }
    for (unsigned i = 0; i < gdb_register_count(); i++) {
        gdb_register_get(context, i, bytes);
        gdb_put_bytes(&gdb->reply, bytes, gdb_register_bytes(i));
    }
    gdb_context_free(context);
}

static void cmd_read_register(struct gdb *gdb, const char *at)
{
    struct gdb_context *context;
    u8 bytes[GDB_REGISTER_BYTES];
    u64 number;

    if (!gdb_parse_hex(&at, &number) || number >= gdb_register_count()) {
        error(gdb, EINVAL);
        return;
    }
    context = gdb_context_read(selected(gdb)->vcpu);
    if (!context) {
        error(gdb, EIO);
        return;
    }
    gdb_register_get(context, (unsigned)number, bytes);
    gdb_put_bytes(&gdb->reply, bytes, gdb_register_bytes((unsigned)number));
    gdb_context_free(context);
}

/* Sets the registers from @first on that @at has bytes for. */
static int write_registers(struct gdb *gdb, unsigned first, unsigned count, const char *at)
{
    struct gdb_context *context = gdb_context_read(selected(gdb)->vcpu);
    u8 bytes[GDB_REGISTER_BYTES];
    int ret = context ? 0 : -EIO;

    for (unsigned i = first; !ret && i < first + count && *at; i++) {
        unsigned len = gdb_register_bytes(i);

        if (!gdb_parse_bytes(at, bytes, len)) {
            ret = -EINVAL;
            break;
        }
        gdb_register_set(context, i, bytes);
        at += 2 * len;
    }
    if (!ret && *at)
        ret = -EINVAL;
    if (!ret)
        ret = gdb_context_write(selected(gdb)->vcpu, context);
    gdb_context_free(context);
    return ret;
}

static void cmd_write_registers(struct gdb *gdb, const char *at)
{
    answer(gdb, write_registers(gdb, 0, gdb_register_count(), at));
}

static void cmd_write_register(struct gdb *gdb, const char *at)
{
    u64 number;

    if (!gdb_parse_hex(&at, &number) || number >= gdb_register_count() || !skip(&at, '=') || !*at)
        error(gdb, EINVAL);
    else
        answer(gdb, write_registers(gdb, (unsigned)number, 1, at));
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static bool parse_range(const char **at, u64 *address, u64 *len)
{
    return gdb_parse_hex(at, address) && skip(at, ',') && gdb_parse_hex(at, len);
}

static void cmd_read_memory(struct gdb *gdb, const char *at)
{
    u8 data[MAX_MEMORY];
    u64 address, len;
    size_t done;

    if (!parse_range(&at, &address, &len)) {
        error(gdb, EINVAL);
        return;
    }
    done = gdb_read(gdb, address, data, len < sizeof(data) ? len : sizeof(data));
    if (!done && len)
        error(gdb, EFAULT);
    else
        gdb_put_bytes(&gdb->reply, data, done);
}

static void cmd_write_memory(struct gdb *gdb, const char *at)
{
    u8 data[GDB_PACKET_MAX / 2];
    u64 address, len;

    if (!parse_range(&at, &address, &len) || !skip(&at, ':') || len > sizeof(data) ||
        strlen(at) != 2 * len || !gdb_parse_bytes(at, data, len))
        error(gdb, EINVAL);
    else
        answer(gdb, gdb_write(gdb, address, data, len) == len ? 0 : EFAULT);
}

/* The same with bytes as they are. */
static void cmd_write_binary(struct gdb *gdb, const char *at)
{
    u64 address, len;

    if (!parse_range(&at, &address, &len) || !skip(&at, ':') ||
        len != gdb->parser.len - (size_t)(at - gdb->parser.data))
        error(gdb, EINVAL);
    else
        answer(gdb, gdb_write(gdb, address, at, len) == len ? 0 : EFAULT);
}

/* ---- Breakpoints ----------------------------------------------------------------------------- */

static void breakpoint(struct gdb *gdb, const char *at, bool insert)
{
    u64 kind, address, len;

    if (!gdb_parse_hex(&at, &kind) || !skip(&at, ',') || !parse_range(&at, &address, &len))
        error(gdb, EINVAL);
    else if (kind >= GDB_KINDS)
        return; /* the empty answer: not supported */
    else if (insert)
        answer(gdb, gdb_insert(gdb, (enum gdb_kind)kind, address, len));
    else
        answer(gdb, gdb_remove(gdb, (enum gdb_kind)kind, address, len));
}

static void cmd_insert(struct gdb *gdb, const char *at)
{
    breakpoint(gdb, at, true);
}

static void cmd_remove(struct gdb *gdb, const char *at)
{
    breakpoint(gdb, at, false);
}

/* ---- Stop and go ----------------------------------------------------------------------------- */

void gdb_send_stop(struct gdb *gdb)
{
    static const char *const kinds[] = {
        [GDB_STOP_SOFTWARE] = "swbreak", [GDB_STOP_HARDWARE] = "hwbreak",
        [GDB_STOP_WRITE] = "watch",      [GDB_STOP_READ] = "rwatch",
        [GDB_STOP_ACCESS] = "awatch",
    };
    struct gdb_stop stop = {.signal = gdb->interrupted ? GDB_SIGINT : GDB_SIGTRAP};

    for (unsigned i = 0; i < gdb_cpus(gdb); i++) {
        struct gdb_stop *own = &gdb_vcpu(gdb, i)->debug.stop;

        if (!own->signal)
            continue;
        stop = *own;
        own->signal = 0;
        gdb->selected = i;
        break;
    }
    gdb->resumed = gdb->selected;
    strbuf_printf(&gdb->reply, "T%02xthread:%x;", stop.signal, gdb->selected + 1);
    if (stop.kind >= GDB_STOP_WRITE)
        strbuf_printf(&gdb->reply, "%s:%" PRIx64 ";", kinds[stop.kind], stop.address);
    else if (kinds[stop.kind])
        strbuf_printf(&gdb->reply, "%s:;", kinds[stop.kind]);
    gdb_send(gdb);
}

static void cmd_why(struct gdb *gdb, const char *at)
{
    (void)at;
    gdb_send_stop(gdb);
}

static void resume(struct gdb *gdb)
{
    gdb->reply_due = true;
    if (gdb_release(gdb)) {
        gdb_running(gdb);
    } else {
        gdb->reply_due = false;
        gdb_send_stop(gdb);
    }
}

static void resume_all(struct gdb *gdb, int how)
{
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        gdb_vcpu(gdb, i)->debug.resume = how;
}

static int set_pc(struct gdb *gdb, u64 pc)
{
    struct vcpu *vcpu = gdb_vcpu(gdb, gdb->resumed)->vcpu;
    struct kvm_regs regs;
    int ret = vcpu->ops->get_regs(vcpu, &regs);

    regs.rip = pc;
    return ret ? ret : vcpu->ops->set_regs(vcpu, &regs);
}

/* "c [ADDRESS]", "C SIGNAL[;ADDRESS]" and the same with s. A CPU knows no signals. */
static void go(struct gdb *gdb, const char *at, bool step, bool with_signal)
{
    u64 ignored, pc;
    int ret = 0;

    if (with_signal && !gdb_parse_hex(&at, &ignored))
        ret = EINVAL;
    if (!ret && with_signal && *at && !skip(&at, ';'))
        ret = EINVAL;
    if (!ret && *at)
        ret = gdb_parse_hex(&at, &pc) && !*at ? set_pc(gdb, pc) : EINVAL;
    if (ret) {
        error(gdb, ret);
        return;
    }
    resume_all(gdb, step ? GDB_HOLD : GDB_RUN);
    if (step)
        gdb_vcpu(gdb, gdb->resumed)->debug.resume = GDB_STEP;
    resume(gdb);
}

static void cmd_continue(struct gdb *gdb, const char *at)
{
    go(gdb, at, false, false);
}

static void cmd_continue_signal(struct gdb *gdb, const char *at)
{
    go(gdb, at, false, true);
}

static void cmd_step(struct gdb *gdb, const char *at)
{
    go(gdb, at, true, false);
}

static void cmd_step_signal(struct gdb *gdb, const char *at)
{
    go(gdb, at, true, true);
}

/* One action of vCont, "c", "s", "C05" or "S05" with ":THREAD" or without, for the vCPUs that have
 * none yet. False: not understood. */
static bool take_action(struct gdb *gdb, const char **at, bool *given)
{
    char what = *(*at)++;
    int thread = THREAD_ALL, how;
    u64 ignored;

    if (!strchr("cCsS", what) || !what)
        return false;
    if ((what == 'C' || what == 'S') && !gdb_parse_hex(at, &ignored))
        return false;
    if (skip(at, ':') && !parse_thread(gdb, at, &thread))
        return false;
    how = what == 'c' || what == 'C' ? GDB_RUN : GDB_STEP;
    for (unsigned i = 0; i < gdb_cpus(gdb); i++) {
        if (given[i] || (thread != THREAD_ALL && (unsigned)thread != i))
            continue;
        given[i] = true;
        gdb_vcpu(gdb, i)->debug.resume = how;
    }
    return **at == ';' || !**at;
}

static void cmd_vcont(struct gdb *gdb, const char *at)
{
    bool given[MACHINE_MAX_CPUS] = {false}, any = false, good = *at == ';';

    resume_all(gdb, GDB_HOLD);
    while (good && skip(&at, ';'))
        good = take_action(gdb, &at, given);
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        any |= given[i];
    if (good && any && !*at)
        resume(gdb);
    else
        error(gdb, EINVAL);
}

static void cmd_vcont_what(struct gdb *gdb, const char *at)
{
    (void)at;
    strbuf_printf(&gdb->reply, "vCont;c;C;s;S");
}

static void cmd_detach(struct gdb *gdb, const char *at)
{
    (void)at;
    ok(gdb);
    gdb_detach(gdb);
}

/* Kill: the run ends as with any other way to stop it. */
static void cmd_kill(struct gdb *gdb, const char *at)
{
    (void)at;
    gdb_detach(gdb);
    machine_stop(gdb->machine);
}

static void cmd_kill_process(struct gdb *gdb, const char *at)
{
    ok(gdb);
    cmd_kill(gdb, at);
}

/* ---- Queries --------------------------------------------------------------------------------- */

static void cmd_supported(struct gdb *gdb, const char *at)
{
    (void)at;
    strbuf_printf(&gdb->reply,
                  "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
                  "vContSupported+;swbreak+;hwbreak+",
                  GDB_PACKET_MAX);
}

static void cmd_no_ack(struct gdb *gdb, const char *at)
{
    (void)at;
    ok(gdb);
    gdb->no_ack = true;
}

static void cmd_current(struct gdb *gdb, const char *at)
{
    (void)at;
    strbuf_printf(&gdb->reply, "QC%x", gdb->selected + 1);
}

static void cmd_attached(struct gdb *gdb, const char *at)
{
    (void)at;
    strbuf_printf(&gdb->reply, "1"); /* leaving means detaching */
}

static void cmd_first_threads(struct gdb *gdb, const char *at)
{
    (void)at;
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        strbuf_printf(&gdb->reply, "%c%x", i ? ',' : 'm', i + 1);
}

static void cmd_more_threads(struct gdb *gdb, const char *at)
{
    (void)at;
    strbuf_printf(&gdb->reply, "l");
}

static void cmd_thread_info(struct gdb *gdb, const char *at)
{
    char text[64];
    int index;

    if (!skip(&at, ',') || !parse_thread(gdb, &at, &index) || index == THREAD_ALL) {
        error(gdb, EINVAL);
        return;
    }
    snprintf(text, sizeof(text), "vCPU %d %s", index, activity(gdb_vcpu(gdb, (unsigned)index)));
    gdb_put_bytes(&gdb->reply, text, strlen(text));
}

/* The piece "OFFSET,LENGTH" of @text, marked as the last or not. */
static void transfer(struct gdb *gdb, const char *at, const struct strbuf *text)
{
    u64 offset, len;

    if (!parse_range(&at, &offset, &len)) {
        error(gdb, EINVAL);
        return;
    }
    if (offset > text->len)
        offset = text->len;
    if (len > GDB_PACKET_MAX / 2 - 2) /* each byte may need an escape */
        len = GDB_PACKET_MAX / 2 - 2;
    strbuf_append(&gdb->reply, offset + len < text->len ? "m" : "l", 1);
    if (len > text->len - offset)
        len = text->len - offset;
    strbuf_append(&gdb->reply, text->text + offset, len);
}

static void cmd_features(struct gdb *gdb, const char *at)
{
    transfer(gdb, at, &gdb->description);
}

static void cmd_thread_list(struct gdb *gdb, const char *at)
{
    struct strbuf xml = {0};

    strbuf_printf(&xml, "<?xml version=\"1.0\"?>\n<threads>\n");
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        strbuf_printf(&xml, "<thread id=\"%x\" core=\"%u\" name=\"vCPU %u\">%s</thread>\n", i + 1,
                      i, i, activity(gdb_vcpu(gdb, i)));
    strbuf_printf(&xml, "</threads>\n");
    if (xml.failed)
        error(gdb, ENOMEM);
    else
        transfer(gdb, at, &xml);
    strbuf_free(&xml);
}

static void cmd_empty(struct gdb *gdb, const char *at)
{
    (void)gdb;
    (void)at;
}

/* ---- Monitor commands ------------------------------------------------------------------------ */

static void monitor_help(struct gdb *gdb, const char *arguments, struct strbuf *out);

static void monitor_info(struct gdb *gdb, const char *arguments, struct strbuf *out)
{
    if (strcmp(arguments, "registers"))
        strbuf_printf(out, "info knows: registers\n");
    else
        machine_dump_vcpu(selected(gdb)->vcpu, out);
}

static void monitor_physical(struct gdb *gdb, const char *arguments, struct strbuf *out)
{
    if (!strcmp(arguments, "on"))
        gdb->physical = true;
    else if (!strcmp(arguments, "off"))
        gdb->physical = false;
    else if (*arguments)
        strbuf_printf(out, "physical takes on or off\n");
    strbuf_printf(out, "memory is read and written by %s addresses\n",
                  gdb->physical ? "guest-physical" : "virtual");
}

static void monitor_quit(struct gdb *gdb, const char *arguments, struct strbuf *out)
{
    (void)arguments;
    strbuf_printf(out, "the run ends\n");
    machine_stop(gdb->machine);
}

static const struct {
    const char *name, *arguments, *help;
    void (*run)(struct gdb *gdb, const char *arguments, struct strbuf *out);
} monitor[] = {
    {"help", "", "print this list", monitor_help},
    {"info", "registers", "print all registers of the thread's vCPU", monitor_info},
    {"physical", "[on|off]", "read and write memory by guest-physical addresses", monitor_physical},
    {"quit", "", "end the run", monitor_quit},
};

static void monitor_help(struct gdb *gdb, const char *arguments, struct strbuf *out)
{
    (void)gdb;
    (void)arguments;
    for (size_t i = 0; i < ARRAY_SIZE(monitor); i++)
        strbuf_printf(out, "%s %s%*s %s\n", monitor[i].name, monitor[i].arguments,
                      (int)(20 - strlen(monitor[i].name) - strlen(monitor[i].arguments)), "",
                      monitor[i].help);
}

static void cmd_monitor(struct gdb *gdb, const char *at)
{
    struct strbuf out = {0};
    char line[256] = "", *arguments;
    size_t len = strlen(at) / 2, i;

    if (len >= sizeof(line) || !gdb_parse_bytes(at, line, len)) {
        error(gdb, EINVAL);
        return;
    }
    arguments = line + strcspn(line, " ");
    if (*arguments)
        *arguments++ = '\0';
    arguments += strspn(arguments, " ");
    for (i = 0; i < ARRAY_SIZE(monitor); i++)
        if (!strcmp(monitor[i].name, line))
            break;
    if (i < ARRAY_SIZE(monitor))
        monitor[i].run(gdb, arguments, &out);
    else
        strbuf_printf(&out, "no command \"%s\"; there are:\n", line), monitor_help(gdb, "", &out);
    if (out.len)
        gdb_put_bytes(&gdb->reply, out.text, out.len);
    else
        ok(gdb);
    strbuf_free(&out);
}

/* ---- Dispatch -------------------------------------------------------------------------------- */

/* The first row whose name begins the packet has it. @whole: the packet is the name and nothing
 * else.
 * @silent: the command answers by itself, or later. */
static const struct {
    const char *name;
    bool whole, silent;
    void (*run)(struct gdb *gdb, const char *at);
} commands[] = {
    {"?", true, true, cmd_why},
    {"g", true, false, cmd_read_registers},
    {"G", false, false, cmd_write_registers},
    {"p", false, false, cmd_read_register},
    {"P", false, false, cmd_write_register},
    {"m", false, false, cmd_read_memory},
    {"M", false, false, cmd_write_memory},
    {"X", false, false, cmd_write_binary},
    {"Z", false, false, cmd_insert},
    {"z", false, false, cmd_remove},
    {"H", false, false, cmd_select},
    {"T", false, false, cmd_alive},
    {"c", false, true, cmd_continue},
    {"C", false, true, cmd_continue_signal},
    {"s", false, true, cmd_step},
    {"S", false, true, cmd_step_signal},
    {"D", true, false, cmd_detach},
    {"k", true, true, cmd_kill},
    {"vCont?", true, false, cmd_vcont_what},
    {"vCont", false, true, cmd_vcont},
    {"vKill", false, false, cmd_kill_process},
    {"vMustReplyEmpty", true, false, cmd_empty},
    {"qSupported", false, false, cmd_supported},
    {"QStartNoAckMode", true, false, cmd_no_ack},
    {"qC", true, false, cmd_current},
    {"qAttached", false, false, cmd_attached},
    {"qfThreadInfo", true, false, cmd_first_threads},
    {"qsThreadInfo", true, false, cmd_more_threads},
    {"qThreadExtraInfo", false, false, cmd_thread_info},
    {"qXfer:features:read:target.xml:", false, false, cmd_features},
    {"qXfer:threads:read::", false, false, cmd_thread_list},
    {"qRcmd,", false, false, cmd_monitor},
};

void gdb_command(struct gdb *gdb)
{
    const char *text = gdb->parser.data;

    gdb->reply.len = 0;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        size_t len = strlen(commands[i].name);

        if (strncmp(text, commands[i].name, len) || (commands[i].whole && text[len]))
            continue;
        commands[i].run(gdb, text + len);
        /* A refusal is an answer, too. */
        if (!commands[i].silent || gdb->reply.len)
            gdb_send(gdb);
        return;
    }
    gdb_send(gdb); /* empty: not supported */
}
