#include "parallel/pipeline_layout.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"

namespace af {
namespace {

std::vector<std::int64_t> counts(const PipelineLayout& layout) {
  std::vector<std::int64_t> all;
  for (const StageLayers& stage : layout) all.push_back(stage.layers());
  return all;
}

// Layers placed == layers asked, each once and in order; embedding first, head last.
void expect_whole(const PipelineLayout& layout, std::int64_t layers) {
  std::int64_t next = 0;
  for (std::size_t g = 0; g < layout.size(); ++g) {
    EXPECT_EQ(layout[g].begin, next);
    EXPECT_GE(layout[g].end, layout[g].begin);
    EXPECT_EQ(layout[g].embedding, g == 0);
    EXPECT_EQ(layout[g].head, g + 1 == layout.size());
    EXPECT_TRUE(layout[g].layers() > 0 || layout[g].embedding || layout[g].head);
    next = layout[g].end;
  }
  EXPECT_EQ(next, layers);
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

TEST(PipelineLayout, EvenPlacesEveryLayer) {
  for (int p = 1; p <= 9; ++p) {
    for (const int v : {1, 2, 3, 4}) {
      for (std::int64_t layers = 1; layers <= 48; ++layers) {
        if (layers >= p * v - 2) {
          expect_whole(even_layout(layers, p, v), layers);
          EXPECT_EQ(parse_layout(str(even_layout(layers, p, v)), layers, p, v), even_layout(layers, p, v));
        } else {
          EXPECT_NE(refusal([&] { even_layout(layers, p, v); }), "") << layers << " on " << p << " x " << v;
        }
      }
    }
  }
  EXPECT_EQ(counts(even_layout(94, 4, 1)), (std::vector<std::int64_t>{23, 24, 24, 23}));  // the last has the head
  EXPECT_EQ(counts(even_layout(6, 4, 2)), (std::vector<std::int64_t>{0, 1, 1, 1, 1, 1, 1, 0}));
  EXPECT_NE(refusal([] { even_layout(5, 4, 2); }).find("5 layers"), std::string::npos);
  EXPECT_NE(refusal([] { even_layout(5, 4, 2); }).find("8 - 2 = 6"), std::string::npos);
}

TEST(PipelineLayout, Numbers) {
  EXPECT_EQ(counts(parse_layout("3,4,4,3", 14, 4, 1)), (std::vector<std::int64_t>{3, 4, 4, 3}));
  EXPECT_EQ(counts(parse_layout("3, 4, 4, 3", 14, 2, 2)), (std::vector<std::int64_t>{3, 4, 4, 3}));
  EXPECT_EQ(counts(parse_layout("0,2,0", 2, 3, 1)), (std::vector<std::int64_t>{0, 2, 0}));
  EXPECT_EQ(counts(parse_layout("5", 5, 1, 1)), (std::vector<std::int64_t>{5}));
  expect_whole(parse_layout("3,4,4,3", 14, 4, 1), 14);
}

TEST(PipelineLayout, Megatrons) {
  const PipelineLayout layout = parse_layout("Et*3|(tt|)*29,t|L", 62, 16, 2);
  expect_whole(layout, 62);
  EXPECT_EQ(layout[0].layers(), 3);
  EXPECT_EQ(layout[29].layers(), 2);
  EXPECT_EQ(layout[30].layers(), 1);
  EXPECT_EQ(layout[31].layers(), 0);
  EXPECT_EQ(str(layout).substr(0, 12), "Et*3|t*2|t*2");
  EXPECT_EQ(parse_layout(str(layout), 62, 16, 2), layout);
  EXPECT_EQ(counts(parse_layout("E|((t*2|)*2,t|)*2 tL", 11, 8, 1)), (std::vector<std::int64_t>{0, 2, 2, 1, 2, 2, 1, 1}));
}

TEST(PipelineLayout, ImpossibleOnesAreRefusedWithTheArithmetic) {
  const auto says = [](const std::string& text, std::int64_t layers, int p, int v, const std::string& word) {
    const std::string why = refusal([&] { parse_layout(text, layers, p, v); });
    EXPECT_NE(why.find(word), std::string::npos) << text << ": " << why;
  };
  says("3,4,4,3", 15, 4, 1, "3 + 4 + 4 + 3 = 14 layers; num_hidden_layers is 15");
  says("3,4,4", 11, 4, 1, "has 3 stages; pipeline_model_parallel_size 4 needs 4");
  says("3,4,4,3", 14, 4, 2, "= 8 virtual stages needs 8");
  says("3,0,4,3", 10, 4, 1, "stage 1 of 4 is empty");
  says("3,,4", 7, 3, 1, "no number of layers");
  says("", 4, 1, 1, "E stands once");
  says("tt|ttL", 4, 2, 1, "E stands once");
  says("Ett|tt", 4, 2, 1, "L once");
  says("Ett|EttL", 4, 2, 1, "stage 1 of 2 is \"EttL\"");
  says("Ett||ttL", 4, 3, 1, "stage 1 of 3 is empty");
  says("Ett|tmL", 4, 2, 1, "multi-token");
  says("Ett|xL", 4, 2, 1, "'x' at place 5");
  says("E(tt|ttL", 4, 2, 1, "that no ) closes");
  says("Ett)|ttL", 4, 2, 1, "that no ( opened");
  says("Et*|ttL", 4, 2, 1, "no number of repetitions");
  says("Et*0|ttL", 4, 2, 1, "no number of repetitions");
  says("Et*99999999999999999999|L", 4, 2, 1, "more than any model has");
  says("E((((t*1000)*1000)*1000)*1000)|L", 4, 2, 1, "more than any model has");
  says("E" + std::string(100000, '(') + "t", 4, 2, 1, "16 parentheses");
}

}  // namespace
}  // namespace af
