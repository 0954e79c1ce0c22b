/* LiteRT's CompiledModel, on .tflite files, with its CPU accelerator (XNNPACK).
 *
 * Declared after the headers in litert/c of https://github.com/google-ai-edge/LiteRT, 2.x: handles
 * are pointers, indices are size_t, structs are ABI stable there. */
#define _POSIX_C_SOURCE 200809L
#include "runner.h"

#include <stdlib.h>
#include <string.h>

#define CPU 1 /* kLiteRtHwAcceleratorCpu */
#define READ 0
#define WRITE 1
#define LITERT_RANK 8
#define PROFILED 20 /* runs at most: its profiler keeps some ten thousand events */

typedef struct {
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  int32_t dims[LITERT_RANK];
  uint32_t strides[LITERT_RANK];
} Layout;

typedef struct {
  int type;
  Layout layout;
} TensorType;

_Static_assert(sizeof(TensorType) == 72, "LiteRtRankedTensorType has 72 bytes");

/* X(result, name, words): every function that is used, by its own name. */
#define FUNCTIONS(X)                                                                              \
  X(int, LiteRtCreateEnvironment, (int, const void *, void **))                                   \
  X(int, LiteRtCreateModelFromFile, (void *, const char *, void **))                              \
  X(int, LiteRtCreateOptions, (void **))                                                          \
  X(int, LiteRtSetOptionsHardwareAccelerators, (void *, int))                                     \
  X(int, LiteRtCreateOpaqueOptions, (const char *, void *, void (*)(void *), void **))            \
  X(int, LiteRtAddOpaqueOptions, (void *, void *))                                                \
  X(int, LiteRtCreateCompiledModel, (void *, void *, void *, void **))                            \
  X(int, LiteRtGetNumModelSignatures, (void *, size_t *))                                         \
  X(int, LiteRtGetModelSignature, (void *, size_t, void **))                                      \
  X(int, LiteRtGetNumSignatureInputs, (void *, size_t *))                                         \
  X(int, LiteRtGetNumSignatureOutputs, (void *, size_t *))                                        \
  X(int, LiteRtGetSignatureInputName, (void *, size_t, const char **))                            \
  X(int, LiteRtGetSignatureOutputName, (void *, size_t, const char **))                           \
  X(int, LiteRtGetSignatureInputTensorByIndex, (void *, size_t, void **))                         \
  X(int, LiteRtGetSignatureOutputTensorByIndex, (void *, size_t, void **))                        \
  X(int, LiteRtGetTensorName, (void *, const char **))                                            \
  X(int, LiteRtGetRankedTensorType, (void *, TensorType *))                                       \
  X(int, LiteRtCompiledModelResizeInputTensor, (void *, size_t, size_t, const int *, size_t))     \
  X(int, LiteRtGetCompiledModelInputBufferRequirements, (void *, size_t, size_t, void **))        \
  X(int, LiteRtGetCompiledModelOutputBufferRequirements, (void *, size_t, size_t, void **))       \
  X(int, LiteRtGetCompiledModelOutputTensorLayouts, (void *, size_t, size_t, Layout *, _Bool))    \
  X(int, LiteRtCreateManagedTensorBufferFromRequirements,                                         \
    (void *, const TensorType *, void *, void **))                                                \
  X(int, LiteRtLockTensorBuffer, (void *, void **, int))                                          \
  X(int, LiteRtUnlockTensorBuffer, (void *))                                                      \
  X(int, LiteRtGetTensorBufferPackedSize, (void *, size_t *))                                     \
  X(int, LiteRtRunCompiledModel, (void *, size_t, size_t, void **, size_t, void **))

#define DECLARE(result, name, words) static result(*name) words;
FUNCTIONS(DECLARE)
#undef DECLARE

static void *library, *environment, *options, *model, *signature, *compiled;
static size_t input_count, output_count;
static const unsigned char **given; /* of each of the file's inputs, the sample's bytes */
static size_t *given_bytes, *kept_bytes, *places;
static unsigned char **kept; /* of each of the file's outputs, what a run gave */
static void **inputs, **outputs;
static TensorType *input_types, *output_types;

/* ONNX's number of LiteRT's element types, which are TfLiteType's; 0 for the rest. */
static int onnx_type(int type) {
  static const int known[] = {[1] = 1, [2] = 6,  [3] = 2,   [4] = 7,   [6] = 9,  [7] = 5,
                              [9] = 3, [10] = 10, [11] = 11, [13] = 13, [16] = 12, [17] = 4};
  return type >= 0 && (size_t)type < sizeof known / sizeof *known ? known[type] : 0;
}

/* LiteRtStatus, of which the library tells no names. */
static const char *status_name(int status) {
  static const struct {
    int status;
    const char *name;
  } known[] = {{1, "invalid argument"},     {2, "out of memory"},
               {3, "the runtime failed"},   {4, "an input is missing"},
               {5, "it is not supported"},  {6, "not found"},
               {8, "wrong version"},        {500, "the file cannot be read"},
               {501, "the file is damaged"}, {502, "a library cannot be loaded"},
               {504, "it does not compile"}, {1000, "an index is out of bounds"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].status == status) return known[i].name;
  return "see its log";
}

static void check(int status, const char *what) {
  if (status != 0) refuse("LiteRT cannot %s: %s (status %d)", what, status_name(status), status);
}

static const char *litert_open(const Plan *plan) {
  if (plan->provider) refuse("LiteRT takes no execution provider");
  library = open_library(plan->library);
#define FIND(result, name, words) *(void **)&name = symbol(library, #name);
  FUNCTIONS(FIND)
#undef FIND
  check(LiteRtCreateEnvironment(0, NULL, &environment), "start");
  return "2";
}

/* The place of a tensor among the signature's, by the file's name for it or the signature's. */
static size_t place_of(const char *name, size_t count, int is_input) {
  for (int own = 1; own >= 0; own--)
    for (size_t i = 0; i < count; i++) {
      const char *found = NULL;
      void *tensor = NULL;
      if (own) {
        check((is_input ? LiteRtGetSignatureInputTensorByIndex
                        : LiteRtGetSignatureOutputTensorByIndex)(signature, i, &tensor),
              "read the model");
        check(LiteRtGetTensorName(tensor, &found), "read the model");
      } else {
        check((is_input ? LiteRtGetSignatureInputName : LiteRtGetSignatureOutputName)(signature, i,
                                                                                      &found),
              "read the model");
      }
      if (found && strcmp(found, name) == 0) return i;
    }
  refuse("the model has no %s %s", is_input ? "input" : "output", name);
}

/* Options of a part of LiteRT, which are TOML. */
static void set_option(const char *part, const char *name, const char *value) {
  char text[64];
  snprintf(text, sizeof text, "%s = %s\n", name, value);
  char *payload = taken(strdup(text));
  void *one = NULL;
  check(LiteRtCreateOpaqueOptions(part, payload, free, &one), "set an option");
  check(LiteRtAddOpaqueOptions(options, one), "set an option");
}

static TensorType type_of(void *tensor, const char *name) {
  TensorType type;
  memset(&type, 0, sizeof type);
  check(LiteRtGetRankedTensorType(tensor, &type), "read the model's tensors");
  if (onnx_type(type.type) == 0) refuse("%s is of a type that runners do not take", name);
  return type;
}

static void take_input(const Tensor *one) {
  size_t place = place_of(one->name, input_count, 1);
  void *tensor = NULL;
  check(LiteRtGetSignatureInputTensorByIndex(signature, place, &tensor), "read the model");
  TensorType *type = &input_types[place];
  *type = type_of(tensor, one->name);
  if (onnx_type(type->type) != one->dtype) refuse("input %s is of another type", one->name);
  int same = (int)type->layout.rank == one->rank;
  for (int axis = 0; same && axis < one->rank; axis++)
    same = type->layout.dims[axis] == one->dims[axis];
  if (!same) {
    int dims[LITERT_RANK];
    if (one->rank > LITERT_RANK) refuse("input %s has too many axes", one->name);
    for (int axis = 0; axis < one->rank; axis++)
      dims[axis] = type->layout.dims[axis] = (int32_t)one->dims[axis];
    type->layout.rank = (unsigned)one->rank & 0x7f;
    check(LiteRtCompiledModelResizeInputTensor(compiled, 0, place, dims, (size_t)one->rank),
          "give an input its shape");
  }
  given_bytes[place] = one->bytes;
  given[place] = one->data;
}

static void *buffer_for(int (*requirements)(void *, size_t, size_t, void **), size_t place,
                        const TensorType *type) {
  void *wanted = NULL, *buffer = NULL;
  check(requirements(compiled, 0, place, &wanted), "plan its buffers");
  check(LiteRtCreateManagedTensorBufferFromRequirements(environment, type, wanted, &buffer),
        "make its buffers");
  return buffer;
}

static void litert_load(const Plan *plan) {
  size_t signatures = 0;
  check(LiteRtCreateModelFromFile(environment, plan->model, &model), "load the model");
  check(LiteRtCreateOptions(&options), "start");
  check(LiteRtSetOptionsHardwareAccelerators(options, CPU), "choose the CPU");
  char threads[24];
  snprintf(threads, sizeof threads, "%ld", plan->threads);
  if (plan->threads) set_option("xnnpack", "num_threads", threads); /* else what it likes */
  if (plan->profile) set_option("runtime_options_string", "enable_profiling", "true");
  check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "prepare the model");
  check(LiteRtGetNumModelSignatures(model, &signatures), "read the model");
  if (signatures == 0) refuse("the model has no signature");
  check(LiteRtGetModelSignature(model, 0, &signature), "read the model");
  check(LiteRtGetNumSignatureInputs(signature, &input_count), "read the model");
  check(LiteRtGetNumSignatureOutputs(signature, &output_count), "read the model");
  if (input_count > 4096 || output_count > 4096) refuse("the model has too many inputs or outputs");
  given = taken(calloc(input_count + 1, sizeof *given));
  given_bytes = taken(calloc(input_count + 1, sizeof *given_bytes));
  inputs = taken(calloc(input_count + 1, sizeof *inputs));
  input_types = taken(calloc(input_count + 1, sizeof *input_types));
  outputs = taken(calloc(output_count + 1, sizeof *outputs));
  output_types = taken(calloc(output_count + 1, sizeof *output_types));
  kept = taken(calloc(output_count + 1, sizeof *kept));
  kept_bytes = taken(calloc(output_count + 1, sizeof *kept_bytes));
  places = taken(calloc(plan->wanted_count, sizeof *places));
  for (size_t i = 0; i < plan->tensor_count; i++) take_input(&plan->tensors[i]);
  for (size_t i = 0; i < input_count; i++) {
    if (given[i] == NULL) refuse("the plan leaves out an input of the model");
    inputs[i] = buffer_for(LiteRtGetCompiledModelInputBufferRequirements, i, &input_types[i]);
    size_t size = 0;
    check(LiteRtGetTensorBufferPackedSize(inputs[i], &size), "plan its buffers");
    if (size < given_bytes[i]) refuse("an input has %zu bytes, the model takes %zu", given_bytes[i], size);
  }
  for (size_t i = 0; i < plan->wanted_count; i++)
    places[i] = place_of(plan->wanted[i], output_count, 0);
  Layout *layouts = taken(calloc(output_count + 1, sizeof *layouts));
  check(LiteRtGetCompiledModelOutputTensorLayouts(compiled, 0, output_count, layouts, 1),
        "tell its outputs' shapes");
  for (size_t i = 0; i < output_count; i++) {
    void *tensor = NULL;
    check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "read the model");
    output_types[i] = type_of(tensor, "an output");
    output_types[i].layout = layouts[i];
    outputs[i] = buffer_for(LiteRtGetCompiledModelOutputBufferRequirements, i, &output_types[i]);
    check(LiteRtGetTensorBufferPackedSize(outputs[i], &kept_bytes[i]), "plan its buffers");
    kept[i] = taken(malloc(kept_bytes[i] + 1));
  }
  free(layouts);
}

static void litert_bind(const Plan *plan, long sample) {
  for (size_t i = 0; i < plan->tensor_count; i++) {
    const Tensor *one = &plan->tensors[i];
    given[place_of(one->name, input_count, 1)] = one->data + (size_t)sample * one->bytes;
  }
}

/* What an app does for an inference: its inputs in, its outputs out. */
static void litert_run(const Plan *plan) {
  (void)plan;
  void *memory = NULL;
  for (size_t i = 0; i < input_count; i++) {
    check(LiteRtLockTensorBuffer(inputs[i], &memory, WRITE), "take an input");
    memcpy(memory, given[i], given_bytes[i]);
    check(LiteRtUnlockTensorBuffer(inputs[i]), "take an input");
  }
  check(LiteRtRunCompiledModel(compiled, 0, input_count, inputs, output_count, outputs),
        "run the model");
  for (size_t i = 0; i < output_count; i++) {
    check(LiteRtLockTensorBuffer(outputs[i], &memory, READ), "give an output");
    memcpy(kept[i], memory, kept_bytes[i]);
    check(LiteRtUnlockTensorBuffer(outputs[i]), "give an output");
  }
}

static void litert_write(const Plan *plan, FILE *file) {
  for (size_t i = 0; i < plan->wanted_count; i++) {
    const TensorType *type = &output_types[places[i]];
    int64_t dims[LITERT_RANK];
    if (type->layout.rank > LITERT_RANK) refuse("output %s has too many axes", plan->wanted[i]);
    size_t bytes = element_bytes(onnx_type(type->type));
    for (unsigned axis = 0; axis < type->layout.rank; axis++) {
      dims[axis] = type->layout.dims[axis];
      if (dims[axis] < 0) refuse("output %s has an open axis", plan->wanted[i]);
      bytes = times(bytes, (size_t)dims[axis]);
    }
    if (bytes > kept_bytes[places[i]]) refuse("output %s is larger than its buffer", plan->wanted[i]);
    write_record(file, onnx_type(type->type), (int)type->layout.rank, dims, kept[places[i]], bytes);
  }
}

static void litert_drop(const Plan *plan) { (void)plan; }

/* Some more runs, of which it keeps the times of the operators. */
static void litert_finish(const Plan *plan) {
  int (*get)(void *, void **), (*start)(void *), (*stop)(void *);
  int (*summarize)(void *, void *, const char **);
  if (!plan->profile) return;
  *(void **)&get = symbol(library, "LiteRtCompiledModelGetProfiler");
  *(void **)&start = symbol(library, "LiteRtStartProfiler");
  *(void **)&stop = symbol(library, "LiteRtStopProfiler");
  *(void **)&summarize = symbol(library, "LiteRtGetProfileSummary");
  void *profiler = NULL;
  const char *summary = NULL;
  check(get(compiled, &profiler), "profile");
  if (profiler == NULL) refuse("this LiteRT does not tell the time of operators");
  check(start(profiler), "profile");
  for (long i = 0; i < plan->runs && i < PROFILED; i++) litert_run(plan);
  check(stop(profiler), "profile");
  check(summarize(profiler, compiled, &summary), "end its profile");
  write_operators(plan->profile, summary ? summary : "");
}

const Runtime litert_runtime = {litert_open,  litert_load, litert_bind,  litert_run,
                                litert_write, litert_drop, litert_finish};
