/* The native runner's own declarations. What it is asked and gives is said in ../plan.py. */
#ifndef WB_RUNNER_H
#define WB_RUNNER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MAX_RANK 16

/* One input of a sample. data: of the first sample, inside the inputs; the next lie behind it. */
typedef struct {
  char *name;
  int dtype; /* as ONNX numbers them */
  int rank;
  int64_t dims[MAX_RANK];
  size_t bytes;
  unsigned char *data;
} Tensor;

typedef struct {
  char *runtime, *library, *model, *inputs, *provider, *outputs, *profile;
  long samples, threads, warmup, runs, limit;
  double seconds;
  char **option_keys, **option_values;
  size_t options;
  Tensor *tensors;
  size_t tensor_count;
  char **wanted;
  size_t wanted_count;
} Plan;

/* What a runtime does. Each function refuses what it cannot do. */
typedef struct {
  const char *(*open)(const Plan *plan); /* its library; its version */
  void (*load)(const Plan *plan);
  void (*bind)(const Plan *plan, long sample); /* the inputs of the next runs */
  void (*run)(const Plan *plan);
  void (*write)(const Plan *plan, FILE *file); /* a record for each wanted output */
  void (*drop)(const Plan *plan);              /* the outputs of a run */
  void (*finish)(const Plan *plan);
} Runtime;

extern const Runtime ort_runtime, litert_runtime;

/* Say why and end with code 3. */
_Noreturn void refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

void read_plan(Plan *plan, const char *path);
void read_inputs(Plan *plan);

/* Bytes of an element, 0 of a dtype that no record has. */
size_t element_bytes(int dtype);
/* a * b and a + b, refusing what is too large. */
size_t times(size_t a, size_t b);
size_t plus(size_t a, size_t b);
void *taken(void *memory); /* refuses NULL */

/* A string as JSON has it. */
void write_text(FILE *file, const char *text);

/* What LiteRT's profiler says of its operators, as JSON. */
void write_operators(const char *path, const char *summary);

void write_record(FILE *file, int dtype, int rank, const int64_t *dims, const void *data,
                  size_t bytes);

/* A function of a library; refuses where it has none. */
void *symbol(void *library, const char *name);
void *open_library(const char *path);

#endif
