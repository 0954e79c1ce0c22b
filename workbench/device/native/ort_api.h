/* The few declarations of ONNX Runtime's C API that the runner uses, with handles as void *.
 *
 * The API is a table of functions to which each release only adds: X(name, place, result, words). */
#ifndef WB_ORT_API_H
#define WB_ORT_API_H

#include <stddef.h>
#include <stdint.h>

#define ORT_VERSION_NEEDED 17
#define ORT_LOG_ERROR 3
#define ORT_ENABLE_ALL 99
#define ORT_ARENA_ALLOCATOR 1
#define ORT_MEM_DEFAULT 0

typedef struct {
  void *const *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

/* clang-format off */
#define ORT_FUNCTIONS(X) \
  X(GetErrorMessage, 2, const char *, (const void *)) \
  X(CreateEnv, 3, void *, (int, const char *, void **)) \
  X(CreateSession, 7, void *, (void *, const char *, void *, void **)) \
  X(Run, 9, void *, (void *, void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **)) \
  X(CreateSessionOptions, 10, void *, (void **)) \
  X(EnableProfiling, 14, void *, (void *, const char *)) \
  X(SetSessionLogSeverityLevel, 22, void *, (void *, int)) \
  X(SetSessionGraphOptimizationLevel, 23, void *, (void *, int)) \
  X(SetIntraOpNumThreads, 24, void *, (void *, int)) \
  X(SetInterOpNumThreads, 25, void *, (void *, int)) \
  X(CreateTensorWithDataAsOrtValue, 49, void *, (const void *, void *, size_t, const int64_t *, size_t, int, void **)) \
  X(IsTensor, 50, void *, (const void *, int *)) \
  X(GetTensorMutableData, 51, void *, (void *, void **)) \
  X(GetTensorElementType, 60, void *, (const void *, int *)) \
  X(GetDimensionsCount, 61, void *, (const void *, size_t *)) \
  X(GetDimensions, 62, void *, (const void *, int64_t *, size_t)) \
  X(GetTensorShapeElementCount, 64, void *, (const void *, size_t *)) \
  X(GetTensorTypeAndShape, 65, void *, (const void *, void **)) \
  X(CreateCpuMemoryInfo, 69, void *, (int, int, void **)) \
  X(GetAllocatorWithDefaultOptions, 78, void *, (void **)) \
  X(ReleaseValue, 96, void, (void *)) \
  X(ReleaseTensorTypeAndShapeInfo, 99, void, (void *)) \
  X(SessionEndProfiling, 110, void *, (void *, void *, char **)) \
  X(AddSessionConfigEntry, 130, void *, (void *, const char *, const char *)) \
  X(SessionOptionsAppendExecutionProvider, 216, void *, (void *, const char *, const char *const *, const char *const *, size_t))
/* clang-format on */

/* Each as a function that reads it from the table: ORT_Run(api)(…). */
#define ORT_DECLARE(name, place, result, words)              \
  typedef result(*Ort_##name) words;                         \
  static inline Ort_##name ORT_##name(void *const *table) {  \
    Ort_##name found;                                        \
    *(void **)&found = table[place];                         \
    return found;                                            \
  }

#ifndef WB_ORT_PLACES_ONLY
ORT_FUNCTIONS(ORT_DECLARE)
#endif

#endif
