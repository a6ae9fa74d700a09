// What the commands of af_eval share: the options that name the model and the data, and running on one process or, under mpirun, on
// several that share the samples.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/synthesis/sample.h"
#include "data/tokenizer.h"
#include "launch/arguments.h"
#include "launch/eval_model.h"
#include "parallel/comm.h"

namespace af {

struct EvalJob {
  Comm world;
  Device device;
  bool speaks() const { return world.rank() == 0; }
};

// --checkpoint, --hf, --random, --tokenizer, --precision, --threads.
std::vector<Option> eval_model_options();

// The command's work on this process, or on every rank of the job.
int run_eval(const Arguments& arguments, const std::function<int(const EvalJob&)>& work);
EvalModel eval_model_from(const Arguments& arguments, const Device& device);
// Fits the model, and is the one of its training where that is known. UserError.
std::unique_ptr<Tokenizer> eval_tokenizer_from(const Arguments& arguments, const EvalModel& model);

// Calls line(json, "FILE:LINE") for each line of JSON of the files (also .gz and .zst), empty ones left out, until it returns false.
// UserError naming file and line.
void read_json_lines(const std::vector<std::string>& files, const std::function<bool(const Json& json, const std::string& where)>& line);
std::vector<Sample> read_samples(const std::vector<std::string>& files, std::int64_t limit);

// The file appears as a whole; "": none is written.
void write_output(const std::string& path, const std::string& contents);

}  // namespace af
