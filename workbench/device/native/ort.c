/* ONNX Runtime, on .onnx and .ort files, opened as workbench/device/runtimes/ort.py opens it.
 *
 * Its C API is a table of functions that only grows: their places are those of
 * onnxruntime_c_api.h, which tests/device/native/test_ort_api.py holds them against. */
#include "ort_api.h"
#include "runner.h"

#include <stdlib.h>
#include <string.h>

static void *const *api;
static void *environment, *options, *session, *memory_info, *allocator;
static void **inputs, **outputs;

static void check(void *status, const char *what) {
  if (status == NULL) return;
  const char *said = ORT_GetErrorMessage(api)(status);
  refuse("ONNX Runtime cannot %s: %s", what, said ? said : "it does not say why");
}

static const char *ort_open(const Plan *plan) {
  void *library = open_library(plan->library);
  const OrtApiBase *(*base)(void);
  *(void **)&base = symbol(library, "OrtGetApiBase");
  api = base()->GetApi(ORT_VERSION_NEEDED);
  if (api == NULL) refuse("this ONNX Runtime is older than 1.%d", ORT_VERSION_NEEDED);
  check(ORT_CreateEnv(api)(ORT_LOG_ERROR, "wb", &environment), "start");
  return base()->GetVersionString();
}

static void ort_load(const Plan *plan) {
  check(ORT_CreateSessionOptions(api)(&options), "start");
  check(ORT_SetIntraOpNumThreads(api)(options, (int)plan->threads), "set threads");
  check(ORT_SetInterOpNumThreads(api)(options, 1), "set threads");
  check(ORT_SetSessionLogSeverityLevel(api)(options, ORT_LOG_ERROR), "be quiet");
  check(ORT_SetSessionGraphOptimizationLevel(api)(options, ORT_ENABLE_ALL), "optimize");
  check(ORT_AddSessionConfigEntry(api)(options, "session.intra_op.allow_spinning", "0"),
        "stop spinning");
  if (plan->profile) check(ORT_EnableProfiling(api)(options, plan->profile), "profile");
  if (plan->provider)
    check(ORT_SessionOptionsAppendExecutionProvider(api)(
              options, plan->provider, (const char *const *)plan->option_keys,
              (const char *const *)plan->option_values, plan->options),
          "use its execution provider");
  check(ORT_CreateSession(api)(environment, plan->model, options, &session), "load the model");
  check(ORT_CreateCpuMemoryInfo(api)(ORT_ARENA_ALLOCATOR, ORT_MEM_DEFAULT, &memory_info), "start");
  check(ORT_GetAllocatorWithDefaultOptions(api)(&allocator), "start");
  inputs = taken(calloc(plan->tensor_count, sizeof(void *)));
  outputs = taken(calloc(plan->wanted_count, sizeof(void *)));
}

static void ort_bind(const Plan *plan, long sample) {
  for (size_t i = 0; i < plan->tensor_count; i++) {
    Tensor *one = &plan->tensors[i];
    if (inputs[i]) ORT_ReleaseValue(api)(inputs[i]);
    check(ORT_CreateTensorWithDataAsOrtValue(api)(
              memory_info, one->data + (size_t)sample * one->bytes, one->bytes, one->dims,
              (size_t)one->rank, one->dtype, &inputs[i]),
          "take an input");
  }
}

static const char **names; /* of the inputs */

static void ort_run(const Plan *plan) {
  if (names == NULL) {
    names = taken(calloc(plan->tensor_count, sizeof(char *)));
    for (size_t i = 0; i < plan->tensor_count; i++) names[i] = plan->tensors[i].name;
  }
  check(ORT_Run(api)(session, NULL, names, (const void *const *)inputs, plan->tensor_count,
                     (const char *const *)plan->wanted, plan->wanted_count, outputs),
        "run the model");
}

static void ort_write(const Plan *plan, FILE *file) {
  for (size_t i = 0; i < plan->wanted_count; i++) {
    int is_tensor = 0, dtype = 0;
    void *info = NULL, *data = NULL;
    size_t rank = 0, elements = 0;
    int64_t dims[MAX_RANK];
    check(ORT_IsTensor(api)(outputs[i], &is_tensor), "read an output");
    if (!is_tensor) refuse("output %s is no tensor", plan->wanted[i]);
    check(ORT_GetTensorTypeAndShape(api)(outputs[i], &info), "read an output");
    check(ORT_GetTensorElementType(api)(info, &dtype), "read an output");
    check(ORT_GetDimensionsCount(api)(info, &rank), "read an output");
    if (rank > MAX_RANK) refuse("output %s has more than %d axes", plan->wanted[i], MAX_RANK);
    check(ORT_GetDimensions(api)(info, dims, rank), "read an output");
    check(ORT_GetTensorShapeElementCount(api)(info, &elements), "read an output");
    ORT_ReleaseTensorTypeAndShapeInfo(api)(info);
    if (element_bytes(dtype) == 0)
      refuse("output %s is of a type that has no record", plan->wanted[i]);
    check(ORT_GetTensorMutableData(api)(outputs[i], &data), "read an output");
    write_record(file, dtype, (int)rank, dims, data, times(elements, element_bytes(dtype)));
  }
}

static void ort_drop(const Plan *plan) {
  for (size_t i = 0; i < plan->wanted_count; i++) {
    if (outputs[i]) ORT_ReleaseValue(api)(outputs[i]);
    outputs[i] = NULL;
  }
}

static void ort_finish(const Plan *plan) {
  if (!plan->profile) return;
  char *made = NULL;
  check(ORT_SessionEndProfiling(api)(session, allocator, &made), "end its profile");
  if (made == NULL || rename(made, plan->profile) != 0)
    refuse("the profile cannot be put in place");
}

const Runtime ort_runtime = {ort_open, ort_load, ort_bind, ort_run, ort_write, ort_drop, ort_finish};
