// Every layout gives one rank's numbers: equivalence [--full|--quick] [--seed N] [--random N] [--only TEXT] [--list]
// --quick: some in fp64 alone, for slow builds (sanitizers).
// Without --full a sample: seeded, another one each day unless --seed says which. Ends with "N passed, N failed, N skipped".
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "core/random.h"
#include "mutants.h"

namespace af::test {
namespace {

struct Options {
  bool full = false, quick = false, list = false;
  std::uint64_t seed = 0;
  int random = -1;
  std::string only;
};

int passed = 0, failed = 0;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void check(const Case& c) {
  if (std::string why; !possible(c, &why)) {
    fmt::print("FAILED {}: no such layout: {}\n", c.name(), why);
    ++failed;
    return;
  }
  double begin = now();
  std::string wrong;
  Worst worst;
  try {
    wrong = compare(c, {}, &worst);
  } catch (const std::exception& error) {
    wrong = error.what();
  }
  if (wrong.empty()) {
    ++passed;
    fmt::print("ok {:2} ranks {:90} loss {:.1e} norm {:.1e} gradient {:.1e} ({:.1f} s)\n", c.layout.mesh.world(), c.name(), worst.loss, worst.grad_norm,
               worst.gradient, now() - begin);
  } else {
    ++failed;
    fmt::print("FAILED {:2} ranks {}: {}\n", c.layout.mesh.world(), c.name(), wrong);
  }
  std::fflush(stdout);
}

// Runs of one layout are bit-equal, whatever the number of threads.
void check_bits(const Case& c) {
  RunRecord a = run_case(c), b = run_case(c, {}, 3);
  bool same = a.gradients == b.gradients && a.parameters == b.parameters;
  for (std::size_t i = 0; i < a.steps.size(); ++i)
    same = same && a.steps[i].loss == b.steps[i].loss && a.steps[i].grad_norm == b.steps[i].grad_norm;
  (same ? passed : failed)++;
  fmt::print("{} {}: two runs, 1 and 3 threads, are bit-equal\n", same ? "ok" : "FAILED", c.name());
}

void check_mutant(const Case& c, const Mutant& mutant) {
  std::string wrong;
  Worst worst;
  for (int trial = 0; trial < 5 && wrong.empty(); ++trial) {  // a rank that does not wait may get what it needs all the same, where its machine makes it wait
    try {
      wrong = compare(c, mutant, &worst);
    } catch (const std::exception& error) {
      wrong = error.what();
    }
  }
  (wrong.empty() ? failed : passed)++;
  fmt::print("{} mutant: {} ({}): {}\n", wrong.empty() ? "FAILED" : "ok", mutant.what, c.name(),
             wrong.empty() ? "was not noticed" : wrong.substr(0, 100));
  std::fflush(stdout);
}

int run(const Options& options) {
  std::vector<Case> all = fixed_cases();
  std::vector<Case> cases;
  // fp64 shows errors of 1e-10; fp32 and bf16 are what people train with.
  auto add = [&](Case c, DType dtype) {
    c.dtype = dtype;
    if (c.skewed && dtype != DType::f64) c.steps = 1;  // tokens much alike, gradients that cancel: Adam makes steps of what rounding leaves
    cases.push_back(c);
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    bool chosen = options.full || random_below(options.seed, 21, i, options.quick ? 6 : 3) == 0;
    if (!chosen) continue;
    add(all[i], DType::f64);
    if (options.quick) continue;
    add(all[i], DType::f32);
    if (options.full || i % 4 == 0) add(all[i], DType::bf16);
  }
  int random = options.random >= 0 ? options.random : options.full ? 60 : options.quick ? 4 : 12;
  for (const Case& c : random_cases(options.seed, random)) {
    add(c, DType::f64);
    if (options.full) add(c, DType::f32);
  }
  fmt::print("seed {}: {} layouts\n", options.seed, cases.size());
  auto wanted = [&](const std::string& name) { return options.only.empty() || name.find(options.only) != std::string::npos; };
  for (const Case& c : cases) {
    if (!wanted(c.name())) continue;
    if (options.list) fmt::print("{}\n", c.name());
    else check(c);
  }
  if (options.list) return 0;
  if (options.only == "mutant" || (options.only.empty() && !options.quick))
    for (const auto& [c, mutant] : mutants()) check_mutant(c, mutant);
  if (options.only == "bits" || (options.only.empty() && !options.quick))
    for (std::size_t i = options.full ? 0 : all.size() - 8; i < all.size(); i += options.full ? 5 : 3) {
      Case c = all[i];
      c.dtype = DType::f32;
      check_bits(c);
    }
  fmt::print("{} passed, {} failed, 0 skipped\n", passed, failed);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace af::test

int main(int argc, char** argv) {
  af::test::Options options;
  options.seed = std::uint64_t(std::chrono::duration_cast<std::chrono::hours>(std::chrono::system_clock::now().time_since_epoch()).count() / 24);
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    auto next = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (word == "--full") options.full = true;
    else if (word == "--quick") options.quick = true;
    else if (word == "--list") options.list = true;
    else if (word == "--seed") options.seed = std::strtoull(next(), nullptr, 10);
    else if (word == "--random") options.random = std::atoi(next());
    else if (word == "--only") options.only = next();
    else return fmt::print(stderr, "equivalence [--full|--quick] [--seed N] [--random N] [--only TEXT] [--list]\n"), 2;
  }
  return af::test::run(options);
}
