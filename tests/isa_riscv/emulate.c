/* Our CPU: the same program in flat memory, its few system calls and signals answered here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dbt/dbt.h"
#include "guest/riscv/riscv.h"
#include "isa_riscv.h"

struct isa_emulator {
    struct riscv_cpu cpu;
    struct mem *mem;
    struct mem_ram text, data;
    struct dbt *dbt;
};

struct isa_emulator *isa_emulator_create(enum isa_engine engine, bool dump)
{
    struct isa_emulator *e = NULL;
    struct dbt_config config = isa_dbt_config(&riscv_guest_ops, engine, dump);
    struct err err;

    config.dump_first = ISA_TEXT + 0x800;
    if (posix_memalign((void **)&e, 64, sizeof(*e)))
        abort();
    memset(e, 0, sizeof(*e));
    e->mem = config.mem = mem_create();
    if (!e->mem || mem_ram_alloc(&e->text, ISA_TEXT_SIZE, &err) ||
        mem_ram_alloc(&e->data, ISA_DATA_SIZE, &err) ||
        mem_set_slot(e->mem, 0, 0, ISA_TEXT, ISA_TEXT_SIZE, e->text.hva) ||
        mem_set_slot(e->mem, 1, 0, ISA_DATA, ISA_DATA_SIZE, e->data.hva) ||
        dbt_create(&e->dbt, &config, &err)) {
        fprintf(stderr, "cannot make an emulator\n");
        exit(1);
    }
    e->cpu.common.ops = &riscv_guest_ops;
    e->cpu.common.mem = e->mem;
    mem_reader_online(e->mem, 0);
    if (dbt_attach(e->dbt, &e->cpu.common)) {
        fprintf(stderr, "cannot attach\n");
        exit(1);
    }
    return e;
}

void isa_emulator_destroy(struct isa_emulator *e)
{
    dbt_detach(&e->cpu.common);
    dbt_destroy(e->dbt);
    mem_reader_offline(e->mem, 0);
    mem_destroy(e->mem);
    mem_ram_free(&e->text);
    mem_ram_free(&e->data);
    free(e);
}

enum { A0 = 10, A7 = 17, SYS_EXIT = 93 };

/* As the program's signal handler does. */
static void fault(struct isa_emulator *e, u64 sig)
{
    u64 area = e->cpu.x[ISA_AREA] - ISA_DATA;

    memcpy(e->data.hva + area + offsetof(struct isa_area, fault), &sig, sizeof(sig));
    e->cpu.pc += 4;
}

int isa_emulate(struct isa_emulator *e, const struct isa_program *p, struct isa_area *results)
{
    struct riscv_cpu *cpu = &e->cpu;

    memcpy(e->text.hva, p->text, p->words * 4);
    mem_wrote(e->mem, ISA_TEXT, p->words * 4);
    memcpy(e->data.hva, p->data, p->data_bytes);
    riscv_reset(cpu, p->entry);
    for (;;) {
        u32 code = dbt_run(&cpu->common);

        switch (code) {
        case RISCV_EXIT_ECALL:
            if (cpu->x[A7] == SYS_EXIT) {
                memcpy(results, e->data.hva, p->results_bytes);
                return 0;
            }
            cpu->x[A0] = 0;
            cpu->pc += 4;
            break;
        case RISCV_EXIT_ILLEGAL:
            fault(e, 4);
            break;
        case RISCV_EXIT_EBREAK:
            fault(e, 5);
            break;
        case RISCV_EXIT_MISALIGNED:
            fault(e, 7);
            break;
        case RISCV_EXIT_LOAD_FAULT:
        case RISCV_EXIT_STORE_FAULT:
            fault(e, 11);
            break;
        default:
            fprintf(stderr, "left with exit code %u at %#llx\n", code, (unsigned long long)cpu->pc);
            return -1;
        }
    }
}

void isa_dump(const struct isa_program *p, u64 pc, unsigned bytes)
{
    const u8 *code = (const u8 *)p->text + (pc - ISA_TEXT);

    for (unsigned at = 0; at < bytes;) {
        char text[96];

        at += (unsigned)riscv_guest_ops.disassemble(0, pc + at, code + at, bytes - at, text,
                                                    sizeof(text));
        printf("    %s\n", text);
    }
    fflush(stdout);
}
