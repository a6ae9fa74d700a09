// Sentences from templates: "{What is|Give} the $a of $s." One of the alternatives in braces is taken (they may be empty and do
// not nest), $x is replaced by the slot's text as it is, $X (the capital) by the same with its first letter raised.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "data/synthesis/offline_dice.h"

namespace af {

using Slots = std::initializer_list<std::pair<char, std::string_view>>;
std::string expand(std::string_view form, Dice& dice, Slots slots = {});

}  // namespace af
