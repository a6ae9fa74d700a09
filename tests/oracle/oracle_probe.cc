// oracle_probe HF_FOLDER BATCH.json OUT [export]: loss, gradients, parameters and logits of this program for tests/oracle/compare.py.
//   OUT/fp32.safetensors  loss of every step, grad.NAME of the first step, param.NAME after the last, logits_before, logits_after
//   OUT/fp64.safetensors  loss and grad.NAME of the first step, everything computed in fp64
//   OUT/again             with `export`: the folder imported and exported; OUT/trained the same after the last step (F32)
#include <cstdio>
#include <filesystem>
#include <map>

#include "data/safetensors.h"
#include "tests/oracle/probe.h"

namespace af::oracle {
namespace {

// Tensors gathered in memory as F64 or F32 bytes, written as one file.
class Results {
 public:
  void add(const std::string& name, const std::string& type, const std::vector<std::int64_t>& shape, const void* data, std::size_t bytes) {
    infos_.push_back({name, type, shape});
    bytes_[name].assign(static_cast<const char*>(data), static_cast<const char*>(data) + bytes);
  }
  void add(const std::string& name, const Tensor& x) {
    add(name, x.dtype == DType::f64 ? "F64" : "F32", {x.shape.dims, x.shape.dims + x.shape.rank}, x.data, x.bytes());
  }
  // Every published tensor out of `flat`, which has the set's offsets.
  void add_all(const std::string& prefix, const Probe& probe, const Tensor& flat) {
    const TensorSource source = tensors_of(probe.parameters(), flat);
    for (const PublishedTensor& tensor : published_tensors(probe.config())) {
      std::vector<char> data(std::size_t(tensor.shape.numel()) * size_of(source.dtype));
      const Tensor out(data.data(), source.dtype, {tensor.shape[0], tensor.shape.numel() / tensor.shape[0]});
      source.read(tensor.name, 0, out);
      add(prefix + tensor.name, out.view(tensor.shape));
    }
  }
  void write(const std::string& path) {
    SafetensorsWriter writer(path, infos_, {});
    for (const SafetensorsInfo& info : writer.tensors()) writer.write(info, 0, info.bytes(), bytes_.at(info.name).data());
    writer.finish();
  }

 private:
  std::vector<SafetensorsInfo> infos_;
  std::map<std::string, std::vector<char>> bytes_;
};

void run(const std::string& folder, Batch batch, const std::string& out, bool exports) {
  std::filesystem::create_directories(out);
  const bool sharded = std::filesystem::exists(std::filesystem::path(folder) / "model.safetensors.index.json");
  const std::int64_t shard_size = sharded ? 60'000 : HfExport().max_shard_size;  // as make_models.py had it
  Arena memory(Device{}, "logits");
  std::vector<double> losses;
  {
    Probe probe(folder, DType::f32);
    const TensorSource weights = tensors_of(probe.parameters(), probe.parameters().values());
    if (exports) export_hf(out + "/again", probe.config(), weights, {.source = folder, .max_shard_size = shard_size});
    Results results;
    results.add("logits_before", probe.logits(batch.steps.front(), memory));
    for (std::size_t i = 0; i < batch.steps.size(); i++) {
      losses.push_back(probe.forward_backward(batch.steps[i]));
      if (i == 0) results.add_all("grad.", probe, probe.parameters().gradients());
      probe.optimize(batch);
    }
    results.add("loss", "F64", {std::int64_t(losses.size())}, losses.data(), losses.size() * sizeof(double));
    results.add_all("param.", probe, probe.parameters().values());
    results.add("logits_after", probe.logits(batch.steps.front(), memory));
    results.write(out + "/fp32.safetensors");
    if (exports) export_hf(out + "/trained", probe.config(), weights, {.source = folder, .dtype = "F32"});
  }
  Probe probe(folder, DType::f64);
  const double loss = probe.forward_backward(batch.steps.front());
  Results results;
  results.add("loss", "F64", {1}, &loss, sizeof loss);
  results.add_all("grad.", probe, probe.parameters().gradients());
  results.write(out + "/fp64.safetensors");
}

}  // namespace
}  // namespace af::oracle

int main(int argc, char** argv) {
  const bool exports = argc == 5 && std::string(argv[4]) == "export";
  if (argc != 4 && !exports) {
    std::fprintf(stderr, "usage: oracle_probe HF_FOLDER BATCH.json OUT [export]\n");
    return 2;
  }
  try {
    af::oracle::run(argv[1], af::oracle::read_batch(argv[2]), argv[3], exports);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "oracle_probe: %s\n", e.what());
    return 1;
  }
  return 0;
}
