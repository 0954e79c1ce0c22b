/* The plan and the inputs: every number is checked, nothing is read past its end. */
#define _POSIX_C_SOURCE 200809L
#include "runner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  int code;
  size_t bytes;
} DTYPES[] = {
    {"float32", 1, 4}, {"uint8", 2, 1},    {"int8", 3, 1},     {"uint16", 4, 2},
    {"int16", 5, 2},   {"int32", 6, 4},    {"int64", 7, 8},    {"bool", 9, 1},
    {"float16", 10, 2}, {"float64", 11, 8}, {"uint32", 12, 4}, {"uint64", 13, 8},
};

size_t element_bytes(int dtype) {
  for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
    if (DTYPES[i].code == dtype) return DTYPES[i].bytes;
  return 0;
}

size_t times(size_t a, size_t b) {
  size_t product;
  if (__builtin_mul_overflow(a, b, &product)) refuse("a tensor is too large");
  return product;
}

size_t plus(size_t a, size_t b) {
  size_t sum;
  if (__builtin_add_overflow(a, b, &sum)) refuse("a tensor is too large");
  return sum;
}

void *taken(void *memory) {
  if (memory == NULL) refuse("memory ran out");
  return memory;
}

/* A whole file and a zero behind it. */
static unsigned char *whole(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) refuse("%s cannot be opened: %s", path, strerror(errno));
  if (fseek(file, 0, SEEK_END) != 0) refuse("%s cannot be read", path);
  long end = ftell(file);
  if (end < 0 || fseek(file, 0, SEEK_SET) != 0) refuse("%s cannot be read", path);
  *size = (size_t)end;
  void *data = NULL;
  if (posix_memalign(&data, 64, plus(*size, 1)) != 0) refuse("memory ran out");
  if (fread(data, 1, *size, file) != *size) refuse("%s cannot be read whole", path);
  fclose(file);
  ((unsigned char *)data)[*size] = 0;
  return data;
}

static int digit(char one) {
  if (one >= '0' && one <= '9') return one - '0';
  if (one >= 'A' && one <= 'F') return one - 'A' + 10;
  if (one >= 'a' && one <= 'f') return one - 'a' + 10;
  return -1;
}

/* Percent-encoding undone, in place. */
static char *decoded(char *word) {
  char *to = word;
  for (const char *from = word; *from; from++) {
    if (*from != '%') {
      *to++ = *from;
      continue;
    }
    int high = digit(from[1]), low = high < 0 ? -1 : digit(from[2]);
    if (low < 0) refuse("the plan has a word that is not percent-encoded");
    if (high == 0 && low == 0) refuse("the plan has a null character");
    *to++ = (char)(high * 16 + low);
    from += 2;
  }
  *to = 0;
  return word;
}

static long number(const char *word, long least, long most, const char *what) {
  char *end;
  errno = 0;
  long value = word == NULL ? 0 : strtol(word, &end, 10);
  if (word == NULL || *word == 0 || *end != 0 || errno != 0 || value < least || value > most)
    refuse("the plan's %s is no number from %ld to %ld", what, least, most);
  return value;
}

static void *grown(void *list, size_t count, size_t size) {
  return taken(realloc(list, times(plus(count, 1), size)));
}

static char *next(char **rest) { return strtok_r(NULL, " ", rest); }

static char *one(char **rest, const char *key) {
  char *word = next(rest);
  if (word == NULL || next(rest) != NULL) refuse("the plan's %s has not one word", key);
  return decoded(word);
}

static void add_tensor(Plan *plan, char **rest) {
  plan->tensors = grown(plan->tensors, plan->tensor_count, sizeof(Tensor));
  Tensor *tensor = &plan->tensors[plan->tensor_count++];
  memset(tensor, 0, sizeof *tensor);
  char *name = next(rest), *dtype = next(rest);
  if (name == NULL || dtype == NULL) refuse("the plan has an input without a name or type");
  tensor->name = decoded(name);
  for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
    if (strcmp(DTYPES[i].name, dtype) == 0) tensor->dtype = DTYPES[i].code;
  if (tensor->dtype == 0) refuse("input %s is of a type that runners do not take", tensor->name);
  tensor->rank = (int)number(next(rest), 0, MAX_RANK, "rank");
  tensor->bytes = element_bytes(tensor->dtype);
  for (int axis = 0; axis < tensor->rank; axis++) {
    tensor->dims[axis] = number(next(rest), 0, INT32_MAX, "axis");
    tensor->bytes = times(tensor->bytes, (size_t)tensor->dims[axis]);
  }
  /* Until the inputs are read, the place where it begins. */
  tensor->data = (unsigned char *)(uintptr_t)number(next(rest), 0, INT64_MAX, "offset");
  if (next(rest) != NULL) refuse("input %s has too many words", tensor->name);
}

static void add_line(Plan *plan, char *key, char **rest) {
  const struct {
    const char *key;
    char **text;
  } texts[] = {{"runtime", &plan->runtime},   {"library", &plan->library},
               {"model", &plan->model},       {"inputs", &plan->inputs},
               {"provider", &plan->provider}, {"outputs", &plan->outputs},
               {"profile", &plan->profile}};
  const struct {
    const char *key;
    long *number, least, most;
  } numbers[] = {{"samples", &plan->samples, 1, 1L << 30}, {"threads", &plan->threads, 0, 1024},
                 {"warmup", &plan->warmup, 0, 1L << 30},   {"runs", &plan->runs, 0, 1L << 24},
                 {"limit", &plan->limit, 1, 1L << 24}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (strcmp(texts[i].key, key) == 0) {
      *texts[i].text = one(rest, key);
      return;
    }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (strcmp(numbers[i].key, key) == 0) {
      *numbers[i].number = number(one(rest, key), numbers[i].least, numbers[i].most, key);
      return;
    }
  if (strcmp(key, "seconds") == 0) {
    char *end, *word = one(rest, key);
    plan->seconds = strtod(word, &end);
    if (*word == 0 || *end != 0 || !(plan->seconds >= 0 && plan->seconds < 1e6))
      refuse("the plan's seconds are no number");
  } else if (strcmp(key, "option") == 0) {
    char *name = next(rest), *value = next(rest);
    if (name == NULL || value == NULL || next(rest) != NULL)
      refuse("the plan has an option that is no pair");
    plan->option_keys = grown(plan->option_keys, plan->options, sizeof(char *));
    plan->option_values = grown(plan->option_values, plan->options, sizeof(char *));
    plan->option_keys[plan->options] = decoded(name);
    plan->option_values[plan->options++] = decoded(value);
  } else if (strcmp(key, "input") == 0) {
    add_tensor(plan, rest);
  } else if (strcmp(key, "output") == 0) {
    plan->wanted = grown(plan->wanted, plan->wanted_count, sizeof(char *));
    plan->wanted[plan->wanted_count++] = one(rest, key);
  } else {
    refuse("the plan has an unknown line: %.40s", key);
  }
}

void read_plan(Plan *plan, const char *path) {
  size_t size;
  char *text = (char *)whole(path, &size);
  if (strlen(text) != size) refuse("the plan has a null character");
  memset(plan, 0, sizeof *plan);
  plan->samples = plan->limit = -1;
  int begun = 0;
  char *lines;
  for (char *line = strtok_r(text, "\n", &lines); line; line = strtok_r(NULL, "\n", &lines)) {
    char *rest, *key = strtok_r(line, " ", &rest);
    if (!begun) {
      char *version = key ? next(&rest) : NULL;
      if (version == NULL || strcmp(key, "wb") != 0 || strcmp(version, "1") != 0)
        refuse("it is no plan of version 1");
      begun = 1;
    } else if (key != NULL) {
      add_line(plan, key, &rest);
    }
  }
  if (!begun) refuse("it is no plan of version 1");
  if (!plan->runtime || !plan->model || !plan->inputs || plan->samples < 0 || plan->limit < 0)
    refuse("the plan does not say runtime, model, inputs, samples and limit");
  if (!plan->library) refuse("the plan names no library");
  if (plan->tensor_count == 0 || plan->wanted_count == 0) refuse("the plan has no inputs or outputs");
}

void read_inputs(Plan *plan) {
  size_t size;
  unsigned char *data = whole(plan->inputs, &size);
  for (size_t i = 0; i < plan->tensor_count; i++) {
    Tensor *tensor = &plan->tensors[i];
    size_t offset = (size_t)(uintptr_t)tensor->data;
    if (plus(offset, times(tensor->bytes, (size_t)plan->samples)) > size)
      refuse("the inputs end before those of %s do", tensor->name);
    tensor->data = data + offset;
  }
}
