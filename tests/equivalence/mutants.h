// Errors that people make, on purpose: each must be noticed.
#pragma once
#include <utility>
#include <vector>

#include "run.h"

namespace af::test {

std::vector<std::pair<Case, Mutant>> mutants();

}  // namespace af::test
