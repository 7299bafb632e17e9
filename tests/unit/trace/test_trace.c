#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace/trace.h"

static char directory[] = "/tmp/triode-trace-XXXXXX";

static char *path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static char *content_of(const char *name)
{
    static char text[65536];
    FILE *file = fopen(path_of(name), "r");
    size_t len;

    assert_non_null(file);
    len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = '\0';
    fclose(file);
    return text;
}

static void open_trace(const char *events, const char *name)
{
    char spec[512];

    snprintf(spec, sizeof(spec), "%s:%s", events, path_of(name));
    assert_int_equal(trace_open(spec, NULL), 0);
}

static void text_has_only_what_was_asked_for(void **state)
{
    const char *text;

    (void)state;
    open_trace("msr,irq", "log.txt");
    assert_true(trace_enabled(TRACE_MSR));
    assert_false(trace_enabled(TRACE_PIO));
    trace_emit(MSR, msr, 3, .op = "rdmsr", .msr = 0xc0000080, .value = ~0ull);
    trace_emit(PIO, pio, 3, .op = "in", .port = 0x60);
    trace_emit(IRQ, irq, -1, .unit = "ioapic", .number = 4);
    trace_close();
    assert_false(trace_enabled(TRACE_MSR));
    trace_emit(MSR, msr, 3, .op = "late");

    text = content_of("log.txt");
    assert_non_null(strstr(text, " cpu3 msr op=rdmsr msr=0xc0000080 value=0xffffffffffffffff\n"));
    assert_non_null(strstr(text, " irq unit=ioapic number=4 value=0\n"));
    assert_null(strstr(text, "pio"));
    assert_null(strstr(text, "late"));
    assert_ptr_equal(strchr(strchr(text, '\n') + 1, '\n'), text + strlen(text) - 1);
}

static void json_escapes(void **state)
{
    const char *text;

    (void)state;
    open_trace("all", "log.jsonl");
    trace_emit(EXCEPTION, exception, 0, .name = "a\"b\\c\nd", .error = 1ull << 63);
    trace_emit(SMC, smc, -1, .bytes = UINT64_MAX);
    trace_close();
    text = content_of("log.jsonl");
    assert_non_null(strstr(text,
                           ",\"cpu\":0,\"event\":\"exception\",\"name\":\"a\\\"b\\\\c\\u000ad\","
                           "\"vector\":0,\"error\":\"0x8000000000000000\","));
    assert_non_null(
        strstr(text, ",\"event\":\"smc\",\"gpa\":\"0\",\"bytes\":18446744073709551615,"));
    assert_int_equal(text[0], '{');
}

static void arguments_wait_for_the_switch(void **state)
{
    unsigned evaluated = 0;

    (void)state;
    trace_emit(TLB, tlb, 0, .gva = ++evaluated);
    assert_int_equal(evaluated, 0);
    open_trace("tlb", "tlb");
    trace_emit(TLB, tlb, 0, .gva = ++evaluated);
    trace_close();
    assert_int_equal(evaluated, 1);
}

static void bad_specs_are_explained(void **state)
{
    static const char *const bad[] = {"",           ",",     "exits,",   "exit",
                                      "exits,,irq", "EXITS", "exits irq"};
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(trace_open(bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "no trace event is called"));
        assert_non_null(strstr(err.text, "exits, "));
    }
    assert_int_equal(trace_open("exits:", &err), -EINVAL);
    assert_non_null(strstr(err.text, "no file"));
    assert_int_equal(trace_open("exits:/nonexistent/dir/file", &err), -ENOENT);
    assert_string_equal(err.text, "cannot write the trace to /nonexistent/dir/file: "
                                  "No such file or directory");
    assert_int_equal(trace_open("exits:/tmp", &err), -EISDIR);
    assert_int_equal(trace_mask, 0);
}

static void full_disk_stops_the_trace(void **state)
{
    (void)state;
    assert_int_equal(trace_open("msr:/dev/full", NULL), 0);
    for (int i = 0; i < 20000; i++)
        trace_emit(MSR, msr, 0, .op = "rdmsr", .value = (u64)i);
    trace_close();
}

static void every_event_has_name_and_help(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TRACE_EVENTS; i++) {
        struct err err = {0};

        assert_true(strlen(trace_name(i)) > 1);
        assert_true(strlen(trace_help(i)) > 5);
        assert_int_equal(trace_open(trace_name(i), &err), 0);
        assert_true(trace_mask == 1ull << i);
        trace_close();
    }
    assert_null(trace_name(TRACE_EVENTS));
    assert_null(trace_help(TRACE_EVENTS));
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(path_of("log.txt"));
    unlink(path_of("log.jsonl"));
    unlink(path_of("tlb"));
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_has_only_what_was_asked_for),
        cmocka_unit_test(json_escapes),
        cmocka_unit_test(arguments_wait_for_the_switch),
        cmocka_unit_test(bad_specs_are_explained),
        cmocka_unit_test(full_disk_stops_the_trace),
        cmocka_unit_test(every_event_has_name_and_help),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
