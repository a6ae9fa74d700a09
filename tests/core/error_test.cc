#include "core/error.h"

#include <gtest/gtest.h>

#include <chrono>

namespace af {
namespace {

TEST(Nearest, IsTheOneWithTheFewestChanges) {
  const std::vector<std::string> names = {"hidden_size", "head_dim", "vocab_size", "lr"};
  EXPECT_EQ(nearest("hiden_size", names), "hidden_size");
  EXPECT_EQ(nearest("size_vocab", names), "");
  EXPECT_EQ(nearest("vocabsize", names), "vocab_size");
  EXPECT_EQ(nearest("l", names), "lr");
  EXPECT_EQ(nearest("", names), "lr");
  EXPECT_EQ(nearest("head_dims", {}), "");
}

// A key of a damaged file may be as long as the file; the search took the product of the lengths.
TEST(Nearest, DoesNotCompareWhatIsMuchLonger) {
  const std::vector<std::string> names(2000, "num_attention_heads");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(nearest(std::string(1 << 20, '['), names), "");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

}  // namespace
}  // namespace af
