"""What the model writes, and what it holds for likely, against transformers on the same weights.

    generation.py MODELS_DIR BUILD_DIR OUT_DIR

* Every model of make_models.py (dense and MoE, with and without YaRN): greedy generation with a cache, the prompts side by side, is
  transformers' token for token, also with a repetition penalty. The mutants (another rope_theta, YaRN taken away, another top-k rule) differ.
* Temperature, top-p and repetition penalty give the probabilities of transformers' logits processors.
* af_eval likelihood: the log-likelihood of every candidate of every question is transformers' for its whole text; with another rope_theta it is not.
"""

import argparse
import json
import pathlib
import shutil
import sys

import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, json_lines, must  # noqa: E402

COUNT = 24  # tokens that are written
PENALTY = 1.4
PROBABILITY_BOUND = 1e-6
LIKELIHOOD_BOUND = 2e-4  # nats, of a candidate
END = 256  # the byte tokenizer's first special token


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def probe(build, folder, request, out):
    out.mkdir(parents=True, exist_ok=True)
    (out / "request.json").write_text(json.dumps(request))
    must(build / "tests" / "generation_probe", folder, out / "request.json", out / "answer.json")
    return json.loads((out / "answer.json").read_text())


def generated(model, prompts, penalty):
    """One by one: no padding."""
    out = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True, max_new_tokens=COUNT, min_new_tokens=COUNT,
                                     repetition_penalty=penalty, eos_token_id=None, pad_token_id=0)  # fmt: skip
        out.append(written[0, len(prompt):].tolist())
    return out


def prompts_for(vocab_size, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(vocab_size, (n,), generator=generator).tolist() for n in (1, 2, 5, 9, 17, 24)]


def mutants(config):
    yield "another rope_theta", {**config, "rope_theta": 3 * config["rope_theta"]}
    if config.get("rope_scaling"):
        yield "no YaRN", {**config, "rope_scaling": None}
    if "norm_topk_prob" in config and config["num_experts_per_tok"] > 1:
        yield "another top-k rule", {**config, "norm_topk_prob": not config["norm_topk_prob"]}


def check_greedy(check, name, models, build, out):
    folder = models / name / "hf"
    config = json.loads((folder / "config.json").read_text())
    model = load(folder)
    prompts = prompts_for(config["vocab_size"], len(name))
    expected = {}
    for penalty in (1.0, PENALTY):
        expected[penalty] = generated(model, prompts, penalty)
        ours = probe(build, folder, {"prompts": prompts, "count": COUNT, "repetition_penalty": penalty, "draws": []}, out / name)["greedy"]
        check(f"{name}: greedy generation, repetition penalty {penalty}", ours == expected[penalty], f"{ours} {expected[penalty]}")
    check(f"{name}: the penalty changes something", expected[1.0] != expected[PENALTY])
    for what, other in mutants(config):
        mutant = out / name / "mutant"
        shutil.rmtree(mutant, ignore_errors=True)
        shutil.copytree(folder, mutant)
        (mutant / "config.json").write_text(json.dumps(other))
        ours = probe(build, mutant, {"prompts": prompts, "count": COUNT, "repetition_penalty": 1.0, "draws": []}, out / name)["greedy"]
        check(f"{name}: the mutant '{what}' must be caught", ours != expected[1.0])


def processed(draw):
    ids, scores = torch.tensor([draw["before"]], dtype=torch.long), torch.tensor([draw["logits"]])
    if draw["repetition_penalty"] != 1:
        scores = RepetitionPenaltyLogitsProcessor(draw["repetition_penalty"])(ids, scores)
    if draw["temperature"] != 1:
        scores = TemperatureLogitsWarper(draw["temperature"])(ids, scores)
    if draw["top_p"] < 1:
        scores = TopPLogitsWarper(draw["top_p"])(ids, scores)
    return torch.softmax(scores[0].double(), -1)


def check_draws(check, models, build, out):
    generator = torch.Generator().manual_seed(5)
    draws = []
    for temperature in (1.0, 0.6, 1.7):
        for top_p in (1.0, 0.95, 0.5, 0.05):
            for penalty in (1.0, 1.3, 0.9):
                logits = (4 * torch.randn(300, generator=generator)).tolist()
                before = torch.randint(300, (40,), generator=generator).tolist()
                draws.append({"logits": logits, "before": before, "temperature": temperature, "top_p": top_p, "repetition_penalty": penalty})
    folder = sorted(models.iterdir())[0] / "hf"
    ours = probe(build, folder, {"prompts": [[1]], "count": 1, "repetition_penalty": 1.0, "draws": draws}, out / "draws")["probabilities"]
    penalties = 0
    for draw, probabilities in zip(draws, ours):
        worst = (torch.tensor(probabilities, dtype=torch.float64) - processed(draw)).abs().max().item()
        name = ", ".join(f"{k} {v}" for k, v in draw.items() if k not in ("logits", "before"))
        check(f"draws: {name}", worst <= PROBABILITY_BOUND, f"off by {worst:.2e}")
        def other(key):
            return (torch.tensor(probabilities, dtype=torch.float64) - processed({**draw, key: 1.05 * draw[key]})).abs().max().item() > PROBABILITY_BOUND

        several = sum(p > 0 for p in probabilities) > 1  # one token that is left alone is certain at any temperature
        check(f"draws: {name}: the mutant 'another temperature' must be caught", other("temperature") or not several)
        penalties += other("repetition_penalty")  # not where no likely token occurred before
    check("draws: the mutant 'another repetition penalty' must be caught", penalties >= len(draws) / 2, f"{penalties} of {len(draws)}")


def has_samples():
    """Both wordings; as many options as are one byte, and more; a judgement; an answer that is the beginning of another."""
    samples = []
    for i in range(8):
        solutions, options = i % 2 == 1, 12 if i % 4 > 1 else 4
        segments, decisions = [{"role": "user", "text": f"Who maintains café {i}?\n"}], []
        for k in range(1 + i % 2):
            if solutions:
                segments.append({"role": "other", "text": f"I have {options} solutions\n"})
            for j in range(options):
                segments.append({"role": "other", "text": f"Solution [{j + 1}]:\n" if solutions else f"Option {j + 1}:\n"})
                segments.append({"role": "thought", "text": f"<think>try {(i * j + k) % 5}</think>\n"})
            chosen = 1 + (3 * i + k) % options
            decisions.append({"segment": len(segments), "options": options, "chosen": chosen})
            segments.append({"role": "decision", "text": f"I choice Solution [{chosen}]\n" if solutions else f"I will choose option {chosen}\n"})
            segments.append({"role": "observation", "text": f"found {i} results\n"})
        word = "Correct" if i % 3 else "Incorrect"
        segments.append({"role": "judgement", "text": f"My decision is [{word}]\n" if solutions else f"My decision is {word}\n"})
        samples.append({"id": f"h{i}", "kind": "has", "style": "solutions" if solutions else "decision", "entities": [], "segments": segments, "answer": "x",
                        "decisions": decisions, "outcome": word == "Correct", "teacher": "none"})  # fmt: skip
    for i, answer in enumerate(["New", "New York", "Ulm", "12", "1"]):
        segments = [{"role": "user", "text": f"Where {i}?\n"}, {"role": "answer", "text": f"<answer>{answer}</answer>\n"}]
        samples.append({"id": f"f{i}", "kind": "fas_reasoning", "style": "factual", "entities": [], "segments": segments, "answer": answer, "decisions": [], "teacher": "none"})
    return samples


def encode(text):
    """The byte tokenizer; of Qwen's special tokens these texts hold <think> and </think> only."""
    out = []
    while text:
        tag = next((t for t in ("<think>", "</think>") if text.startswith(t)), None)
        out += [END + 24 + (tag == "</think>")] if tag else list(text[0].encode())
        text = text[len(tag or text[0]):]
    return out


def likelihoods(model, before, candidates):
    """log p(candidate | before) of each, the whole text at once; a candidate is tokenized with what stands before it."""
    first, out = encode(before), []
    for candidate in candidates:
        ids = encode(before + candidate)
        with torch.no_grad():
            logits = torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double(), -1)
        out.append(sum(logits[t - 1, ids[t]].item() for t in range(len(first), len(ids))))
    return torch.tensor(out)


def asked(sample, line, samples):
    """The text before the question, and its candidates, as far as they follow from the sample alone."""
    texts = [s["text"] for s in sample["segments"]]
    if line["question"] == "judgement":
        word = "Correct" if sample["outcome"] else "Incorrect"
        return "".join(texts[:-1]), [texts[-1].replace(word, other) for other in ("Correct", "Incorrect")]
    decision = sample["decisions"][line["step"] - 1]
    if line["question"] == "option":  # each in the place of the first
        heads = [max(i for i in range(decision["segment"]) if texts[i].endswith((f"Option {k + 1}:\n", f"Solution [{k + 1}]:\n"))) for k in range(decision["options"])]
        ends = [*heads[1:], decision["segment"]]
        return "".join(texts[: heads[0] + 1]), ["".join(texts[head + 1 : end]).rstrip("\n") for head, end in zip(heads, ends)]
    text, chosen = texts[decision["segment"]], str(decision["chosen"])
    return "".join(texts[: decision["segment"]]), [text.replace(chosen, str(i + 1)) for i in range(decision["options"])]


def check_likelihood(check, build, out):
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    config = Qwen3MoeConfig(vocab_size=288, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                            moe_intermediate_size=24, num_experts=8, num_experts_per_tok=2, max_position_embeddings=2048, rope_theta=10000.0, norm_topk_prob=True,
                            initializer_range=0.3, tie_word_embeddings=False)  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(out / "hf")
    model, samples = load(out / "hf"), has_samples()
    (out / "samples.jsonl").write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples))
    must(build / "bin" / "af_eval", "likelihood", "--hf", out / "hf", "--tokenizer", "bytes", "--input", out / "samples.jsonl", "--output", out / "lines.jsonl")
    shutil.copytree(out / "hf", out / "mutant")
    (out / "mutant" / "config.json").write_text(json.dumps({**json.loads((out / "hf" / "config.json").read_text()), "rope_theta": 20000.0}))
    must(build / "bin" / "af_eval", "likelihood", "--hf", out / "mutant", "--tokenizer", "bytes", "--input", out / "samples.jsonl", "--output", out / "mutant.jsonl")
    mutants = [line["log_likelihoods"] for line in json_lines(out / "mutant.jsonl")]
    by_id = {s["id"]: s for s in samples}
    lines = json_lines(out / "lines.jsonl")
    check("likelihood: questions", len(lines) == 2 * 12 + 8 + 5, f"{len(lines)}")
    for line in lines:
        sample, ours = by_id[line["id"]], torch.tensor(line["log_likelihoods"], dtype=torch.float64)
        name = f"likelihood: {line['id']} {line['question']} {line.get('step', '')}"
        check(f"{name}: the likeliest", line["chosen"] == ours.argmax().item() + 1)
        if line["question"] == "answer":  # which others it stands against is drawn: the right one alone
            before = "".join(s["text"] for s in sample["segments"][:-1]) + "<answer>"
            theirs = likelihoods(model, before, [sample["answer"] + "</answer>\n"])
            worst = abs(ours[line["right"] - 1] - theirs[0]).item()
        else:
            before, candidates = asked(sample, line, samples)
            theirs = likelihoods(model, before, candidates)
            if len(candidates) < 10 and line["question"] == "decision":  # the number alone: without the words that all share and what ends them
                number = candidates[0].index("1")
                theirs = likelihoods(model, before + candidates[0][:number], [str(i + 1) for i in range(len(candidates))])
                worst = (ours - theirs).abs().max().item()
            else:  # words that all share come off
                worst = ((ours - ours[0]) - (theirs - theirs[0])).abs().max().item()
            check(f"{name}: the right one", line["right"] == (candidates.index(sample["segments"][-1]["text"]) + 1 if line["question"] == "judgement"
                                                              else sample["decisions"][line["step"] - 1]["chosen"]))  # fmt: skip
        check(name, worst <= LIKELIHOOD_BOUND, f"off by {worst:.2e}")
    moved = [max(abs(a - b) for a, b in zip(line["log_likelihoods"], other)) > 10 * LIKELIHOOD_BOUND for line, other in zip(lines, mutants)]
    check("likelihood: the mutant 'another rope_theta' must be caught", sum(moved) > 0.9 * len(lines), f"by {sum(moved)} of {len(lines)}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("models", "build", "out"):
        parser.add_argument(name, type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    check, out = Checks(), arguments.out
    shutil.rmtree(out, ignore_errors=True)
    for folder in sorted(p for p in arguments.models.iterdir() if p.is_dir()):
        check_greedy(check, folder.name, arguments.models, arguments.build, out)
    check_draws(check, arguments.models, arguments.build, out)
    check_likelihood(check, arguments.build, out / "likelihood")
    raise SystemExit(check.close())


if __name__ == "__main__":
    main()
