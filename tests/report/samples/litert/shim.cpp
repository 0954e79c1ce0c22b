// The C API of c_api.h, carried out by LiteRT's Python interpreter: `WB_LITERT` is the command that
// is given the model and a folder, in which tensors are listed in a file and kept one a file.
#include <tensorflow/lite/c/c_api.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

struct TfLiteModel { std::string path; };
struct TfLiteInterpreterOptions { int threads = 0; };
struct TfLiteTensor {
  std::string name;
  std::vector<int> dims;
  std::vector<char> data;
};
struct TfLiteInterpreter {
  std::string path, folder;
  std::vector<TfLiteTensor> inputs, outputs;
  std::string resizes;
};

static bool ask(TfLiteInterpreter* one, const std::string& what) {
  setenv("WB_MODEL", one->path.c_str(), 1);
  setenv("WB_RESIZES", one->resizes.c_str(), 1);
  const std::string command = std::string(getenv("WB_LITERT")) + " " + what + " '" + one->folder + "'";
  return system(command.c_str()) == 0;
}

// Each tensor: the name's length and the name, the number of dims and the dims, the bytes' number.
static void list(std::ifstream& file, std::vector<TfLiteTensor>& tensors) {
  int count = 0;
  file >> count;
  tensors.assign(count, {});
  for (auto& tensor : tensors) {
    size_t length = 0, dims = 0, bytes = 0;
    file >> length;
    file.get();
    tensor.name.resize(length);
    file.read(tensor.name.data(), length);
    file >> dims;
    tensor.dims.resize(dims);
    for (auto& dim : tensor.dims) file >> dim;
    file >> bytes;
    tensor.data.resize(bytes);
  }
}

extern "C" {
TfLiteModel* TfLiteModelCreateFromFile(const char* path) {
  return std::filesystem::exists(path) ? new TfLiteModel{path} : nullptr;
}
void TfLiteModelDelete(TfLiteModel* model) { delete model; }
TfLiteInterpreterOptions* TfLiteInterpreterOptionsCreate(void) { return new TfLiteInterpreterOptions; }
void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions* options) { delete options; }
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions* options, int32_t threads) { options->threads = threads; }
TfLiteInterpreter* TfLiteInterpreterCreate(const TfLiteModel* model, const TfLiteInterpreterOptions*) {
  char folder[] = "/tmp/wb-litert-XXXXXX";
  auto* made = new TfLiteInterpreter{model->path, mkdtemp(folder), {}, {}, ""};
  return TfLiteInterpreterAllocateTensors(made) == kTfLiteOk ? made : nullptr;
}
void TfLiteInterpreterDelete(TfLiteInterpreter* one) {
  std::filesystem::remove_all(one->folder);
  delete one;
}
TfLiteStatus TfLiteInterpreterAllocateTensors(TfLiteInterpreter* one) {
  if (!ask(one, "list")) return kTfLiteError;
  std::ifstream file(one->folder + "/list");
  list(file, one->inputs);
  list(file, one->outputs);
  return kTfLiteOk;
}
TfLiteStatus TfLiteInterpreterResizeInputTensor(TfLiteInterpreter* one, int32_t place, const int* dims, int32_t count) {
  one->resizes += std::to_string(place);
  for (int i = 0; i < count; ++i) one->resizes += "," + std::to_string(dims[i]);
  one->resizes += ";";
  return kTfLiteOk;
}
TfLiteStatus TfLiteInterpreterInvoke(TfLiteInterpreter* one) {
  for (size_t i = 0; i < one->inputs.size(); ++i) {
    std::ofstream file(one->folder + "/input" + std::to_string(i), std::ios::binary);
    file.write(one->inputs[i].data.data(), one->inputs[i].data.size());
  }
  if (!ask(one, "run")) return kTfLiteError;
  for (size_t i = 0; i < one->outputs.size(); ++i) {
    std::ifstream file(one->folder + "/output" + std::to_string(i), std::ios::binary);
    if (!file.read(one->outputs[i].data.data(), one->outputs[i].data.size())) return kTfLiteError;
  }
  return kTfLiteOk;
}
int32_t TfLiteInterpreterGetInputTensorCount(const TfLiteInterpreter* one) { return one->inputs.size(); }
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter* one) { return one->outputs.size(); }
TfLiteTensor* TfLiteInterpreterGetInputTensor(const TfLiteInterpreter* one, int32_t place) {
  return const_cast<TfLiteTensor*>(&one->inputs.at(place));
}
const TfLiteTensor* TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter* one, int32_t place) { return &one->outputs.at(place); }
int32_t TfLiteTensorNumDims(const TfLiteTensor* tensor) { return tensor->dims.size(); }
int32_t TfLiteTensorDim(const TfLiteTensor* tensor, int32_t place) { return tensor->dims.at(place); }
size_t TfLiteTensorByteSize(const TfLiteTensor* tensor) { return tensor->data.size(); }
const char* TfLiteTensorName(const TfLiteTensor* tensor) { return tensor->name.c_str(); }
TfLiteStatus TfLiteTensorCopyFromBuffer(TfLiteTensor* tensor, const void* data, size_t size) {
  if (size != tensor->data.size()) return kTfLiteError;
  std::memcpy(tensor->data.data(), data, size);
  return kTfLiteOk;
}
TfLiteStatus TfLiteTensorCopyToBuffer(const TfLiteTensor* tensor, void* data, size_t size) {
  if (size != tensor->data.size()) return kTfLiteError;
  std::memcpy(data, tensor->data.data(), size);
  return kTfLiteOk;
}
}
