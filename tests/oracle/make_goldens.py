"""Makes tests/oracle/goldens: models and batches so small that they are committed, and what PyTorch computes with them (fp32). The test
tests/launch/golden_test.cc keeps the comparison with transformers alive where there is no PyTorch.

    make_goldens.py [OUT_DIR]
"""

import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

import make_models

SMALL = dict(vocab_size=61, hidden_size=20, intermediate_size=28)
SMALL_MOE = dict(SMALL, moe_intermediate_size=12, num_experts=6, num_experts_per_tok=2, decoder_sparse_step=1, mlp_only_layers=[])
GOLDENS = {
    # Dense and MoE layers, renormalised top-k, nothing tied, YaRN; two shards.
    "moe_mixed_yarn": dict(SMALL_MOE, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=6, norm_topk_prob=True,
                           tie_word_embeddings=False, mlp_only_layers=[1], rope_theta=1000.0,
                           rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, save=dict(max_shard_size="40KB")),
    "moe_plain_topk_tied": dict(SMALL_MOE, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=14, norm_topk_prob=False,
                                num_experts_per_tok=3, tie_word_embeddings=True),
    "dense_tied": dict(SMALL, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=10, tie_word_embeddings=True),
}  # fmt: skip


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "goldens"
    torch.set_num_threads(1)
    make_models.CONFIGS = GOLDENS
    for name in GOLDENS:
        shutil.rmtree(out / name, ignore_errors=True)
        make_models.make(name, out / name)
        path = out / name / "reference.safetensors"
        kept = {k: v for k, v in load_file(path).items() if k == "loss" or k.startswith(("grad.", "param."))}
        save_file(kept, path)


if __name__ == "__main__":
    main()
