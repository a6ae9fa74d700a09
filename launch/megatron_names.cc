#include "launch/megatron_names.h"

namespace af {
namespace {

struct Answer {
  const char* names;  // separated by blanks
  const char* text;
};

constexpr Answer kAnswers[] = {
    // precision
    {"bf16 params_dtype", "precision is runtime.precision: fp32, bf16 (with fp32 master weights and gradients) or fp64"},
    {"fp16 loss_scale initial_loss_scale min_loss_scale", "there is no fp16 and so no loss scale; use runtime.precision: bf16"},
    {"fp8 fp8_format fp8_recipe fp8_param_gather fp4 fp4_format", "FP8 and FP4 are not offered; use runtime.precision: bf16"},
    {"grad_reduce_in_fp32 accumulate_allreduce_grads_in_fp32 main_grads_dtype main_params_dtype exp_avg_dtype exp_avg_sq_dtype "
     "attention_softmax_in_fp32",
     "always so: gradients, master weights, moments and softmax are at least fp32; leave it out"},
    // model
    {"num_layers", "the model section has Hugging Face's names: num_hidden_layers"},
    {"ffn_hidden_size", "the model section has Hugging Face's names: intermediate_size"},
    {"moe_ffn_hidden_size", "the model section has Hugging Face's names: moe_intermediate_size"},
    {"num_query_groups group_query_attention", "the model section has Hugging Face's names: num_key_value_heads"},
    {"kv_channels", "the model section has Hugging Face's names: head_dim"},
    {"moe_router_topk", "the model section has Hugging Face's names: num_experts_per_tok"},
    {"moe_layer_freq", "the model section has Hugging Face's names: decoder_sparse_step, mlp_only_layers"},
    {"rotary_base", "RoPE's base is rope_theta, of the model or of a stage"},
    {"norm_epsilon layernorm_epsilon", "the model section has Hugging Face's names: rms_norm_eps"},
    {"init_method_std", "the model section has Hugging Face's names: initializer_range"},
    {"untie_embeddings_and_output_weights", "the model section has Hugging Face's names: tie_word_embeddings, its opposite"},
    {"make_vocab_size_divisible_by padded_vocab_size", "the vocabulary is the model's vocab_size, padded or not; leave it out"},
    {"hidden_dropout attention_dropout", "there is no dropout: Qwen3 is trained without; leave it out"},
    {"normalization swiglu disable_bias_linear add_bias_linear add_qkv_bias qk_layernorm position_embedding_type use_rotary_position_embeddings "
     "rotary_percent "
     "hidden_act attention_bias sliding_window use_sliding_window max_window_layers layer_types",
     "fixed by the architecture, Qwen3: RMSNorm, SwiGLU, no biases, norms on queries and keys, RoPE on all dimensions, full attention; leave it out"},
    {"torch_dtype dtype architectures use_cache bos_token_id eos_token_id pad_token_id transformers_version",
     "changes nothing in training; leave it out (runtime.precision sets the type)"},
    {"moe_router_dtype", "the router always runs in fp32 or fp64; leave it out"},
    {"moe_router_pre_softmax moe_router_score_function",
     "the router is softmax, then top-k, as Qwen3's; model.norm_topk_prob says whether the k weights are divided by their sum"},
    {"moe_grouped_gemm moe_permute_fusion moe_router_fusion", "always so; leave it out"},
    {"moe_token_dispatcher_type moe_enable_deepep", "tokens travel by all-to-all; leave it out"},
    {"moe_pad_expert_input_to_capacity", "experts take any number of tokens, none is padded; leave it out"},
    {"moe_router_force_load_balancing", "routing is always the router's own; leave it out"},
    {"moe_shared_expert_intermediate_size moe_shared_expert_overlap", "Qwen3 has no shared expert; leave it out"},
    // kernels and recomputation
    {"use_flash_attn attention_backend transformer_impl masked_softmax_fusion bias_swiglu_fusion bias_gelu_fusion bias_dropout_fusion "
     "apply_rope_fusion "
     "cross_entropy_loss_fusion gradient_accumulation_fusion cross_entropy_fusion_impl",
     "always so: attention never holds the score matrix, and kernels are fused where that pays; leave it out"},
    {"recompute_activations checkpoint_activations gradient_checkpointing", "use recompute: {recompute_granularity: none, selective or full}"},
    {"distribute_saved_activations cpu_offloading", "activations stay where they are; use recompute to keep fewer"},
    // data
    {"train_data_path data_path data_args_path blend", "each stage has its own data: [{path: x.h5, weight: 1}]"},
    {"valid_data_path test_data_path split per_split_data_args_path",
     "held-out data are validation: {data: [{path: x.h5}]}; af_data writes them as a file of their own"},
    {"data_cache_path num_workers dataloader_type num_dataset_builder_threads no_mmap_bin_files",
     "datasets are read as they are, in the background; leave it out"},
    {"eod_mask_loss", "always so: the end-of-document token has no target; leave it out"},
    {"reset_position_ids reset_attention_mask create_attention_mask_in_dataloader",
     "always so: each packed document has positions from 0 and attends to itself only; leave it out"},
    {"tokenizer_type tokenizer_model tokenizer_name_or_path vocab_file merge_file", "use tokenizer: {path: ...}; af_data tokenizes before training"},
    {"encoder_seq_length max_length max_seq_length block_size", "the length of a sequence is a stage's seq_length"},
    // training
    {"rampup_batch_size", "a stage has one batch size; write a short stage for each size before"},
    {"gradient_accumulation_steps", "it is global_batch_size / micro_batch_size"},
    {"per_device_train_batch_size", "that is a stage's micro_batch_size"},
    {"learning_rate", "that is lr, in a stage's section lr"},
    {"warmup_ratio", "that is lr_warmup_fraction, in a stage's section lr"},
    {"warmup_steps", "that is lr_warmup_iters, in a stage's section lr"},
    {"lr_scheduler_type", "that is lr_decay_style, in a stage's section lr"},
    {"max_steps num_train_epochs", "the length of a stage is train_tokens, train_samples or train_iters; a source that ends begins again"},
    {"max_grad_norm", "that is clip_grad, in the section optimizer"},
    {"lr_decay_samples lr_wsd_decay_samples", "lengths of the decay are in iterations: lr_decay_iters, lr_wsd_decay_iters"},
    {"start_weight_decay", "that is weight_decay, in the section optimizer"},
    {"override_opt_param_scheduler use_checkpoint_opt_param_scheduler",
     "the schedule always follows this file, and the position in it the checkpoint; leave it out"},
    {"calculate_per_token_loss", "always so: the loss is the sum over all targets of the global batch divided by their number; leave it out"},
    {"decoupled_lr decoupled_min_lr", "all parameters have one learning rate; leave it out"},
    {"use_precision_aware_optimizer optimizer_cpu_offload", "the optimizer's state is fp32 on the device; leave it out"},
    {"use_cpu_initialization perform_initialization", "initial weights depend on seed, name and place only; leave it out"},
    {"deterministic deterministic_mode", "always so: the same file gives the same bits, whatever the threads; leave it out"},
    // layout
    {"data_parallel_size", "it is what the processes give: world size / (TP x PP x CP); leave it out"},
    {"num_layers_per_virtual_pipeline_stage", "the number of chunks per rank is virtual_pipeline_model_parallel_size"},
    {"cp_comm_type", "keys and values are gathered, only those that a document which crosses a cut needs; leave it out"},
    {"use_distributed_optimizer overlap_p2p_comm overlap_moe_expert_parallel_comm tp_comm_overlap", "always so; leave it out"},
    {"delay_wgrad_compute", "use pipeline: {schedule: zero_bubble}"},
    {"cluster", "what the batch system is told stands in its script: examples/slurm; leave it out"},
    {"distributed_backend", "between processes it is MPI; leave it out"},
    {"use_torch_fsdp2 use_megatron_fsdp", "parameters are not sharded over data-parallel ranks, the optimizer's state always is; leave it out"},
    // checkpoints and logs
    {"save", "checkpoints are written to output_dir/checkpoints; checkpoint.save_interval says how often"},
    {"load no_load_optim no_load_rng exit_on_missing_checkpoint",
     "a run goes on by itself from output_dir (--resume auto|never|PATH); to begin from other weights use init"},
    {"finetune pretrained_checkpoint", "use init: {checkpoint: FOLDER} or {hf_checkpoint: FOLDER}: weights alone, a fresh optimizer"},
    {"ckpt_format dist_ckpt_format ckpt_fully_parallel_save", "every rank writes its part, in one format that any layout reads; leave it out"},
    {"tensorboard_dir tensorboard_log_interval log_validation_ppl_to_tensorboard log_learning_rate_to_tensorboard",
     "every step goes to output_dir/tensorboard unless logging: {tensorboard: false}; leave it out"},
    {"wandb_project wandb_exp_name", "every step goes to output_dir/metrics.jsonl and output_dir/tensorboard; leave it out"},
    {"log_throughput log_params_norm log_progress log_timers_to_tensorboard log_memory_to_tensorboard",
     "always in the log line and in metrics.jsonl; leave it out"},
};

bool contains(const char* names, const std::string& name) {
  const std::string all = std::string(" ") + names + " ";
  return all.find(" " + name + " ") != std::string::npos;
}

}  // namespace

const char* megatron_answer(const std::string& name) {
  for (const Answer& answer : kAnswers) {
    if (contains(answer.names, name)) return answer.text;
  }
  return nullptr;
}

}  // namespace af
