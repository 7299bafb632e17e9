#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/entropy.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "base/thread.h"

static void bits_at_the_edges(void **state)
{
    (void)state;
    assert_int_equal(mask_low(0), 0);
    assert_int_equal(mask_low(1), 1);
    assert_true(mask_low(63) == 0x7fffffffffffffffull);
    assert_true(mask_low(64) == ~0ull);
    assert_true(bits(0x8000000000000001ull, 63, 0) == 0x8000000000000001ull);
    assert_int_equal(bits(0xabcd, 11, 4), 0xbc);
    assert_true(sign_extend(0x80, 8) == -128);
    assert_true(sign_extend(0x7f, 8) == 127);
    assert_true(sign_extend(1, 1) == -1);
    assert_true(sign_extend(~0ull, 64) == -1);
    assert_int_equal(align_up(1, 4096), 4096);
    assert_int_equal(align_up(4096, 4096), 4096);
    assert_int_equal(align_down(4095, 4096), 0);
    assert_true(is_power_of_two(1ull << 63));
    assert_false(is_power_of_two(0));
    assert_false(is_power_of_two(6));
}

static void err_keeps_the_last_sentence(void **state)
{
    struct err err = {0};
    char long_text[1000];

    (void)state;
    assert_int_equal(err_set(&err, -EINVAL, "bad %d", 7), -EINVAL);
    assert_string_equal(err.text, "bad 7");
    assert_int_equal(err_context(&err, -EIO, "--mem %s", "1M"), -EIO);
    assert_string_equal(err.text, "--mem 1M: bad 7");
    assert_int_equal(err_set(NULL, -ENOENT, "nobody listens"), -ENOENT);
    assert_int_equal(err_context(NULL, -ENOENT, "nobody listens"), -ENOENT);

    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    err_set(&err, -1, "%s", long_text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    err_context(&err, -1, "%s", long_text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void arena_zeroes_and_aligns(void **state)
{
    struct arena arena = {0};
    u8 *first = arena_alloc(&arena, 3), *p;

    (void)state;
    assert_non_null(first);
    memset(first, 0xff, 3);
    for (size_t size = 0; size < 5000; size += 7) {
        p = arena_alloc(&arena, size);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xa5, size);
    }
    assert_int_equal(first[0] & first[1] & first[2], 0xff);
    p = arena_alloc(&arena, 1 << 20); /* larger than a chunk */
    assert_non_null(p);
    memset(p, 1, 1 << 20);
    arena_reset(&arena);
    p = arena_alloc(&arena, 1 << 20);
    assert_non_null(p);
    assert_int_equal(p[0] | p[(1 << 20) - 1], 0);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 64));
    arena_free(&arena);
    assert_null(arena.chunks);
    arena_free(&arena);
    arena_reset(&arena);
}

static void strbuf_grows(void **state)
{
    struct strbuf sb = {0};

    (void)state;
    strbuf_printf(&sb, "%s", "");
    assert_string_equal(sb.text, "");
    for (int i = 0; i < 1000; i++)
        strbuf_printf(&sb, "%03d,", i);
    assert_int_equal(sb.len, 4000);
    assert_memory_equal(sb.text, "000,001,", 8);
    assert_string_equal(sb.text + 3992, "998,999,");
    strbuf_append(&sb, "a\0b", 3);
    assert_int_equal(sb.len, 4003);
    assert_memory_equal(sb.text + 4000, "a\0b", 4);
    strbuf_append(&sb, "x", SIZE_MAX);
    assert_true(sb.failed);
    assert_int_equal(sb.len, 4003);
    strbuf_printf(&sb, "more");
    assert_int_equal(sb.len, 4003);
    strbuf_free(&sb);
    assert_null(sb.text);
    assert_false(sb.failed);
}

static void list_adds_and_removes(void **state)
{
    struct item {
        int value;
        struct list node;
    } items[3] = {{.value = 0}, {.value = 1}, {.value = 2}};
    struct list head;
    int expect = 0;

    (void)state;
    list_init(&head);
    assert_true(list_empty(&head));
    for (int i = 0; i < 3; i++)
        list_add_tail(&head, &items[i].node);
    list_for_each(it, &head)
        assert_int_equal(list_entry(it, struct item, node)->value, expect++);
    assert_int_equal(expect, 3);
    list_remove(&items[1].node);
    list_remove(&items[1].node);
    assert_ptr_equal(items[0].node.next, &items[2].node);
    list_for_each_safe(it, tmp, &head)
        list_remove(it);
    assert_true(list_empty(&head));
}

static void clocks_move_forward(void **state)
{
    u64 mono = clock_mono_ns(), real = clock_real_ns(), cpu = clock_thread_ns();

    (void)state;
    usleep(2000);
    assert_true(clock_mono_ns() - mono >= 2000000);
    assert_true(clock_real_ns() > real);
    assert_true(clock_thread_ns() >= cpu);
    assert_true(muldiv64(~0ull, 1000, 1000) == ~0ull);
    assert_true(muldiv64(3, 10, 4) == 7);
}

static void entropy_differs(void **state)
{
    u8 a[1000] = {0}, b[1000] = {0}, zero[1000] = {0};

    (void)state;
    entropy_fill(a, sizeof(a));
    entropy_fill(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a + 900, zero, 100);
    b[0] = 42;
    entropy_fill(b, 0);
    assert_int_equal(b[0], 42);
}

/* Runs @fn in a child with standard error in a pipe, answers the text and the wait status. */
static int capture_stderr(void (*fn)(void), char *text, size_t size)
{
    int fds[2], status;
    size_t len = 0;
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        dup2(fds[1], STDERR_FILENO);
        fn();
        _exit(0);
    }
    close(fds[1]);
    while ((n = read(fds[0], text + len, size - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void say_things(void)
{
    log_info("hello %d", 1);
    log_terminal_raw(true);
    log_warn("careful");
    log_terminal_raw(false);
    log_error("stop");
}

static void say_too_much(void)
{
    char text[5000];

    memset(text, 'y', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_error("%s", text);
}

static void break_an_invariant(void)
{
    BUG_ON(1 + 1 == 2);
}

static void log_levels_and_raw_terminal(void **state)
{
    char text[8192];

    (void)state;
    assert_int_equal(capture_stderr(say_things, text, sizeof(text)), 0);
    assert_string_equal(text, "triode: hello 1\ntriode: warning: careful\r\ntriode: stop\n");
    assert_int_equal(capture_stderr(say_too_much, text, sizeof(text)), 0);
    assert_in_range(strlen(text), 2000, 2048);
    assert_int_equal(text[strlen(text) - 1], '\n');
}

static void bug_names_the_place(void **state)
{
    char text[1024];
    int status = capture_stderr(break_an_invariant, text, sizeof(text));

    (void)state;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(text, "test_base.c:"));
    assert_non_null(strstr(text, "1 + 1 == 2"));
}

static void *tell_name(void *arg)
{
    prctl(PR_GET_NAME, arg);
    return arg;
}

static void thread_has_its_name(void **state)
{
    char name[16] = {0};
    struct err err = {0};
    pthread_t thread;
    void *answer;

    (void)state;
    assert_int_equal(thread_create(&thread, "a-name-that-is-too-long", tell_name, name, &err), 0);
    pthread_join(thread, &answer);
    assert_ptr_equal(answer, name);
    assert_string_equal(name, "a-name-that-is-");
}

static void timed_wait_ends(void **state)
{
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    u64 start = clock_mono_ns();

    (void)state;
    mutex_init(&mutex);
    cond_init(&cond);
    mutex_lock(&mutex);
    while (cond_wait_until(&cond, &mutex, start + 5000000)) {
        /* woken without cause */
    }
    assert_true(clock_mono_ns() >= start + 5000000);
    mutex_unlock(&mutex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_at_the_edges),       cmocka_unit_test(err_keeps_the_last_sentence),
        cmocka_unit_test(arena_zeroes_and_aligns), cmocka_unit_test(strbuf_grows),
        cmocka_unit_test(list_adds_and_removes),   cmocka_unit_test(clocks_move_forward),
        cmocka_unit_test(entropy_differs),         cmocka_unit_test(log_levels_and_raw_terminal),
        cmocka_unit_test(bug_names_the_place),     cmocka_unit_test(thread_has_its_name),
        cmocka_unit_test(timed_wait_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
