// The executor on ranks that are threads, against the same layers one after the other: bit-equal in every schedule.
#include "parallel/pipeline_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>

#include "parallel/comm_threads.h"
#include "tests/parallel/thread_sanitizer.h"

namespace af {
namespace {

constexpr std::int64_t kTokens = 3, kHidden = 4;
using Matrix = std::vector<double>;  // [kTokens or kHidden, kHidden]

double number(int a, int b, int c) { return std::sin(1.0 + 12.9898 * a + 78.233 * b + 37.719 * c); }

// y = tanh(x W): its gradients need the input, and the output computed once more.
struct Layer {
  Matrix weight = Matrix(kHidden * kHidden), gradient = Matrix(kHidden * kHidden, 0.0);
  explicit Layer(int stage) {
    for (int i = 0; i < kHidden * kHidden; ++i) weight[i] = number(stage, i, 0);
  }
  double output(const double* x, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t k = 0; k < kHidden; ++k) sum += x[k] * weight[k * kHidden + j];
    return std::tanh(sum);
  }
  void forward(const double* x, double* y) const {
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t j = 0; j < kHidden; ++j) y[t * kHidden + j] = output(x + t * kHidden, j);
    }
  }
  // d becomes the gradient before the tanh, which both parts need.
  void through_tanh(const double* x, double* d) const {
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t j = 0; j < kHidden; ++j) {
        const double y = output(x + t * kHidden, j);
        d[t * kHidden + j] *= 1 - y * y;
      }
    }
  }
  void add_weight_gradient(const double* x, const double* d) {
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t k = 0; k < kHidden; ++k) {
        for (std::int64_t j = 0; j < kHidden; ++j) gradient[k * kHidden + j] += x[t * kHidden + k] * d[t * kHidden + j];
      }
    }
  }
  void input_gradient(double* d) const {
    for (std::int64_t t = 0; t < kTokens; ++t) {
      double dx[kHidden] = {};
      for (std::int64_t k = 0; k < kHidden; ++k) {
        for (std::int64_t j = 0; j < kHidden; ++j) dx[k] += d[t * kHidden + j] * weight[k * kHidden + j];
      }
      std::copy(dx, dx + kHidden, d + t * kHidden);
    }
  }
};

// A rank's chunks. Where the pipeline begins the input is made up; where it ends the loss is sum y^2 (m + 1) / 2.
class ToyStage : public PipelineStage {
 public:
  ToyStage(const ScheduleShape& shape, int rank) : shape_(shape), rank_(rank) {
    for (int c = 0; c < shape.virtual_size; ++c) layers.emplace_back(c * shape.pipeline_size + rank);
    saved_.resize(std::size_t(shape.virtual_size) * shape.micro_batches);
  }
  void forward(int m, int chunk, const Tensor& input, const Tensor& output) override {
    act({Action::forward, m, chunk});
    Saved& saved = slot(m, chunk);
    EXPECT_EQ(input.empty(), first(chunk));
    EXPECT_EQ(output.empty(), last(chunk));
    if (first(chunk)) {
      saved.own.resize(kTokens * kHidden);
      for (int i = 0; i < kTokens * kHidden; ++i) saved.own[i] = number(-1, m, i);
      saved.x = saved.own.data();
    } else {
      saved.x = input.as<double>();
    }
    if (last(chunk)) {
      saved.y.resize(kTokens * kHidden);
      layers[chunk].forward(saved.x, saved.y.data());
    } else {
      layers[chunk].forward(saved.x, output.as<double>());
    }
  }
  void backward(int m, int chunk, const Tensor& d) override {
    act({Action::backward, m, chunk});
    start_backward(m, chunk, d);
    layers[chunk].add_weight_gradient(slot(m, chunk).x, d.as<double>());
    layers[chunk].input_gradient(d.as<double>());
  }
  void backward_input(int m, int chunk, const Tensor& d) override {
    act({Action::backward_input, m, chunk});
    start_backward(m, chunk, d);
    slot(m, chunk).d.assign(d.as<double>(), d.as<double>() + d.numel());
    layers[chunk].input_gradient(d.as<double>());
  }
  void backward_weight(int m, int chunk) override {
    act({Action::backward_weight, m, chunk});
    layers[chunk].add_weight_gradient(slot(m, chunk).x, slot(m, chunk).d.data());
  }

  const Matrix& output(int m) { return slot(m, shape_.virtual_size - 1).y; }  // where the pipeline ends

  std::vector<Layer> layers;
  std::vector<Action> done;
  std::function<void(const Action&)> before = [](const Action&) {};  // called at the begin of each

 private:
  struct Saved {
    const double* x = nullptr;
    Matrix own, y, d;
  };
  bool first(int chunk) const { return rank_ == 0 && chunk == 0; }
  bool last(int chunk) const { return rank_ == shape_.pipeline_size - 1 && chunk == shape_.virtual_size - 1; }
  Saved& slot(int m, int chunk) { return saved_[std::size_t(chunk) * shape_.micro_batches + m]; }
  void act(const Action& action) {
    before(action);
    done.push_back(action);
  }
  void start_backward(int m, int chunk, const Tensor& d) {
    if (last(chunk)) {
      for (int i = 0; i < kTokens * kHidden; ++i) d.as<double>()[i] = slot(m, chunk).y[i] * (m + 1);
    }
    layers[chunk].through_tanh(slot(m, chunk).x, d.as<double>());
  }

  const ScheduleShape shape_;
  const int rank_;
  std::vector<Saved> saved_;
};

// Gradients of all virtual stages, one micro-batch after the other, without any pipeline.
std::vector<Matrix> serial(int stages, int micro_batches) {
  std::vector<Layer> layers;
  for (int g = 0; g < stages; ++g) layers.emplace_back(g);
  for (int m = 0; m < micro_batches; ++m) {
    std::vector<Matrix> x(stages + 1, Matrix(kTokens * kHidden));
    for (int i = 0; i < kTokens * kHidden; ++i) x[0][i] = number(-1, m, i);
    for (int g = 0; g < stages; ++g) layers[g].forward(x[g].data(), x[g + 1].data());
    Matrix d = x[stages];
    for (double& value : d) value *= m + 1;
    for (int g = stages; g-- > 0;) {
      layers[g].through_tanh(x[g].data(), d.data());
      layers[g].add_weight_gradient(x[g].data(), d.data());
      layers[g].input_gradient(d.data());
    }
  }
  std::vector<Matrix> gradients;
  for (const Layer& layer : layers) gradients.push_back(layer.gradient);
  return gradients;
}

void run_shape(const ScheduleShape& shape, int steps = 1) {
  const std::vector<Matrix> expected = serial(shape.virtual_stages(), shape.micro_batches);
  std::vector<std::vector<Matrix>> found(shape.pipeline_size);
  std::vector<std::vector<Action>> done(shape.pipeline_size), timed(shape.pipeline_size);
  std::vector<std::size_t> buffers(shape.pipeline_size);
  run_ranks(shape.pipeline_size, {}, [&](const Comm& pp) {
    const int r = pp.rank();
    PipelineExecutor executor(shape, pp, Device{}, {kTokens, kHidden}, DType::f64);
    for (int s = 0; s < steps; ++s) {
      ToyStage stage(shape, r);
      executor.run(stage);
      found[r].clear(), timed[r].clear();
      for (const Layer& layer : stage.layers) found[r].push_back(layer.gradient);
      for (const TimedAction& t : executor.timeline()) timed[r].push_back(t.action);
      done[r] = stage.done;
    }
    buffers[r] = executor.buffers();
  });
  const std::string name = fmt::format("{} P {} V {} M {}", name_of(shape.kind), shape.pipeline_size, shape.virtual_size, shape.micro_batches);
  const Simulation simulation = simulate(shape, std::vector<StageCosts>(shape.virtual_stages()));
  for (int r = 0; r < shape.pipeline_size; ++r) {
    EXPECT_EQ(done[r], make_schedule(shape, r)) << name << ": the order of execution is not the schedule";
    EXPECT_EQ(timed[r], done[r]);
    for (int c = 0; c < shape.virtual_size; ++c)
      EXPECT_EQ(found[r][c], expected[c * shape.pipeline_size + r]) << name << " rank " << r << " chunk " << c;
    // Inputs held, messages posted, and what ranks that run ahead have on the way: never more than the passes of the step.
    EXPECT_LE(int(buffers[r]), simulation.peak_saved[r] + make_plan(shape, r).receive_buffers + shape.micro_batches * shape.virtual_size);
  }
}

TEST(PipelineExecutor, EveryScheduleIsTheSerialRunBitByBit) {
  for (const ScheduleKind kind : {ScheduleKind::gpipe, ScheduleKind::one_f_one_b, ScheduleKind::interleaved, ScheduleKind::zero_bubble}) {
    for (const int p : {1, 2, 3, 4, 8}) {
      for (const int v : {1, 2, 3}) {
        for (const int m : {1, 2, 5, 8}) {
          const ScheduleShape shape = {kind, p, v, m};
          if (problems(shape).empty()) run_shape(shape);
        }
      }
    }
  }
}

TEST(PipelineExecutor, BuffersServeStepAfterStep) {
  run_shape({ScheduleKind::one_f_one_b, 4, 1, 16}, 5);
  run_shape({ScheduleKind::interleaved, 2, 4, 9}, 5);
  run_shape({ScheduleKind::zero_bubble, 3, 2, 7}, 5);
}

// Ranks that stop at any place keep the numbers: no message is taken for another, whoever is early.
TEST(PipelineExecutor, AnyRankMayBeLate) {
  for (const ScheduleShape& shape : {ScheduleShape{ScheduleKind::interleaved, 2, 2, 6}, ScheduleShape{ScheduleKind::zero_bubble, 4, 1, 6}}) {
    const std::vector<Matrix> expected = serial(shape.virtual_stages(), shape.micro_batches);
    for (int late = 0; late < shape.pipeline_size; ++late) {
      run_ranks(shape.pipeline_size, {}, [&](const Comm& pp) {
        PipelineExecutor executor(shape, pp, Device{}, {kTokens, kHidden}, DType::f64);
        ToyStage stage(shape, pp.rank());
        stage.before = [&](const Action& a) {
          if (pp.rank() == late && (a.micro_batch + int(a.kind)) % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        };
        executor.run(stage);
        for (int c = 0; c < shape.virtual_size; ++c) EXPECT_EQ(stage.layers[c].gradient, expected[c * shape.pipeline_size + pp.rank()]);
      });
    }
  }
}

// Measured idle shares are the simulator's where steps take what the simulator was told: sleeps, and the best of some trials, since
// cores may be shared. A rank's run ends with its own last step: what earlier ranks do after it is not its idle time.
TEST(PipelineExecutor, IdleSharesAreMeasured) {
  const ScheduleShape shape = {ScheduleKind::one_f_one_b, 4, 1, 4};
  const double unit = 0.008;  // s
  const StageCosts costs = {.forward = unit, .backward_input = unit, .backward_weight = unit};
  const Simulation simulation = simulate(shape, std::vector<StageCosts>(4, costs));
  double worst = 1;  // of the best trial
  for (int trial = 0; trial < 20 && worst > 0.05; ++trial) {  // a busy machine wakes sleepers late
    std::vector<double> difference(4);
    run_ranks(4, {}, [&](const Comm& pp) {
      const int r = pp.rank();
      PipelineExecutor executor(shape, pp, Device{}, {kTokens, kHidden}, DType::f64);
      ToyStage stage(shape, r);
      stage.before = [&](const Action& a) {
        std::this_thread::sleep_for(std::chrono::duration<double>(a.kind == Action::forward ? unit : 2 * unit));
      };
      executor.run(stage);
      double end = 0;
      for (const TimedAction& t : executor.timeline()) {
        EXPECT_GE(t.begin, end);
        EXPECT_GE(t.end, t.begin);
        end = t.end;
      }
      EXPECT_LE(end, executor.seconds());
      const double until = simulation.timeline[r].back().end, busy = 4 * 3 * unit;
      difference[r] = std::abs(executor.idle_share() - (1 - busy / until));
    });
    worst = std::min(worst, *std::max_element(difference.begin(), difference.end()));
  }
  EXPECT_LT(worst, 0.1);
}

// Mutant: a wait that returns at once. Some number must differ, or these tests could not see it.
TEST(PipelineExecutor, ASkippedWaitIsSeen) {
  if (test::kRacesAreErrors) return;
  const ScheduleShape shape = {ScheduleKind::one_f_one_b, 2, 1, 4};
  const std::vector<Matrix> expected = serial(2, 4);
  ThreadOptions options;
  options.fault = {.what = CommFault::What::early_wait, .axis = Axis::world, .kind = CommKind::receive, .nth = 2, .delay_ms = 5};
  bool seen = false;
  for (int trial = 0; trial < 10 && !seen; ++trial) {  // a rank that its machine lets wait has waited
    std::vector<std::unique_ptr<PipelineExecutor>> executors(2);  // they outlive the late messages
    std::vector<Matrix> found(2);
    run_ranks(2, options, [&](const Comm& pp) {
      const int r = pp.rank();
      executors[r] = std::make_unique<PipelineExecutor>(shape, pp, Device{}, Shape{kTokens, kHidden}, DType::f64);
      ToyStage stage(shape, r);
      executors[r]->run(stage);
      found[r] = stage.layers[0].gradient;
    });
    seen = found[0] != expected[0] || found[1] != expected[1];
  }
  EXPECT_TRUE(seen);
}

// A rank that fails ends the step on all of them, in moments, with its reason; memory under way is given up.
TEST(PipelineExecutor, AFailureEndsAllRanks) {
  for (const int culprit : {0, 1, 3}) {
    const ScheduleShape shape = {ScheduleKind::interleaved, 4, 2, 8};
    const auto start = std::chrono::steady_clock::now();
    try {
      run_ranks(4, {}, [&](const Comm& pp) {
        PipelineExecutor executor(shape, pp, Device{}, {kTokens, kHidden}, DType::f64);
        ToyStage stage(shape, pp.rank());
        stage.before = [&](const Action& a) {
          if (pp.rank() == culprit && a == Action{Action::forward, 3, 1}) user_error("the data of micro-batch 3 is broken");
        };
        executor.run(stage);
      });
      FAIL();
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("micro-batch 3 is broken"), std::string::npos) << e.what();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  }
}

TEST(PipelineExecutor, RefusesAnotherNumberOfRanks) {
  EXPECT_THROW(PipelineExecutor({ScheduleKind::one_f_one_b, 2, 1, 4}, Comm(), Device{}, {kTokens, kHidden}, DType::f64), InternalError);
}

}  // namespace
}  // namespace af
