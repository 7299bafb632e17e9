/* Five bodies under gravity. */
#include <math.h>
#include <stdio.h>

#define BODIES 5

static double p[BODIES][3] = {{0, 0, 0}, {4.84, -1.16, -0.10}, {8.34, 4.12, -0.40}, {12.89, -15.11, -0.22}, {15.37, -25.91, 0.17}};
static double v[BODIES][3] = {{0, 0, 0}, {0.6, 2.8, -0.02}, {-1.01, 1.82, 0.008}, {1.08, 0.86, -0.01}, {0.97, 0.59, -0.03}};
static const double mass[BODIES] = {39.47, 0.037, 0.011, 0.0017, 0.002};

int main(void)
{
    for (int step = 0; step < 400000; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int k = i + 1; k < BODIES; k++) {
                double d[3], square = 0, force;

                for (int x = 0; x < 3; x++) {
                    d[x] = p[i][x] - p[k][x];
                    square += d[x] * d[x];
                }
                force = 0.001 / (square * sqrt(square));
                for (int x = 0; x < 3; x++) {
                    v[i][x] -= d[x] * mass[k] * force;
                    v[k][x] += d[x] * mass[i] * force;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int x = 0; x < 3; x++)
                p[i][x] += 0.001 * v[i][x];
    }
    printf("%.9f %.9f\n", p[1][0], p[4][2]);
    return 0;
}
