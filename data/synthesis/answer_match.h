// Whether an answer says the same as the right one, by their words: the one rule by which trajectories are judged and generated answers
// counted. Compatible forms, case, punctuation, English articles and white space do not count; numbers are compared by value ("4,222" and
// "4222.0"); answers that are lists ("a; b", "a, b and c") match in any order.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace af {

std::string normalised_answer(std::string_view text);
// False where either has no words.
bool answers_match(std::string_view answer, std::string_view right);
bool answers_match(std::string_view answer, std::string_view right, std::span<const std::string> other_right_ones);

// Do the words stand one after the other in the text? Both normalised. Within a script without spaces a word may begin and end anywhere.
bool mentions(std::string_view normalised_text, std::string_view normalised_words);

}  // namespace af
