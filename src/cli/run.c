/* `triode run`: options to a machine, the machine's end to an exit status. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/probe.h"
#include "machine/machine.h"
#include "trace/trace.h"

#define DEFAULT_MEMORY (512 * MiB)
#define TERMINAL_LOOK_MS 250              /* in the background: is the terminal ours now? */
#define STOP_LIMIT_NS (10 * NSEC_PER_SEC) /* for vCPUs to leave the guest after a signal */

struct run {
    struct cli_options options;
    struct machine_config config;
    struct machine *machine;
    struct terminal_keys keys;
    char kernel[PATH_MAX], initrd[PATH_MAX];
    char disks[CLI_MAX_DISKS][PATH_MAX];
    int serial_file, debug_file; /* opened for --serial, --debugcon; else -1 */
    int signals;                 /* signalfd, or -1 */
    int ended_by;                /* the signal that ended the run, 0 for none */
    bool stats;
    bool raw; /* the terminal is ours, and its keys go to the guest */
};

static const char *option(const struct run *run, enum cli_option which)
{
    return run->options.value[which];
}

/* ---- Options to configuration ---------------------------------------------------------------- */

/* The folder of the default guest: $TRIODE_GUESTS, or guests beside the executable. */
static int guests_folder(char *folder, size_t size, struct err *err)
{
    const char *environment = getenv("TRIODE_GUESTS");
    char self[PATH_MAX];
    ssize_t len;
    char *slash;

    if (environment && *environment) {
        snprintf(folder, size, "%s", environment);
        return 0;
    }
    len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len < 0)
        return err_set(err, -errno, "cannot find out where the executable is: %s", strerror(errno));
    self[len] = '\0';
    slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if (snprintf(folder, size, "%s/guests", self) >= (int)size)
        return err_set(err, -ENAMETOOLONG, "the executable's path is too long");
    return 0;
}

/* Tries "initramfs.cpio" and "initramfs.cpio.gz". */
static bool find_initramfs(const char *folder, char *path, size_t size)
{
    static const char *const names[] = {"initramfs.cpio", "initramfs.cpio.gz"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (snprintf(path, size, "%s/%s", folder, names[i]) < (int)size && !access(path, F_OK))
            return true;
    return false;
}

static int choose_guest(struct run *run, struct err *err)
{
    char folder[PATH_MAX];
    int ret;

    run->config.kernel = option(run, CLI_OPTION_KERNEL);
    run->config.initrd = option(run, CLI_OPTION_INITRD);
    run->config.append = option(run, CLI_OPTION_APPEND);
    run->config.firmware = option(run, CLI_OPTION_FIRMWARE);
    if (run->config.firmware && (run->config.kernel || run->config.initrd || run->config.append))
        return err_set(err, -EINVAL,
                       "--firmware boots from a disk: --kernel, --initrd and --append do not go "
                       "with it");
    if (run->config.kernel || run->config.firmware)
        return 0;
    ret = guests_folder(folder, sizeof(folder), err);
    if (ret)
        return ret;
    if (snprintf(run->kernel, sizeof(run->kernel), "%s/vmlinuz-cloud", folder) >=
        (int)sizeof(run->kernel))
        return err_set(err, -ENAMETOOLONG, "the path of the default guest is too long");
    if (access(run->kernel, F_OK) ||
        (!run->config.initrd && !find_initramfs(folder, run->initrd, sizeof(run->initrd))))
        return err_set(err, -ENOENT,
                       "there is no default guest in %s: \"make run\" fetches one, or name a "
                       "kernel with --kernel",
                       folder);
    run->config.kernel = run->kernel;
    if (!run->config.initrd)
        run->config.initrd = run->initrd;
    if (!run->config.append)
        run->config.append = "console=ttyS0 quiet";
    return 0;
}

static int open_output(const char *name, const char *path, int *fd, struct err *err)
{
    if (!*path)
        return err_set(err, -EINVAL, "--%s: file: needs a path", name);
    *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (*fd < 0)
        return err_set(err, -errno, "--%s: cannot write %s: %s", name, path, strerror(errno));
    return 0;
}

static void quit_key(void *opaque)
{
    machine_stop(((struct run *)opaque)->machine);
}

static void break_key(void *opaque)
{
    machine_serial_break(((struct run *)opaque)->machine);
}

static int choose_serial(struct run *run, struct err *err)
{
    struct machine_serial *serial = &run->config.serial;
    const char *text = option(run, CLI_OPTION_SERIAL);
    int ret = 0;

    *serial = (struct machine_serial){.kind = MACHINE_SERIAL_FDS, .in = -1, .out = -1};
    if (!text || !strcmp(text, "stdio")) {
        serial->in = STDIN_FILENO;
        serial->out = STDOUT_FILENO;
        if (isatty(STDIN_FILENO)) {
            run->keys =
                (struct terminal_keys){.quit = quit_key, .line_break = break_key, .opaque = run};
            serial->filter = terminal_filter;
            serial->opaque = &run->keys;
            serial->never_pause = true;
        }
    } else if (!strcmp(text, "none")) {
        serial->kind = MACHINE_SERIAL_NONE;
    } else if (!strcmp(text, "pty")) {
        serial->kind = MACHINE_SERIAL_PTY;
    } else if (!strncmp(text, "file:", 5)) {
        ret = open_output("serial", text + 5, &run->serial_file, err);
        serial->out = run->serial_file;
    } else {
        ret =
            err_set(err, -EINVAL, "--serial takes stdio, none, file:PATH or pty, not \"%s\"", text);
    }
    return ret;
}

static int choose_debugcon(struct run *run, struct err *err)
{
    struct machine_serial *debug = &run->config.debug;
    const char *text = option(run, CLI_OPTION_DEBUGCON);
    int ret = 0;

    *debug = (struct machine_serial){.kind = MACHINE_SERIAL_FDS, .in = -1, .out = -1};
    if (!text || !strcmp(text, "none")) {
        debug->kind = MACHINE_SERIAL_NONE;
    } else if (!strcmp(text, "stderr")) {
        debug->out = STDERR_FILENO;
    } else if (!strncmp(text, "file:", 5)) {
        ret = open_output("debugcon", text + 5, &run->debug_file, err);
        debug->out = run->debug_file;
    } else {
        ret = err_set(err, -EINVAL, "--debugcon takes none, stderr or file:PATH, not \"%s\"", text);
    }
    return ret;
}

static int choose_disks(struct run *run, struct err *err)
{
    int ret = 0;

    _Static_assert((int)CLI_MAX_DISKS == (int)MACHINE_MAX_DISKS, "as many as a machine takes");
    run->config.disk_count = run->options.disk_count;
    for (unsigned i = 0; !ret && i < run->options.disk_count; i++) {
        struct machine_disk *disk = &run->config.disks[i];

        if (snprintf(run->disks[i], PATH_MAX, "%s", run->options.disks[i]) >= PATH_MAX)
            return err_set(err, -ENAMETOOLONG, "--disk: the path is too long");
        disk->path = run->disks[i];
        ret = cli_parse_disk(run->disks[i], &disk->read_only, &disk->ide, err);
    }
    return ret;
}

/* --trace, and --vmx-dump-on-fail, which is one more event of it. */
static int open_trace(struct run *run, struct err *err)
{
    const char *text = option(run, CLI_OPTION_TRACE);
    struct strbuf spec = {0};
    int ret;

    if (!option(run, CLI_OPTION_VMX_DUMP_ON_FAIL))
        return text ? trace_open(text, err) : 0;
    strbuf_printf(&spec, "vmcs%s%s", text ? "," : "", text ? text : "");
    ret = spec.text ? trace_open(spec.text, err) : err_set(err, -ENOMEM, "out of memory");
    strbuf_free(&spec);
    return ret;
}

static int choose_entry(struct run *run, struct err *err)
{
    static const char *const names[] = {
        [MACHINE_ENTRY_AUTO] = "auto",
        [MACHINE_ENTRY_64] = "64",
        [MACHINE_ENTRY_32] = "32",
        [MACHINE_ENTRY_16] = "16",
    };
    const char *text = option(run, CLI_OPTION_ENTRY);

    for (unsigned i = 0; text && i < ARRAY_SIZE(names); i++) {
        if (!strcmp(text, names[i])) {
            run->config.entry = i;
            return 0;
        }
    }
    return text ? err_set(err, -EINVAL, "--entry takes auto, 64, 32 or 16, not \"%s\"", text) : 0;
}

static int choose_triple_fault(struct run *run, struct err *err)
{
    const char *text = option(run, CLI_OPTION_TRIPLE_FAULT);

    run->config.reset_on_triple_fault = text && !strcmp(text, "reset");
    return !text || run->config.reset_on_triple_fault || !strcmp(text, "end")
               ? 0
               : err_set(err, -EINVAL, "--triple-fault takes end or reset, not \"%s\"", text);
}

static int parse_code_cache(const char *text, u64 *bytes, struct err *err)
{
    int ret = cli_parse_size("code-cache", text, bytes, err);

    return ret || (*bytes >= MiB && *bytes <= GiB)
               ? ret
               : err_set(err, -EINVAL, "--code-cache takes 1M to 1G, not %s", text);
}

static int refuse_empty(const struct run *run, struct err *err)
{
    static const enum cli_option not_empty[] = {CLI_OPTION_KERNEL, CLI_OPTION_INITRD,
                                                CLI_OPTION_FIRMWARE, CLI_OPTION_CPU};

    for (size_t i = 0; i < ARRAY_SIZE(not_empty); i++)
        if (option(run, not_empty[i]) && !*option(run, not_empty[i]))
            return err_set(err, -EINVAL, "--%s has an empty argument",
                           cli_option_name(not_empty[i]));
    return 0;
}

static int configure(struct run *run, struct err *err)
{
    struct machine_config *config = &run->config;
    const char *text;
    bool reboot = true;
    int ret;

    config->board = "pc";
    config->memory = DEFAULT_MEMORY;
    config->jit = config->unpack = true;
    config->test_devices = option(run, CLI_OPTION_TEST_DEVICES) != NULL;
    run->stats = config->count_insns = option(run, CLI_OPTION_STATS) != NULL;
    config->cpu_model = option(run, CLI_OPTION_CPU);
    text = option(run, CLI_OPTION_SMP);
    ret = refuse_empty(run, err);
    if (!ret)
        ret = machine_topology_parse(text ? text : "1", &config->topology, err);
    text = option(run, CLI_OPTION_MEM);
    if (!ret && text)
        ret = cli_parse_size("mem", text, &config->memory, err);
    text = option(run, CLI_OPTION_CODE_CACHE);
    if (!ret && text)
        ret = parse_code_cache(text, &config->code_cache_bytes, err);
    if (!ret)
        ret = cli_parse_switch("jit", option(run, CLI_OPTION_JIT), &config->jit, err);
    if (!ret)
        ret = cli_parse_switch("unpack", option(run, CLI_OPTION_UNPACK), &config->unpack, err);
    if (!ret)
        ret = choose_entry(run, err);
    if (!ret)
        ret = cli_parse_switch("reboot", option(run, CLI_OPTION_REBOOT), &reboot, err);
    config->end_on_reset = !reboot;
    if (!ret)
        ret = choose_triple_fault(run, err);
    text = option(run, CLI_OPTION_DUMP);
    if (!ret && text)
        ret = cli_parse_dump(text, &config->dump_stages, &config->dump_first, &config->dump_last,
                             err);
    if (!ret)
        ret = choose_guest(run, err);
    if (!ret)
        ret = choose_disks(run, err);
    config->rng = option(run, CLI_OPTION_RNG) != NULL;
    config->iommu = option(run, CLI_OPTION_IOMMU) != NULL;
    if (!ret)
        ret = choose_serial(run, err);
    if (!ret)
        ret = choose_debugcon(run, err);
    config->gdb = option(run, CLI_OPTION_GDB);
    config->gdb_wait = option(run, CLI_OPTION_GDB_WAIT) != NULL;
    if (!ret && config->gdb_wait && !config->gdb)
        ret = err_set(err, -EINVAL, "--gdb-wait needs --gdb to say where the debugger comes in");
    return ret ? ret : open_trace(run, err);
}

/* ---- The engine ------------------------------------------------------------------------------ */

/* The option, if any, that only the soft engine understands: it decides for that engine. */
static const char *needs_soft(const struct run *run)
{
    const char *model = run->config.cpu_model;

    if (!run->config.jit)
        return "--jit off";
    if (run->config.dump_stages)
        return "--dump";
    if (run->config.code_cache_bytes)
        return "--code-cache";
    if (model && strcmp(model, "host"))
        return "--cpu MODEL";
    return NULL;
}

static int open_engine(struct run *run, const struct engine_ops *ops, const char *why,
                       struct err *err)
{
    int ret = ops->open(&run->config.engine, err);

    if (!ret)
        log_info("engine %s: %s", ops->name, why);
    return ret;
}

static int choose_engine(struct run *run, struct err *err)
{
    const char *text = option(run, CLI_OPTION_ENGINE);
    struct probe_result probe;
    char why[sizeof(probe.reason) + 64];
    const char *soft = needs_soft(run);
    int ret;

    if (text && !strcmp(text, "kvm") && soft)
        return err_set(err, -EINVAL, "--engine kvm does not go with %s, which only soft has", soft);
    if (text && !strcmp(text, "kvm"))
        return open_engine(run, &kvm_engine_ops, "as --engine says", err);
    if (text && !strcmp(text, "soft"))
        return open_engine(run, &soft_engine_ops, "as --engine says", err);
    if (text && strcmp(text, "auto")) {
        err_set(err, -EINVAL, "--engine takes auto, kvm or soft, not \"%s\"", text);
        return -EINVAL;
    }
    if (soft) {
        snprintf(why, sizeof(why), "%s asks for it", soft);
        return open_engine(run, &soft_engine_ops, why, err);
    }
    ret = probe_engine(&kvm_engine_ops, &probe);
    if (ret)
        return err_set(err, ret, "cannot try the kvm engine: %s", strerror(-ret));
    if (probe.usable && !probe.emulated)
        return open_engine(run, &kvm_engine_ops, probe.reason, err);
    snprintf(why, sizeof(why), "kvm is no use here (%s)", probe.reason);
    return open_engine(run, &soft_engine_ops, why, err);
}

/* ---- Signals --------------------------------------------------------------------------------- */

static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

/* Before the machine runs there is nothing to stop in good order. */
static void on_early_signal(int signal)
{
    terminal_restore();
    _exit(CLI_SIGNAL + signal);
}

static void handle_early_signals(void)
{
    struct sigaction action = {.sa_handler = on_early_signal};

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
        struct sigaction present;

        /* Who started us may want us to survive: nohup ignores SIGHUP. */
        if (!sigaction(deadly[i], NULL, &present) && present.sa_handler != SIG_IGN)
            sigaction(deadly[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a disk that may not grow is the guest's I/O error */
}

/* From now on signals are read from a descriptor, beside the machine's end. */
static int take_signals(struct run *run, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
        struct sigaction present;

        if (!sigaction(deadly[i], NULL, &present) && present.sa_handler != SIG_IGN)
            sigaddset(&set, deadly[i]);
    }
    sigaddset(&set, SIGTSTP);
    sigaddset(&set, SIGCONT);
    run->signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (run->signals < 0)
        return err_set(err, -errno, "cannot wait for signals: %s", strerror(errno));
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return 0;
}

/* Stops as any program does on Ctrl-Z, but with the terminal as the shell knows it. */
static void suspend(struct run *run)
{
    struct sigaction stop = {.sa_handler = SIG_DFL};
    sigset_t set;

    terminal_restore();
    run->raw = false;
    sigemptyset(&stop.sa_mask);
    sigaction(SIGTSTP, &stop, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    raise(SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* here the process stops, and here it goes on */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void go_on(struct run *run)
{
    run->raw = run->config.serial.filter && terminal_raw(STDIN_FILENO);
    machine_serial_resume(run->machine);
}

/* A shell that brings a running job to the foreground need not tell it so. */
static bool waits_for_terminal(const struct run *run)
{
    return run->config.serial.filter && !run->raw;
}

static void look_at_terminal(struct run *run)
{
    run->raw = terminal_raw(STDIN_FILENO);
    if (run->raw)
        machine_serial_resume(run->machine);
}

static void on_signal(struct run *run)
{
    struct signalfd_siginfo info;

    if (read(run->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    switch (info.ssi_signo) {
    case SIGTSTP:
        suspend(run);
        break;
    case SIGCONT:
        go_on(run);
        break;
    default:
        if (run->ended_by)
            on_early_signal((int)info.ssi_signo); /* the second one does not wait */
        run->ended_by = (int)info.ssi_signo;
        machine_stop(run->machine);
        break;
    }
}

/* ---- Running --------------------------------------------------------------------------------- */

/* Waits until the machine is done, or too long after it was told to stop. */
static bool wait_for_end(struct run *run)
{
    struct pollfd fds[2] = {{.fd = machine_done_fd(run->machine), .events = POLLIN},
                            {.fd = run->signals, .events = POLLIN}};
    u64 deadline = 0;

    for (;;) {
        int timeout = waits_for_terminal(run) ? TERMINAL_LOOK_MS : -1, ready;

        if (run->ended_by && !deadline)
            deadline = clock_mono_ns() + STOP_LIMIT_NS;
        if (deadline) {
            u64 now = clock_mono_ns();

            if (now >= deadline)
                return false;
            timeout = (int)((deadline - now) / 1000000) + 1;
        }
        ready = poll(fds, ARRAY_SIZE(fds), timeout);
        if (!ready && waits_for_terminal(run))
            look_at_terminal(run);
        if (ready <= 0)
            continue;
        if (fds[0].revents)
            return true;
        if (fds[1].revents)
            on_signal(run);
    }
}

static int status_of(const struct run *run, enum machine_end end)
{
    switch (end) {
    case MACHINE_POWER_OFF:
    case MACHINE_RESET:
        return CLI_OK;
    case MACHINE_STOPPED:
        return run->ended_by ? CLI_SIGNAL + run->ended_by : CLI_OK;
    case MACHINE_EXITED:
        return machine_exit_status(run->machine);
    case MACHINE_TRIPLE_FAULT:
        return CLI_TRIPLE_FAULT;
    case MACHINE_PANIC:
        return CLI_PANIC;
    default:
        return CLI_ENGINE;
    }
}

static void print_end(struct run *run)
{
    struct strbuf text = {0};

    if (*machine_error(run->machine))
        log_error("%s", machine_error(run->machine));
    fputs(machine_report(run->machine), stderr);
    if (run->stats) {
        machine_stats(run->machine, &text);
        fputs(text.text ? text.text : "", stderr);
        strbuf_free(&text);
    }
}

static int run_machine(struct run *run, struct err *err)
{
    enum machine_end end;
    int ret = take_signals(run, err);

    if (!ret && run->config.serial.filter)
        run->raw = terminal_raw(STDIN_FILENO);
    if (!ret)
        ret = machine_start(run->machine, err);
    if (ret) {
        terminal_restore();
        log_error("%s", err->text);
        return CLI_FAILURE;
    }
    if (!wait_for_end(run)) {
        terminal_restore();
        log_error("a vCPU does not stop; giving up");
        _exit(run->ended_by ? CLI_SIGNAL + run->ended_by : CLI_ENGINE);
    }
    end = machine_join(run->machine);
    terminal_restore();
    print_end(run);
    return status_of(run, end);
}

/* What a user can mend is bad input; the rest is the host's fault. */
static int status_of_error(int code)
{
    switch (code) {
    case -EMFILE:
    case -ENFILE:
    case -EAGAIN:
    case -ENOMEM:
        return CLI_FAILURE;
    default:
        return CLI_USAGE;
    }
}

static int run_with(struct run *run, struct err *err)
{
    int ret = configure(run, err), status;

    if (ret) {
        log_error("%s", err->text);
        return status_of_error(ret);
    }
    ret = choose_engine(run, err);
    if (ret) {
        log_error("%s", err->text);
        return ret == -EINVAL ? CLI_USAGE : CLI_ENGINE;
    }
    ret = machine_create(&run->machine, &run->config, err);
    if (ret) {
        log_error("%s", err->text);
        status = status_of_error(ret);
    } else {
        const char *path = machine_serial_path(run->machine);

        if (path)
            log_info("serial port on %s", path);
        if (run->config.gdb)
            log_info("gdb: target remote %s", machine_gdb_address(run->machine));
        status = run_machine(run, err);
        machine_destroy(run->machine);
    }
    run->config.engine->ops->close(run->config.engine);
    return status;
}

int cli_cmd_run(int argc, char **argv)
{
    struct run *run = calloc(1, sizeof(*run));
    struct err err = {0};
    int status;

    if (!run) {
        log_error("out of memory");
        return CLI_FAILURE;
    }
    run->serial_file = run->debug_file = run->signals = -1;
    if (cli_parse_options(argc, argv, &run->options, &err)) {
        log_error("%s", err.text);
        free(run);
        return CLI_USAGE;
    }
    if (option(run, CLI_OPTION_HELP)) {
        cli_print_command_help(stdout, "run");
        free(run);
        return CLI_OK;
    }
    handle_early_signals();
    status = run_with(run, &err);
    trace_close();
    if (run->serial_file >= 0)
        close(run->serial_file);
    if (run->debug_file >= 0)
        close(run->debug_file);
    if (run->signals >= 0)
        close(run->signals);
    free(run);
    return status;
}
