// Reads a vocabulary from whatever files it comes in.
#pragma once
#include <string>

#include "data/bpe_tokenizer.h"

namespace af {

// `path` is a folder with tokenizer.json, with vocab.json + merges.txt + tokenizer_config.json, or with one *.tiktoken;
// or one such tokenizer.json or *.tiktoken itself. A .tiktoken file ("base64 rank" a line) gets Qwen's special tokens after
// its last rank; it says nothing of the split, which is taken to be Qwen's.
// UserError naming the file where something is missing, or asks for what this program does not compute: another
// normalisation than NFC, another split than Qwen's (word_split.h), another model than byte-level BPE.
BpeVocabulary read_bpe_vocabulary(const std::string& path);

}  // namespace af
