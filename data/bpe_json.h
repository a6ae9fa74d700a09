// Hugging Face's tokenizer.json and tokenizer_config.json.
#pragma once
#include "data/bpe_builder.h"

namespace af {

// UserError naming file and field where it asks for what this program does not compute: another normalisation than NFC,
// another split than Qwen's (word_split.h), another model than byte-level BPE, added tokens that are not matched as they are.
void read_tokenizer_json(const std::string& path, BpeBuilder& builder);
void read_tokenizer_config(const std::string& path, BpeBuilder& builder);  // its added_tokens_decoder

// Writes FOLDER/tokenizer.json and FOLDER/tokenizer_config.json.
void write_tokenizer_json(const BpeVocabulary& vocabulary, const std::string& folder);

}  // namespace af
