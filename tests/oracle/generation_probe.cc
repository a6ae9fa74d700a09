// generation_probe HF_FOLDER REQUEST.json OUT.json: sequences that this program's model continues, for tests/oracle/generation.py.
//   REQUEST  {"prompts": [[id, ...], ...], "count": N, "repetition_penalty": R,
//             "draws": [{"logits": [...], "before": [id, ...], "temperature": T, "top_p": P, "repetition_penalty": R}, ...]}
//   OUT      {"greedy": [[id, ...], ...], "probabilities": [[one per id], ...]}; the prompts run side by side, N tokens each
#include <cstdio>

#include "data/file.h"
#include "data/json.h"
#include "launch/eval_model.h"
#include "models/decoder.h"
#include "models/sampling.h"

namespace af {
namespace {

std::vector<std::int32_t> integers(const JsonView& view) {
  std::vector<std::int32_t> out;
  for (const Json& value : view.array()) out.push_back(std::int32_t(value.integer(view.where())));
  return out;
}

Json greedy(EvalModel& model, const JsonView& request) {
  const std::int64_t count = request["count"].integer();
  const SamplingSettings settings{0, 1, request["repetition_penalty"].number()};
  std::vector<std::vector<std::int32_t>> sequences;
  std::vector<std::int64_t> capacities;
  for (std::size_t i = 0; i < request["prompts"].size(); ++i) {
    sequences.push_back(integers(request["prompts"][i]));
    capacities.push_back(std::int64_t(sequences.back().size()) + count);
  }
  Decoder decoder(model.model(), model.context(), capacities);
  Arena memory(Device{}, "logits");
  const Tensor logits = memory.tensor({std::int64_t(sequences.size()), model.config().vocab_size}, decoder.accumulator());
  for (std::int64_t n = 0; n < count; ++n) {
    std::vector<Decoder::Piece> pieces;
    std::vector<std::int32_t> rows;
    std::int32_t tokens = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      pieces.push_back({int(i), std::span(sequences[i]).subspan(std::size_t(decoder.length(int(i))))});
      tokens += std::int32_t(pieces.back().tokens.size());
      rows.push_back(tokens - 1);
    }
    decoder.logits(pieces, rows, logits);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const std::span<const float> row(logits.as<float>() + std::int64_t(i) * logits.stride, std::size_t(logits.cols()));
      sequences[i].push_back(draw(distribution(row, sequences[i], settings), 0));
    }
  }
  Json::Array out;
  for (const auto& sequence : sequences) out.push_back(Json::Array(sequence.end() - count, sequence.end()));
  return out;
}

Json probabilities(const JsonView& draws) {
  Json::Array out;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    const JsonView d = draws[i];
    std::vector<float> logits;
    for (const Json& value : d["logits"].array()) logits.push_back(float(value.number()));
    std::vector<double> all(logits.size(), 0);
    for (const WeightedToken& token :
         distribution(logits, integers(d["before"]), {d["temperature"].number(), d["top_p"].number(), d["repetition_penalty"].number()}))
      all[std::size_t(token.id)] = token.probability;
    out.push_back(Json::Array(all.begin(), all.end()));
  }
  return out;
}

void run(const std::string& folder, const std::string& request_path, const std::string& out) {
  const Json json = Json::parse_file(request_path);
  const JsonView request(json, request_path);
  EvalModel model({EvalSource::Kind::hf, folder}, Device{}, DType::f32);
  write_file(out, Json(Json::Object{{"greedy", greedy(model, request)}, {"probabilities", probabilities(request["draws"])}}).dump());
}

}  // namespace
}  // namespace af

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: generation_probe HF_FOLDER REQUEST.json OUT.json\n");
    return 2;
  }
  try {
    af::run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "generation_probe: %s\n", e.what());
    return 1;
  }
  return 0;
}
