// config.json of Hugging Face transformers: every field is honoured or refused.
#pragma once
#include <string>

#include "data/json.h"
#include "models/config.h"

namespace af {

// `path`: the file, or the folder that holds config.json. A missing field is refused: the defaults of transformers' classes
// are not those of the published models. A UserError names everything wrong at once, each with file and field.
ModelConfig read_hf_config(const std::string& path);
ModelConfig parse_hf_config(const Json& json, const std::string& source_name);

// What transformers, vLLM and SGLang load: `config` with the RoPE it was trained with. torch_dtype: "bfloat16", "float32" ...
Json write_hf_config(const ModelConfig& config, const std::string& torch_dtype);

}  // namespace af
