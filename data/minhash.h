// Signatures by which nearly equal texts are found: the share of equal values in two signatures estimates the Jaccard
// similarity of the texts' sets of word 5-grams (A. Broder, "On the resemblance and containment of documents", 1997),
// with a standard error of sqrt(J (1 - J) / 128), 0.035 at 0.8. One hash per 5-gram: one permutation, cut into bins, empty
// bins filled as in A. Shrivastava, "Optimal densification for fast and accurate minwise hashing", 2017.
#pragma once
#include <cstdint>
#include <string_view>

namespace af {

inline constexpr std::size_t kSignature = 128;

// Words are runs of letters and digits, ASCII without case; a character of Chinese, Japanese or Korean is a word of its
// own; punctuation and spaces only separate. A text of fewer than five words is one 5-gram. out: [kSignature]
void minhash(std::string_view text, std::uint16_t* out);

}  // namespace af
