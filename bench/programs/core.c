/* What CoreMark is made of: list processing, a small matrix, a state machine, a CRC. */
#include <stdint.h>
#include <stdio.h>

#define NODES 400
#define SIDE 24

struct node {
    struct node *next;
    int16_t key, value;
};

static struct node nodes[NODES];
static int32_t a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];

static uint16_t crc(uint16_t crc, uint16_t data)
{
    for (int i = 0; i < 16; i++, data >>= 1) {
        uint16_t carry = (crc ^ data) & 1;

        crc = (uint16_t)(crc >> 1 ^ (carry ? 0xa001 : 0));
    }
    return crc;
}

static struct node *reverse(struct node *list)
{
    struct node *back = NULL;

    while (list) {
        struct node *next = list->next;

        list->next = back;
        back = list;
        list = next;
    }
    return back;
}

static int state_machine(const char *text)
{
    enum { START, INT, FLOAT, EXP, BAD } state = START;
    int changes = 0;

    for (; *text; text++) {
        int before = state;

        if (*text == ',')
            state = START;
        else if (*text >= '0' && *text <= '9')
            state = state == START ? INT : state;
        else if (*text == '.')
            state = state == INT ? FLOAT : BAD;
        else if (*text == 'e')
            state = state == FLOAT ? EXP : BAD;
        else
            state = BAD;
        changes += state != before;
    }
    return changes;
}

int main(void)
{
    struct node *list = nodes;
    uint16_t sum = 0;

    for (int i = 0; i < NODES; i++)
        nodes[i] = (struct node){i + 1 < NODES ? &nodes[i + 1] : NULL, (int16_t)(i * 7919), (int16_t)i};
    for (int round = 0; round < 60000; round++) {
        list = reverse(list);
        for (struct node *n = list; n; n = n->next)
            if (n->key == (int16_t)(round * 31))
                sum = crc(sum, (uint16_t)n->value);
        for (int i = 0; i < SIDE; i++)
            for (int k = 0; k < SIDE; k++) {
                a[i][k] = i * round + k;
                b[i][k] = k - round;
            }
        if (round % 8 == 0) {
            for (int i = 0; i < SIDE; i++)
                for (int k = 0; k < SIDE; k++) {
                    int32_t total = 0;

                    for (int m = 0; m < SIDE; m++)
                        total += a[i][m] * b[m][k];
                    c[i][k] = total;
                }
            sum = crc(sum, (uint16_t)c[3][5]);
        }
        sum = crc(sum, (uint16_t)state_machine("5012,1.5,2.5e3,x12,-1,99.e,7,31.5e10,,12"));
    }
    printf("%u\n", sum);
    return 0;
}
