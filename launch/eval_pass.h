// pass@k: the probability that one of k attempts at a question is right, estimated without bias from n attempts of which c were (Chen et al.
// 2021, arXiv 2107.03374): 1 - C(n - c, k) / C(n, k).
#pragma once
#include <cstdint>
#include <vector>

namespace af {

double pass_at(std::int64_t k, std::int64_t attempts, std::int64_t right);  // 1 <= k <= attempts

struct MeanOfQuestions {
  double mean = 0, standard_error = 0;  // over questions
};
MeanOfQuestions mean_of(const std::vector<double>& values);

}  // namespace af
