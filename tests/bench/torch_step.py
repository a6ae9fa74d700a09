#!/usr/bin/env python3
"""The peer: transformers' Qwen3 / Qwen3-MoE trained by PyTorch on random tokens. Prints JSON: seconds of each step, peak RSS, start-up.

usage: torch_step.py CONFIG.json STEPS SEQUENCES SEQ_LENGTH eager|compile"""
import json
import resource
import sys
import time

begin = time.monotonic()
import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

config, steps, sequences, length, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
torch.manual_seed(1)
torch.set_num_threads(int(__import__("os").environ.get("OMP_NUM_THREADS", "2")))
torch.set_flush_denormal(True)
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config), attn_implementation="sdpa", torch_dtype=torch.float32)
model.train()
forward = torch.compile(model) if mode == "compile" else model
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
seconds, first = [], None
for step in range(steps):
    tokens = torch.randint(0, 288, (sequences, length))
    start = time.monotonic()
    loss = forward(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds.append(time.monotonic() - start)
    first = first or time.monotonic() - begin
print(json.dumps({"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "to_first_step": first, "loss": float(loss)}))
