/* Attention in double, written for reading: one query row at a time, no tiles. */
#include <math.h>
#include <stdlib.h>

#include "nn/attention_internal.h"

/* Where one head of one sequence lies. */
typedef struct view {
    const nn_attention_params *p;
    const double *qkv, *segments; /* of this sequence; segments may be NULL */
    int64_t rows, cols;
    int head, key_head;
} view;

static int64_t query_at(const view *v, int64_t i)
{
    return i * v->cols + (int64_t)v->head * v->p->head_dim;
}

static int64_t key_at(const view *v, int64_t j)
{
    return j * v->cols + (int64_t)(v->p->heads + v->key_head) * v->p->head_dim;
}

static int64_t value_at(const view *v, int64_t j)
{
    return j * v->cols + (int64_t)(v->p->heads + v->p->kv_heads + v->key_head) * v->p->head_dim;
}

static int segment_of(const view *v, int64_t i)
{
    return v->segments ? (int)v->segments[i] : 0;
}

static double product(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Probabilities of row i over all keys (0 where invisible); returns the logarithm of the sum, 0 for a row that sees
 * none. */
static double probabilities(const view *v, int64_t i, double *p)
{
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < v->rows; j++) {
        bool visible = nn_attention_visible(v->p, i, j, segment_of(v, i), segment_of(v, j));
        p[j] = visible ? nn_attention_scale(v->p) *
                             product(v->qkv + query_at(v, i), v->qkv + key_at(v, j), v->p->head_dim)
                       : -INFINITY;
        top = fmax(top, p[j]);
    }
    if (top == -INFINITY) {
        for (int64_t j = 0; j < v->rows; j++)
            p[j] = 0;
        return 0;
    }
    for (int64_t j = 0; j < v->rows; j++)
        sum += exp(p[j] - top);
    for (int64_t j = 0; j < v->rows; j++)
        p[j] = exp(p[j] - top) / sum;
    return top + log(sum);
}

static view view_of(const nn_ref *r, const nn_attention_params *p, int64_t b, int head)
{
    const nn_tensor *qkv = r->node->in[0];
    int64_t rows = qkv->shape[1], cols = qkv->shape[2];
    return (view){
        .p = p,
        .qkv = r->in[0] + b * rows * cols,
        .segments = r->in[1] ? r->in[1] + b * rows : NULL,
        .rows = rows,
        .cols = cols,
        .head = head,
        .key_head = head / (p->heads / p->kv_heads),
    };
}

static void forward_row(const view *v, int64_t i, double *p, double *y, double *lse)
{
    *lse = probabilities(v, i, p);
    for (int c = 0; c < v->p->head_dim; c++) {
        y[c] = 0;
        for (int64_t j = 0; j < v->rows; j++)
            y[c] += p[j] * v->qkv[value_at(v, j) + c];
    }
}

static void backward_row(const view *v, int64_t i, double *p, const double *dy, double *dqkv)
{
    int width = v->p->head_dim;
    double delta = 0, scale = nn_attention_scale(v->p);
    probabilities(v, i, p);
    for (int64_t j = 0; j < v->rows; j++)
        delta += p[j] * product(dy, v->qkv + value_at(v, j), width);
    for (int64_t j = 0; j < v->rows; j++) {
        double ds = scale * p[j] * (product(dy, v->qkv + value_at(v, j), width) - delta);
        for (int c = 0; c < width; c++) {
            dqkv[value_at(v, j) + c] += p[j] * dy[c];
            dqkv[query_at(v, i) + c] += ds * v->qkv[key_at(v, j) + c];
            dqkv[key_at(v, j) + c] += ds * v->qkv[query_at(v, i) + c];
        }
    }
}

/* Query i of a sequence. */
typedef struct query {
    int64_t row, output; /* row of the sequence; row of y */
} query;

static int64_t queries_of(const nn_ref *r)
{
    return r->node->out[1]->shape[2];
}

/* False: an empty slot of the picks. */
static bool query_of(const nn_ref *r, int64_t b, int64_t i, query *q)
{
    int64_t rows = r->node->in[0]->shape[1];
    if (!r->in[3]) {
        *q = (query){i, b * rows + i};
        return true;
    }
    q->output = (int64_t)r->in[3][b * queries_of(r) + i];
    if (q->output >= 0)
        q->row = (int64_t)r->in[2][q->output] - b * rows;
    return q->output >= 0;
}

void nn_attention_ref_forward(const nn_ref *r)
{
    const nn_attention_params *p = (const nn_attention_params *)r->node->params;
    const int64_t *shape = r->node->in[0]->shape;
    double *row = calloc((size_t)shape[1], sizeof *row);
    for (int64_t b = 0; row && b < shape[0]; b++)
        for (int h = 0; h < p->heads; h++) {
            view v = view_of(r, p, b, h);
            for (int64_t i = 0; i < queries_of(r); i++) {
                double *lse = &r->out[1][(b * p->heads + h) * queries_of(r) + i];
                query q;
                *lse = 0;
                if (query_of(r, b, i, &q))
                    forward_row(&v, q.row, row, r->out[0] + (q.output * p->heads + h) * p->head_dim, lse);
            }
        }
    free(row);
}

void nn_attention_ref_backward(const nn_ref *r)
{
    const nn_attention_params *p = (const nn_attention_params *)r->node->params;
    const int64_t *shape = r->node->in[0]->shape;
    double *row = calloc((size_t)shape[1], sizeof *row);
    for (int64_t b = 0; row && r->din[0] && b < shape[0]; b++)
        for (int h = 0; h < p->heads; h++) {
            view v = view_of(r, p, b, h);
            query q;
            for (int64_t i = 0; i < queries_of(r); i++)
                if (query_of(r, b, i, &q))
                    backward_row(&v, q.row, row, r->dout[0] + (q.output * p->heads + h) * p->head_dim,
                                 r->din[0] + b * v.rows * v.cols);
        }
    free(row);
}
