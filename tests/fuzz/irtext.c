/* The IR's text form: any text is refused or parsed; what the verifier lets pass prints, parses
 * back to the same text, and goes through the optimiser. */
#include "base/arena.h"
#include "fuzz.h"
#include "guest/x86/x86.h"
#include "opt/opt.h"

static char *text_of(const struct ir_unit *unit)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    MUST(out);
    ir_print(unit, out);
    fclose(out);
    return text;
}

static int parse(struct ir_unit *unit, struct arena *arena, const char *text)
{
    struct err err;

    ir_init(unit, arena, x86_guest_ops.helpers, x86_guest_ops.nhelpers, x86_guest_ops.pc_slot);
    return ir_parse(unit, text, &err);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    char *text = malloc(size + 1), *first, *second;
    struct arena arena = {0};
    struct ir_unit unit, again;
    struct err err;

    MUST(text);
    memcpy(text, data, size);
    text[size] = '\0';
    if (!parse(&unit, &arena, text) && !ir_verify(&unit, &err)) {
        first = text_of(&unit);
        MUST(!parse(&again, &arena, first));
        second = text_of(&again);
        MUST(!strcmp(first, second));
        free(first);
        free(second);
        MUST(!opt_run(&unit, OPT_FULL));
        MUST(!ir_verify(&unit, &err));
    }
    arena_free(&arena);
    free(text);
    return 0;
}
