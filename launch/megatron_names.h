// Options that users of Megatron-LM and Hugging Face know and that have no second behaviour here.
#pragma once
#include <string>

namespace af {

// What this program does instead, to follow "key: "; nullptr where the name is not known.
const char* megatron_answer(const std::string& name);

}  // namespace af
