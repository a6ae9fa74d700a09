// The sections of the configuration that stand in more than one place: at the top, for all stages, and in a stage, for itself; and lists of
// datasets. As in config_schema.h, a reader fills them and a writer prints them.
#pragma once
#include <vector>

#include "launch/config.h"
#include "launch/config_fields.h"

namespace af {

constexpr Limits kCount{1, 2147483647};

void describe_rope(Fields& f, RopeSettings& rope);  // keys beside others, no section: rope_theta, rope_scaling; null takes the scaling away
void describe_parallel(Fields& f, ParallelConfig& p);
void describe_pipeline(Fields& f, PipelineConfig& p);
void describe_recompute(Fields& f, RecomputeSettings& r);
void describe_optimizer(Fields& f, OptimizerConfig& o);
void describe_moe(Fields& f, BalanceSettings& moe);

enum class Weights { no, yes };  // validation has none
void describe_data(Fields& f, std::vector<DataSource>& data, Weights weights, Need need);

}  // namespace af
