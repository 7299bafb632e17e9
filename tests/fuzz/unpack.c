/* Compressed payloads of kernels, damaged in any way. Input: u8 size of the output, then the
 * data. */
#include "fuzz.h"
#include "machine/boot.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    size_t room;
    u8 *out;
    s64 got;

    if (size < 1)
        return 0;
    room = (size_t)data[0] << 8;
    out = malloc(room + !room);
    MUST(out);
    boot_unpack_format(data + 1, size - 1);
    got = boot_unpack(data + 1, size - 1, out, room);
    MUST(got <= (s64)room);
    got = boot_unpack_lz4(data + 1, size - 1, out, room);
    MUST(got <= (s64)room);
    free(out);
    return 0;
}
