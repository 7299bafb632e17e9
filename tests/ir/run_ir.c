/*
 * Runs .ir tests: a unit's text with what is to be done and what must come out, in comments.
 *
 *   ;! build                  emit every instruction through the builder
 *   ;! quick   ;! full        run the optimiser
 *   ;! state 8 = 0x10         an i64 in the state before the run; more likewise
 *   ;! request                the request word is set
 *   ;! gives                  the text from here on is what the unit must look like after that
 *   ;! run                    interpret it (before and after what was asked for) and expect
 *   ;! expect exit 16         ... to leave so,
 *   ;! expect goto 0x401010   ... or so (base is 0x401000),
 *   ;! expect state 8 = 0x11  and this in the state
 *
 * Helpers are those of random.h; memory reads as zero and forgets.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/private.h"
#include "opt/opt.h"
#include "random.h"

#define BASE 0x401000ull
#define STATE_BYTES 4096
#define MAX_LINES 64

struct pair {
    u64 slot, value;
};

struct test {
    const char *path;
    struct arena arena;
    struct ir_unit unit;
    bool build, run, expect_exit, expect_goto;
    enum opt_level level;
    u32 request;
    u64 leaves_with;
    struct pair set[MAX_LINES], expect[MAX_LINES];
    unsigned nset, nexpect;
    char *source, *gives;
};

static int complain(const struct test *t, const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s%s\n", t->path, what, detail);
    return -EINVAL;
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    long size;

    if (!f)
        return NULL;
    if (!fseek(f, 0, SEEK_END) && (size = ftell(f)) >= 0) {
        rewind(f);
        text = calloc(1, (size_t)size + 1);
        if (text && fread(text, 1, size, f) != (size_t)size) {
            free(text);
            text = NULL;
        }
    }
    fclose(f);
    return text;
}

static int directive(struct test *t, const char *line)
{
    struct pair pair;
    char word[16];

    if (sscanf(line, ";! expect state %" SCNi64 " = %" SCNi64, (s64 *)&pair.slot,
               (s64 *)&pair.value) == 2 &&
        t->nexpect < MAX_LINES)
        t->expect[t->nexpect++] = pair;
    else if (sscanf(line, ";! state %" SCNi64 " = %" SCNi64, (s64 *)&pair.slot,
                    (s64 *)&pair.value) == 2 &&
             t->nset < MAX_LINES)
        t->set[t->nset++] = pair;
    else if (sscanf(line, ";! expect exit %" SCNi64, (s64 *)&t->leaves_with) == 1)
        t->expect_exit = true;
    else if (sscanf(line, ";! expect goto %" SCNi64, (s64 *)&t->leaves_with) == 1)
        t->expect_goto = true;
    else if (sscanf(line, ";! %15s", word) != 1)
        return complain(t, "empty directive", "");
    else if (!strcmp(word, "build"))
        t->build = true;
    else if (!strcmp(word, "quick"))
        t->level = OPT_QUICK;
    else if (!strcmp(word, "full"))
        t->level = OPT_FULL;
    else if (!strcmp(word, "request"))
        t->request = 1;
    else if (!strcmp(word, "run"))
        t->run = true;
    else
        return complain(t, "no such directive: ", word);
    return 0;
}

/* Reads the directives and cuts the text in two at ";! gives". */
static int read_test(struct test *t)
{
    t->source = read_file(t->path);
    if (!t->source)
        return complain(t, "cannot read it", "");
    for (char *line = t->source; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, ";! gives\n", 9)) {
            *line = '\0';
            t->gives = line + 9;
            return 0;
        }
        if (!strncmp(line, ";!", 2) && directive(t, line))
            return -EINVAL;
    }
    return 0;
}

/* Emits @from through the builder into t->unit. */
static void rebuild(struct test *t, const struct ir_unit *from)
{
    ir_ref *map = calloc(from->ninsts, sizeof(*map));

    if (!map)
        abort();
    ir_init(&t->unit, &t->arena, from->helpers, from->nhelpers, from->pc_slot);
    while (t->unit.nblocks < from->nblocks)
        ir_block_new(&t->unit);
    for (u32 b = 0; b < from->nblocks; b++) {
        ir_begin(&t->unit, b);
        for (u32 i = 0; i < from->blocks[b].count; i++) {
            ir_ref ref = from->blocks[b].first + i;
            const struct ir_inst *in = &from->insts[ref];

            if (in->op != IR_NOP)
                map[ref] = ir_emit(&t->unit, in->op, in->type, map[in->a], map[in->b], map[in->c],
                                   map[in->d], in->imm);
        }
    }
    free(map);
}

static void load(void *state, u64 addr, void *buf, unsigned bytes)
{
    (void)state, (void)addr;
    memset(buf, 0, bytes);
}

static void store(void *state, u64 addr, const void *buf, unsigned bytes)
{
    (void)state, (void)addr, (void)buf, (void)bytes;
}

static u64 atomic(void *state, u64 addr, enum ir_op op, unsigned bytes, u64 operand, u64 desired)
{
    (void)state, (void)addr, (void)op, (void)bytes, (void)operand, (void)desired;
    return 0;
}

static int run(struct test *t, const char *when)
{
    static const struct ir_memory memory = {load, store, atomic};
    static u8 state[STATE_BYTES];
    struct ir_run r = {state, BASE, &t->request, &memory};
    struct ir_outcome out;
    char detail[128];
    u64 value;

    memset(state, 0, sizeof(state));
    for (unsigned i = 0; i < t->nset; i++)
        memcpy(state + t->set[i].slot, &t->set[i].value, sizeof(u64));
    out = ir_interpret(&t->unit, &r);
    memcpy(&value, state + t->unit.pc_slot, sizeof(value));
    if (out.how == IR_LEFT_EXIT)
        value = out.exit_code;
    if (t->expect_exit + t->expect_goto &&
        (out.how != (t->expect_exit ? IR_LEFT_EXIT : IR_LEFT_GOTO) || value != t->leaves_with)) {
        snprintf(detail, sizeof(detail), "%s: leaves by %s %#" PRIx64, when,
                 out.how == IR_LEFT_EXIT ? "exit" : "goto", value);
        return complain(t, detail, "");
    }
    for (unsigned i = 0; i < t->nexpect; i++) {
        memcpy(&value, state + t->expect[i].slot, sizeof(value));
        if (value == t->expect[i].value)
            continue;
        snprintf(detail, sizeof(detail), "%s: state %" PRIu64 " = %#" PRIx64, when,
                 t->expect[i].slot, value);
        return complain(t, detail, "");
    }
    return 0;
}

/* Compares line by line; spaces at the ends of lines and comments do not count. */
static int compare(const struct test *t)
{
    struct ir_unit want = {0};
    char *texts[2] = {0};
    const struct ir_unit *units[2] = {&t->unit, &want};
    struct err err;
    int rc = 0;

    ir_init(&want, (struct arena *)&t->arena, t->unit.helpers, t->unit.nhelpers, t->unit.pc_slot);
    if (ir_parse(&want, t->gives, &err))
        return complain(t, "in what it gives, ", err.text);
    for (unsigned i = 0; i < 2; i++) {
        size_t len;
        FILE *f = open_memstream(&texts[i], &len);

        ir_print(units[i], f);
        fclose(f);
    }
    if (strcmp(texts[0], texts[1])) {
        fprintf(stderr, "%s", texts[0]);
        rc = complain(t, "gives the above instead", "");
    }
    free(texts[0]);
    free(texts[1]);
    return rc;
}

static int check(struct test *t)
{
    struct ir_unit parsed;
    struct err err;
    int rc;

    ir_init(&t->unit, &t->arena, random_helpers, random_nhelpers, 0);
    if (ir_parse(&t->unit, t->source, &err) || ir_verify(&t->unit, &err))
        return complain(t, err.text, "");
    if (t->run && (rc = run(t, "as written")))
        return rc;
    if (t->build) {
        parsed = t->unit;
        rebuild(t, &parsed);
    }
    rc = opt_run(&t->unit, t->level);
    if (!rc && ir_verify(&t->unit, &err))
        return complain(t, err.text, "");
    if (!rc && t->gives)
        rc = compare(t);
    if (!rc && t->run)
        rc = run(t, "after the passes");
    return rc;
}

int main(int argc, char **argv)
{
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        struct test t = {.path = argv[i]};

        failed |= read_test(&t) || check(&t);
        arena_free(&t.arena);
        free(t.source);
    }
    return failed;
}
