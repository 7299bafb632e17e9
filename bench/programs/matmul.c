/* A product of matrices of doubles. */
#include <stdio.h>

#define N 256

static double a[N][N], b[N][N], c[N][N];

int main(void)
{
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            a[i][k] = i + 0.5 * k;
            b[i][k] = i - 0.25 * k;
        }
    for (int round = 0; round < 12; round++)
        for (int i = 0; i < N; i++)
            for (int m = 0; m < N; m++)
                for (int k = 0; k < N; k++)
                    c[i][k] += a[i][m] * b[m][k];
    printf("%.6g %.6g\n", c[3][7], c[N - 1][N - 2]);
    return 0;
}
