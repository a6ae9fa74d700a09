"""Tiny Qwen3 models built and saved by transformers, and what PyTorch computes with them.

    make_models.py OUT_DIR [--only NAME ...]

For each configuration OUT_DIR/NAME/ holds
    hf/                    config.json and weights, as save_pretrained writes them
    batch.json             packed documents for ten optimizer steps, and the optimizer's settings
    reference.safetensors  loss of every step (fp64), gradients of the first step and parameters after the last by HF name (fp32),
                           logits before and after training, and the first step's gradients computed in fp64
Documents run one by one: what packing must equal. Everything follows from the configuration's number (seed).
"""

import argparse
import contextlib
import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

STEPS = 10
OPTIMIZER = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_grad": 1.0}

COMMON = dict(
    hidden_act="silu", max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=None,
    attention_bias=False, use_sliding_window=False, attention_dropout=0.0, initializer_range=0.02)  # fmt: skip
DENSE = dict(vocab_size=199, hidden_size=48, intermediate_size=80, num_hidden_layers=3)
MOE = dict(DENSE, moe_intermediate_size=24, num_experts=8, num_experts_per_tok=2, decoder_sparse_step=1, mlp_only_layers=[])

# name -> fields; "save" is how it is stored.
CONFIGS = {
    # The shape of the published MoE models: grouped queries, renormalised top-k, nothing tied. In several shards.
    "moe": dict(MOE, num_attention_heads=4, num_key_value_heads=2, head_dim=16, norm_topk_prob=True, tie_word_embeddings=False,
                save=dict(max_shard_size="60KB")),
    # Probabilities as they are, tied embeddings, a head_dim that is not hidden/heads (12) and no power of two.
    "moe_plain_topk_tied": dict(MOE, num_attention_heads=4, num_key_value_heads=1, head_dim=22, norm_topk_prob=False, num_experts=16,
                                num_experts_per_tok=4, tie_word_embeddings=True),
    # Every second layer MoE, and one of these made dense again.
    "moe_mixed": dict(MOE, num_attention_heads=6, num_key_value_heads=6, head_dim=8, norm_topk_prob=True, tie_word_embeddings=False,
                      num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3]),
    "moe_yarn": dict(MOE, num_attention_heads=8, num_key_value_heads=2, head_dim=12, norm_topk_prob=True, tie_word_embeddings=True,
                     max_position_embeddings=64, rope_theta=1000.0,
                     rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
    # One expert a token, stored in bf16.
    "moe_top1_bf16": dict(MOE, num_attention_heads=4, num_key_value_heads=2, head_dim=16, norm_topk_prob=False, num_experts=5, num_experts_per_tok=1,
                          tie_word_embeddings=False, save=dict(dtype=torch.bfloat16)),
    "dense_tied": dict(DENSE, num_attention_heads=3, num_key_value_heads=1, head_dim=18, tie_word_embeddings=True),
    "dense_yarn": dict(DENSE, num_attention_heads=4, num_key_value_heads=4, head_dim=16, tie_word_embeddings=False, rms_norm_eps=1e-5,
                       rope_theta=5000.0, max_position_embeddings=48,
                       rope_scaling={"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 24, "beta_fast": 16.0, "beta_slow": 2.0,
                                     "attention_factor": 1.25}),
}  # fmt: skip


def build(name):
    """The model with random weights: large enough that routing, attention and norms are far from degenerate."""
    fields = {k: v for k, v in CONFIGS[name].items() if k != "save"}
    moe = "num_experts" in fields
    config = (Qwen3MoeConfig if moe else Qwen3Config)(**{**COMMON, **fields})
    config._attn_implementation = "eager"
    model = (Qwen3MoeForCausalLM if moe else Qwen3ForCausalLM)(config)
    generator = torch.Generator().manual_seed(list(CONFIGS).index(name))
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.copy_(1 + 0.2 * noise)  # norms
            elif "embed_tokens" in key:
                p.copy_(0.08 * noise)
            else:
                p.copy_(noise * (2.0 if "mlp.gate.weight" in key else 1.2) / math.sqrt(p.shape[1]))
    if CONFIGS[name].get("save", {}).get("dtype"):
        model.to(CONFIGS[name]["save"]["dtype"])
    return model


def make_batch(name, vocab_size):
    """Ten micro-batches of packed documents, among them one of a single token, which has no target."""
    generator = torch.Generator().manual_seed(1000 + list(CONFIGS).index(name))
    steps = []
    for _ in range(STEPS):
        tokens, targets, positions, documents = [], [], [], []
        for length in torch.randperm(6, generator=generator).tolist():
            length = [1, 2, 7, 13, 29, 44][length]
            ids = torch.randint(vocab_size, (length,), generator=generator).tolist()
            documents.append([len(tokens), len(tokens) + length])
            tokens += ids
            targets += ids[1:] + [-1]
            positions += range(length)
        steps.append({"tokens": tokens, "targets": targets, "positions": positions, "documents": documents})
    return {"optimizer": OPTIMIZER, "steps": steps}


def loss_of(model, step):
    """Sum over all targets of the documents, each run alone, divided by their number."""
    total, count = 0.0, 0
    for begin, end in step["documents"]:
        if end - begin < 2:
            continue
        ids = torch.tensor([step["tokens"][begin:end]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        count += end - begin - 1
    return total / count


def logits_of(model, step):
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([step["tokens"][b:e]]), use_cache=False).logits[0] for b, e in step["documents"]])


def train(model, batch):
    """Ten AdamW steps (decoupled decay, none on norms; clipping): losses, the first gradients, the last parameters."""
    settings = batch["optimizer"]
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=(settings["beta1"], settings["beta2"]), eps=settings["eps"])
    losses, gradients = [], {}
    for step in batch["steps"]:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        losses.append(loss.item())
        for p in model.parameters():
            if p.grad is None:  # an expert without tokens: the same state as a gradient of zero
                p.grad = torch.zeros_like(p)
        if not gradients:
            gradients = {k: p.grad.clone() for k, p in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_grad"])
        optimizer.step()
    return losses, gradients, {k: p.detach().clone() for k, p in model.named_parameters()}


@contextlib.contextmanager
def everything_in_fp64():
    """transformers casts to fp32 in norms and softmax even where the model is fp64: for the reference it shall not."""
    softmax, to = torch.nn.functional.softmax, torch.Tensor.to

    def softmax64(x, *args, dtype=None, **kwargs):
        return softmax(x, *args, dtype=x.dtype if x.dtype == torch.float64 else dtype, **kwargs)

    def to64(self, *args, **kwargs):
        if self.dtype == torch.float64 and args and args[0] == torch.float32:
            return self
        return to(self, *args, **kwargs)

    torch.nn.functional.softmax, torch.Tensor.to = softmax64, to64
    try:
        yield
    finally:
        torch.nn.functional.softmax, torch.Tensor.to = softmax, to


def fp64_gradients(model, step):
    model = model.double()
    model.zero_grad(set_to_none=True)
    with everything_in_fp64():
        loss = loss_of(model, step)
        assert loss.dtype == torch.float64
        loss.backward()
    return loss.item(), {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}


def make(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model = build(name)
    save = CONFIGS[name].get("save", {})
    model.save_pretrained(folder / "hf", **({"max_shard_size": save["max_shard_size"]} if "max_shard_size" in save else {}))
    batch = make_batch(name, model.config.vocab_size)
    (folder / "batch.json").write_text(json.dumps(batch))
    # From the file, as any user would: `model.to(bfloat16)` above also rounded RoPE's frequencies.
    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32, attn_implementation="eager")
    state = {k: v.clone() for k, v in model.state_dict().items()}
    out = {"logits_before": logits_of(model, batch["steps"][0])}
    losses, gradients, parameters = train(model, batch)
    out["logits_after"] = logits_of(model, batch["steps"][0])
    out["loss"] = torch.tensor(losses, dtype=torch.float64)
    model.load_state_dict(state)
    loss64, gradients64 = fp64_gradients(model, batch["steps"][0])
    out["loss64"] = torch.tensor([loss64], dtype=torch.float64)
    out |= {"grad." + k: v for k, v in gradients.items()}
    out |= {"grad64." + k: v for k, v in gradients64.items()}
    out |= {"param." + k: v for k, v in parameters.items()}
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "reference.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=list(CONFIGS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        make(name, arguments.out / name)


if __name__ == "__main__":
    main()
