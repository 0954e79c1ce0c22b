/* wb-runner PLAN: one process on a device. It runs a model file and answers with a line of JSON.
 *
 * The runtimes are opened as shared libraries, so that one build serves any version of them. */
#define _GNU_SOURCE
#include "runner.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static FILE *answer; /* stdout is the libraries', and goes to stderr */

/* Bytes of the UTF-8 sequence that begins here, 0 of what is none. */
static size_t sequence(const unsigned char *at) {
  if (at[0] < 0x80) return 1;
  if (at[0] < 0xc2 || at[0] > 0xf4) return 0;
  size_t length = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
  for (size_t i = 1; i < length; i++)
    if ((at[i] & 0xc0) != 0x80) return 0; /* the final zero is none either */
  int overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
  int outside = (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf4 && at[1] > 0x8f);
  return overlong || outside ? 0 : length;
}

void write_text(FILE *file, const char *text) {
  fputc('"', file);
  for (const unsigned char *at = (const unsigned char *)text; *at;) {
    size_t length = sequence(at);
    if (*at == '"' || *at == '\\')
      fprintf(file, "\\%c", *at);
    else if (*at < 0x20)
      fprintf(file, "\\u%04x", *at);
    else if (length)
      fwrite(at, 1, length, file);
    else
      fputc('?', file); /* what libraries say need not be UTF-8 */
    at += length ? length : 1;
  }
  fputc('"', file);
}

_Noreturn void refuse(const char *format, ...) {
  char text[1000];
  va_list given;
  va_start(given, format);
  vsnprintf(text, sizeof text, format, given);
  va_end(given);
  fputs("{\"wb\": 1, \"error\": ", answer);
  write_text(answer, text);
  fputs("}\n", answer);
  fflush(answer);
  _exit(3); /* not exit: a runtime's threads may be in the middle of anything */
}

void *open_library(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) refuse("the library cannot be opened: %s", dlerror());
  return library;
}

void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (found == NULL) refuse("the library has no %s: another, or an older one is needed", name);
  return found;
}

void write_record(FILE *file, int dtype, int rank, const int64_t *dims, const void *data,
                  size_t bytes) {
  uint32_t head[2] = {(uint32_t)dtype, (uint32_t)rank};
  uint64_t size = bytes;
  size_t expected = element_bytes(dtype);
  if (expected == 0) refuse("an output is of a type that has no record");
  if (rank < 0 || rank > MAX_RANK) refuse("an output has more than %d axes", MAX_RANK);
  for (int axis = 0; axis < rank; axis++) {
    if (dims[axis] < 0) refuse("an output has an open axis");
    expected = times(expected, (size_t)dims[axis]);
  }
  if (expected != bytes) refuse("an output has %zu bytes, and its shape %zu", bytes, expected);
  int whole = fwrite("WBO1", 4, 1, file) == 1 && fwrite(head, sizeof head, 1, file) == 1;
  whole = whole && fwrite(dims, 8, (size_t)rank, file) == (size_t)rank;
  whole = whole && fwrite(&size, 8, 1, file) == 1 && fwrite(data, 1, bytes, file) == bytes;
  if (!whole) refuse("the outputs cannot be written: %s", strerror(errno));
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Bytes of a field of /proc/self/status, 0 where it is not told. */
static long long memory(const char *field) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  long long kilobytes = 0;
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
      kilobytes = strtoll(line + strlen(field) + 1, NULL, 10);
  if (file) fclose(file);
  return kilobytes * 1024;
}

static void reset_peak(void) {
  int file = open("/proc/self/clear_refs", O_WRONLY);
  if (file < 0) return;
  if (write(file, "5", 1) != 1) { /* an old kernel: the peak is of the whole process */
  }
  close(file);
}

static void write_outputs(const Runtime *runtime, const Plan *plan) {
  FILE *file = fopen(plan->outputs, "wb");
  if (file == NULL) refuse("%s cannot be written: %s", plan->outputs, strerror(errno));
  for (long sample = 0; sample < plan->samples; sample++) {
    runtime->bind(plan, sample);
    runtime->run(plan);
    runtime->write(plan, file);
    runtime->drop(plan);
  }
  if (fclose(file) != 0) refuse("the outputs cannot be written: %s", strerror(errno));
}

typedef struct {
  int64_t first, *samples;
  size_t count;
} Times;

static int64_t timed(const Runtime *runtime, const Plan *plan) {
  int64_t began = now();
  runtime->run(plan);
  runtime->drop(plan);
  return now() - began;
}

static Times time_runs(const Runtime *runtime, const Plan *plan) {
  Times times = {0, NULL, 0};
  size_t room = 0;
  runtime->bind(plan, 0);
  times.first = timed(runtime, plan);
  for (long i = 0; i < plan->warmup; i++) timed(runtime, plan);
  int64_t until = now() + (int64_t)(plan->seconds * 1e9);
  while (times.count < (size_t)plan->runs || now() < until) {
    if (times.count == room) {
      room = room ? 2 * room : 1024;
      times.samples = taken(realloc(times.samples, room * sizeof(int64_t)));
    }
    times.samples[times.count++] = timed(runtime, plan);
  }
  return times;
}

int main(int count, char **words) {
  answer = fdopen(dup(1), "w");
  if (answer == NULL || dup2(2, 1) < 0) return 4;
  if (count != 2) refuse("usage: wb-runner PLAN");
#ifdef __GLIBC__
  /* As the workbench's own processes: memory that was taken is kept, for given back between layers
   * it is asked for anew, and the time is of page faults. */
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  Plan plan;
  read_plan(&plan, words[1]);
  alarm((unsigned)plan.limit);
  read_inputs(&plan);
  const Runtime *runtime = NULL;
  if (strcmp(plan.runtime, "onnxruntime") == 0) runtime = &ort_runtime;
  if (strcmp(plan.runtime, "litert") == 0) runtime = &litert_runtime;
  if (runtime == NULL) refuse("there is no runtime %.40s", plan.runtime);
  const char *version = runtime->open(&plan);
  reset_peak();
  long long before = memory("VmRSS");
  int64_t began = now();
  runtime->load(&plan);
  int64_t loaded = now() - began;
  if (plan.outputs) write_outputs(runtime, &plan);
  Times times = {0, NULL, 0};
  if (plan.runs) times = time_runs(runtime, &plan);
  long long peak = memory("VmHWM") - before;
  runtime->finish(&plan);
  fputs("{\"wb\": 1, \"runtime\": ", answer);
  write_text(answer, plan.runtime);
  fputs(", \"version\": ", answer);
  write_text(answer, version);
  fprintf(answer, ", \"load_ns\": %lld, \"first_ns\": %lld, \"peak_bytes\": %lld, \"samples_ns\": [",
          (long long)loaded, (long long)times.first, peak > 0 ? peak : 0);
  for (size_t i = 0; i < times.count; i++)
    fprintf(answer, "%s%lld", i ? ", " : "", (long long)times.samples[i]);
  fputs("]}\n", answer);
  if (fflush(answer) != 0) return 4;
  _exit(0); /* a runtime's threads and destructors have nothing left to do here */
}
