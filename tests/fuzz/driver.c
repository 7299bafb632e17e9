/*
 * Runs a fuzz target without libFuzzer, so that every build can: first the kept corpus, then
 * mutations of it for some seconds.
 *
 *     fuzz_NAME [--seconds N] [--seed N] [FILE | FOLDER]...
 *
 * The input that ends the process, or takes more than 30 seconds, is left in the file crash-NAME.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "fuzz.h"

#define INPUT_MAX 65536
#define CORPUS_MAX 4096
#define LIMIT_S 30 /* for one input, under a sanitizer on a busy machine */

static struct {
    u8 *data;
    size_t size;
} corpus[CORPUS_MAX];
static size_t corpus_count;
static const u8 *running;
static size_t running_size;
static char crash_path[256];

static void keep_crash(void)
{
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    if (fd < 0 || write(fd, running, running_size) != (ssize_t)running_size)
        return;
    dprintf(STDERR_FILENO, "the input is in %s\n", crash_path);
}

static void on_death(int number)
{
    keep_crash();
    signal(number, SIG_DFL);
    raise(number);
}

/* The sanitizers' run time calls this before it ends the process. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void run(const u8 *data, size_t size)
{
    u8 *copy = malloc(size); /* of just that size: a sanitizer then sees reads beyond it */

    MUST(copy || !size);
    if (size)
        memcpy(copy, data, size);
    running = data;
    running_size = size;
    alarm(LIMIT_S);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void add_file(const char *path)
{
    static u8 data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    size_t size;

    MUST(file && corpus_count < CORPUS_MAX);
    size = fread(data, 1, sizeof data, file);
    fclose(file);
    corpus[corpus_count].data = malloc(size + !size);
    MUST(corpus[corpus_count].data);
    memcpy(corpus[corpus_count].data, data, size);
    corpus[corpus_count++].size = size;
}

static void add(const char *path)
{
    struct dirent *entry;
    struct stat info;
    char name[1024];
    DIR *folder;

    if (stat(path, &info) || !S_ISDIR(info.st_mode)) {
        add_file(path);
        return;
    }
    folder = opendir(path);
    MUST(folder);
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        add_file(name);
    }
    closedir(folder);
}

static u64 random_next(u64 *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

static const u64 odd_values[] = {0,
                                 1,
                                 0x7f,
                                 0x80,
                                 0xff,
                                 0x7fff,
                                 0x8000,
                                 0xffff,
                                 0x7fffffff,
                                 0x80000000,
                                 0xffffffff,
                                 0x7fffffffffffffff,
                                 0x8000000000000000,
                                 ~0ull};

static size_t mutate(u8 *data, size_t size, u64 *rng)
{
    unsigned rounds = 1 + random_next(rng) % 8;

    while (rounds--) {
        u64 r = random_next(rng), odd = odd_values[r >> 48 & 7];
        size_t at = size ? (r >> 8) % size : 0, width = 1u << (r >> 4 & 3), len;

        switch (r & 7) {
        case 0:
            if (size)
                data[at] ^= 1u << (r >> 40 & 7);
            break;
        case 1:
        case 2:
            if (at + width <= size) {
                odd = r & 1 ? random_next(rng) : odd;
                memcpy(data + at, &odd, width);
            }
            break;
        case 3: /* more at the end */
            for (len = r >> 32 & 31; len-- && size < INPUT_MAX;)
                data[size++] = (u8)random_next(rng);
            break;
        case 4: /* shorter */
            if (!(r >> 32 & 7))
                size = at;
            break;
        case 5: /* a piece comes once more */
            len = (r >> 32) % 64;
            if (at + len <= size && size + len <= INPUT_MAX) {
                memmove(data + at + len, data + at, size - at);
                size += len;
            }
            break;
        case 6: /* or goes */
            len = (r >> 32) % 16;
            if (at + len <= size) {
                memmove(data + at, data + at + len, size - at - len);
                size -= len;
            }
            break;
        default: /* the end of another */
            if (corpus_count) {
                size_t other = random_next(rng) % corpus_count;
                size_t from = corpus[other].size ? (r >> 32) % corpus[other].size : 0;

                len = corpus[other].size - from;
                if (at + len <= INPUT_MAX) {
                    memcpy(data + at, corpus[other].data + from, len);
                    size = at + len > size ? at + len : size;
                }
            }
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static u8 data[INPUT_MAX];
    const char *name = strrchr(argv[0], '/');
    u64 seconds = 0, seed = 0, end, runs = 0;

    snprintf(crash_path, sizeof crash_path, "crash-%s", name ? name + 1 : argv[0]);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
            seconds = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else
            add(argv[i]);
    }
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(keep_crash);
    else
        signal(SIGSEGV, on_death);
    signal(SIGABRT, on_death);
    signal(SIGALRM, on_death);
    for (size_t i = 0; i < corpus_count; i++)
        run(corpus[i].data, corpus[i].size);
    if (!seed)
        seed = clock_mono_ns();
    printf("%zu kept inputs; %llu s of mutations, seed %llu\n", corpus_count,
           (unsigned long long)seconds, (unsigned long long)seed);
    fflush(stdout);
    end = clock_mono_ns() + seconds * NSEC_PER_SEC;
    while (clock_mono_ns() < end) {
        size_t size = 0;

        if (corpus_count) {
            size_t which = random_next(&seed) % corpus_count;

            size = corpus[which].size;
            memcpy(data, corpus[which].data, size);
        }
        run(data, mutate(data, size, &seed));
        runs++;
    }
    printf("%llu inputs made\n", (unsigned long long)runs);
    for (size_t i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    return 0;
}
