#!/usr/bin/env python3
"""af_synth fas and has as programs: what stands in their files against what the teacher said and what the trajectories hold, real ones and hostile ones.

usage: pipeline_suite.py BUILD_DIR   (real trajectories from AF_TEST_DATA)

The checks of contrastive texts are also run on texts that were spoilt, and must find it. Closes with "N passed, N failed, N skipped"."""
import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import REAL_DATA, Checks, json_lines  # noqa: E402
from endpoint import Endpoint, environment  # noqa: E402
from policy import documents, policy, trajectories, year  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1]).resolve() / "bin"
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_pipeline_"))
DATA = REAL_DATA / "trajectories.jsonl"
check = Checks()


def run(program, *arguments):
    return subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment(), cwd=WORK)


def lines(name):
    return json_lines(WORK / name)


def text_of(sample):
    return "".join(segment["text"] for segment in sample["segments"])


def wrong_with(messages, sample):
    """What is wrong with a contrastive text, as the messages of its trajectory say it must be; read from the text alone. None: nothing."""
    text, at = text_of(sample), 0
    solutions = sample["style"] == "solutions"
    turns = [m for m in messages if m["role"] != "system"]
    question = turns[0]["content"].split("\n\nUser: ")[-1].strip()

    def take(expected):
        nonlocal at
        if not text.startswith(expected, at):
            return False
        at += len(expected)
        return True

    if not take(question + "\n"):
        return "the question"
    steps = turns[1::2]
    if len(sample["decisions"]) != len(steps):
        return "the number of decisions"
    for k, (step, decision) in enumerate(zip(steps, sample["decisions"])):
        count, chosen = decision["options"], decision["chosen"]
        head = "Solution [{}]:\n" if solutions else "Option {}:\n"
        said = f"I choice Solution [{chosen}]\n" if solutions else f"I will choose option {chosen}\n"
        if solutions and not take(f"I have {count} solutions\n"):
            return "the number of solutions"
        real = f"{head.format(chosen)}{step['content']}\n" + (head.format(chosen + 1) if chosen < count else said)
        end = text.find("\n" + said, at)
        if end < 0:
            return f"the decision of step {k + 1}"
        options = text[at : end + 1 + len(said)]
        if options.count(real) != 1 or not options.startswith(head.format(1)) or any(options.count("\n" + head.format(i)) != 1 for i in range(2, count + 1)):
            return f"the options of step {k + 1}"
        at += len(options)
        response = turns[2 * k + 2]["content"] if 2 * k + 2 < len(turns) else None
        if response is not None:
            if not take(response):
                return f"the response of step {k + 1}"
            if {"role": "observation", "text": response} != sample["segments"][decision["segment"] + 1]:
                return f"the response's segment at step {k + 1}"
            if not response.endswith("\n") and not take("\n"):
                return "the line's end"
    word = "Correct" if sample["outcome"] else "Incorrect"
    if not take(f"My decision is [{word}]\n" if solutions else f"My decision is {word}\n") or at != len(text):
        return "the judgement"
    return None


def chi_square(counts, expected):
    return sum((n - e) ** 2 / e for n, e in zip(counts, expected))


def test_real_trajectories():
    if not DATA.exists():
        return check.skip("real trajectories (set AF_TEST_DATA to a folder with trajectories.jsonl)")
    sources = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    counts, expected = collections.Counter(), collections.Counter()
    for wording in ("decision", "solutions"):
        for seed in (1, 2, 3):
            result = run("af_synth", "has", "--trajectories", DATA, "--options", "3..5", "--wording", wording, "--max-tokens", 32768, "--seed", seed,
                         "--output", WORK / "has.jsonl")
            samples = lines("has.jsonl") if result.returncode == 0 else []
            problems = [f"{s['id']}: {wrong_with(source['messages'], s)}" for source, s in zip(sources, samples) if wrong_with(source["messages"], s)]
            check.none(f"{len(sources)} real trajectories, {wording}, seed {seed}: every response to the byte",
                  problems if len(samples) == len(sources) == 120 else [result.stderr, len(samples)])
            for sample in samples:
                for decision in sample["decisions"]:
                    counts[decision["options"], decision["chosen"]] += 1
                    for place in range(decision["options"]):
                        expected[decision["options"], place + 1] += 1 / decision["options"]
    check("the judgements are of both kinds", 40 < sum(s["outcome"] for s in samples) < 110)
    places = sorted(expected)
    value = chi_square([counts[p] for p in places], [expected[p] for p in places])
    spoilt = chi_square([expected[p] * p[0] if p[1] == 1 else 0 for p in places], [expected[p] for p in places])
    check(f"where the real step stands is uniform: chi-square {value:.1f} with 9 degrees of freedom; never shuffled it were {spoilt:.0f}", value < 27.9 < spoilt)
    mutants = {"a byte of a response": lambda s, d: s["segments"][d + 1].update(text=s["segments"][d + 1]["text"].replace("e", "a", 1)),
               "white space at a response's end": lambda s, d: s["segments"][d + 1].update(text=s["segments"][d + 1]["text"].rstrip(">") + " >"),
               "another position": lambda s, d: s["decisions"][0].update(chosen=s["decisions"][0]["chosen"] % s["decisions"][0]["options"] + 1),
               "another outcome": lambda s, d: s.update(outcome=not s["outcome"]),
               "a step": lambda s, d: [segment.update(text=segment["text"].replace("search", "seek")) for segment in s["segments"] if segment["role"] == "action"]}
    for what, spoil in mutants.items():
        missed = 0
        for source, sample in zip(sources, lines("has.jsonl")):
            spoil(sample, sample["decisions"][0]["segment"])
            missed += wrong_with(source["messages"], sample) is None
        check(f"spoilt by {what} it is found", missed == 0)
    both = run("af_synth", "has", "--trajectories", DATA, "--output", WORK / "both.jsonl")
    styles = collections.Counter(s["style"] for s in lines("both.jsonl")) if both.returncode == 0 else {}
    check("both wordings in one file", len(styles) == 2 and min(styles.values()) > 35)
    if styles:
        train_on("both.jsonl")

    result = run("af_synth", "has", "--trajectories", DATA, "--options", "4..200", "--min-tokens", 65536, "--max-tokens", 131072, "--output", WORK / "long.jsonl")
    lengths = [len(text_of(s).encode()) / 4 for s in lines("long.jsonl")] if result.returncode == 0 else []
    check("long texts of 64K to 128K tokens", len(lengths) == 120 and min(lengths) >= 65535 and max(lengths) <= 131072, result.stderr + result.stdout)
    result = run("af_synth", "has", "--trajectories", DATA, "--options", 100, "--max-tokens", 8192, "--output", WORK / "short.jsonl")
    lengths = [len(text_of(s).encode()) / 4 for s in lines("short.jsonl")]
    check("options are dropped until a text is short enough", len(lengths) > 80 and max(lengths) <= 8192 and sorted(lengths)[len(lengths) // 2] > 6000, result.stdout)
    (WORK / "long.jsonl").unlink()

    result = run("af_data", "tokenize", "--tokenizer", "bytes", "--input", WORK / "has.jsonl", "--output", WORK / "has.h5")
    tokens = sum(len(text_of(s).encode()) for s in lines("has.jsonl"))
    tags = sum(text_of(s).count(tag) * (len(tag) - 1) for s in lines("has.jsonl") for tag in SPECIAL)
    check("tokenized: a token for each byte and tag", f"120 documents, {tokens - tags + 120} tokens" in result.stdout, (result.stdout + result.stderr, tokens - tags + 120))


MODEL_ON_HAS = """
output_dir: run
seed: 1
tokenizer: {path: tokenizer}
model: {model_type: qwen3_moe, vocab_size: 2048, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16,
        max_position_embeddings: 512, tie_word_embeddings: true, num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 64, rope_theta: 10000}
stages:
  - name: stage1
    seq_length: 512
    train_iters: 40
    micro_batch_size: 2
    global_batch_size: 4
    lr: {lr: 1e-2, min_lr: 1e-3, lr_decay_style: cosine, lr_warmup_iters: 2}
    data: [{path: both.h5}]
validation: {data: [{path: both.h5}], eval_interval: 0, eval_iters: 60}
checkpoint: {save_interval: 0}
"""


def train_on(name):
    """A tokenizer learned from these samples, their tokens with roles, a small MoE trained on them: its loss falls, for what each role says."""
    made = [run("af_data", "train-tokenizer", "--input", WORK / name, "--vocab-size", 2048, "--output", WORK / "tokenizer"),
            run("af_data", "tokenize", "--tokenizer", WORK / "tokenizer", "--input", WORK / name, "--output", WORK / "both.h5")]
    (WORK / "run.yaml").write_text(MODEL_ON_HAS)
    made.append(run("af_train", "run.yaml"))
    events = lines("run/metrics.jsonl") if not any(r.returncode for r in made) else []
    losses = [e["lm_loss"] for e in events if "event" not in e]
    last = sum(losses[-5:]) / 5 if losses else 0
    check(f"a small model trains on them: loss {losses[:1]} to {last:.2f}", len(losses) == 40 and losses[0] > 7.4 and last < 6.6, [r.stderr for r in made])
    roles = next((e["by_role"] for e in events if e.get("event") == "validation"), {})
    said = {"user", "thought", "action", "observation", "decision", "judgement", "answer"}
    check.none("validated for each role, each below a random model's log(2048)", [r for r in said if not 0 < roles.get(r, {"lm_loss": 9})["lm_loss"] < 7.4])


SPECIAL = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]


def hostile(folder):
    """Lines of which every third can be used."""
    good = trajectories(6).splitlines()
    step = {"role": "assistant", "content": "<think>x</think><answer>1</answer>"}
    user = {"role": "user", "content": "q"}
    bad = ['{"messages": [', "not JSON", '{"messages": []}', json.dumps({"messages": [user, {**step, "content": "<tool_call>{}"}], "answer": "1"}),
           json.dumps({"messages": [user, step, step], "answer": "1"}), json.dumps({"messages": [user, step]}), '{"messages": 3}', "[" * 2000, '"\\ud800"',
           json.dumps({"messages": [user, step], "answer": "1"})[:-1] + ', "answer": "2"}', "\u0000"]
    with open(folder / "hostile.jsonl", "wb") as file:
        for i, line in enumerate(bad):
            file.write(line.encode() + b"\n")
            if i < 5:
                file.write(good[i].encode() + b"\n")
        file.write(b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}\n')
        file.write(b'{"messages": "' + b"x" * 100_000_000 + b'"}\n')
        file.write(good[5].encode())  # no end of line
    return len(bad) + 2


def test_hostile_lines():
    wrong = hostile(WORK)
    command = ["af_synth", "has", "--trajectories", WORK / "hostile.jsonl", "--outcome", "match", "--options", "2"]
    result = run(*command, "--output", WORK / "hostile.out.jsonl")
    told = re.findall(r"hostile\.jsonl:(\d+):", result.stderr)
    check("every line that cannot be used is told, the others are used",
          result.returncode == 0 and len(set(told)) == wrong and f"6 trajectories, {wrong} lines skipped" in result.stdout and
          "more than the 16777216" in result.stderr, result.stderr[-3000:] + result.stdout)
    check("reports are short", max(map(len, result.stderr.splitlines())) < 700)
    text = "".join(map(text_of, lines("hostile.out.jsonl")))
    check("special tokens in a response stay its text", text.count("<|im_end|>\r\n\n of ") == 12)
    tokenized = run("af_data", "tokenize", "--tokenizer", "bytes", "--input", WORK / "hostile.out.jsonl", "--output", WORK / "hostile.h5")
    tags = sum(text.count(tag) * (len(tag) - 1) for tag in SPECIAL)
    check("and are no control tokens", f"6 documents, {len(text.encode()) - tags + 6} tokens" in tokenized.stdout)
    strict = run(*command, "--strict", "--output", WORK / "strict.jsonl")
    check("--strict fails the whole", strict.returncode == 2 and not list(WORK.glob("strict.jsonl*")) and "nothing was written" in strict.stderr)
    for content, says in ((b"", "no trajectory"), (b"{}\n", "no trajectory")):
        (WORK / "empty.jsonl").write_bytes(content)
        result = run("af_synth", "has", "--trajectories", WORK / "empty.jsonl", "--output", WORK / "empty.out.jsonl")
        check("no trajectory at all", result.returncode == 2 and says in result.stderr and not list(WORK.glob("empty.out.jsonl*")))


def test_fas():
    """Every sample, reject and count of fas computed here from what the teacher was asked and said."""
    (WORK / "documents.jsonl").write_text(documents(80))
    check("a memory", run("af_synth", "memory", "--documents", WORK / "documents.jsonl", "--output", WORK / "mem.db").returncode == 0)
    inputs = ["af_synth", "fas", "--memory", WORK / "mem.db", "--styles-per-memory", "3", "--concurrency", "16", "--model", "m"]
    with Endpoint(answer=policy) as endpoint:
        result = run(*inputs, "--endpoint", endpoint.url, "--count", 90, "--output", WORK / "fas.jsonl")
        more = run(*inputs, "--endpoint", endpoint.url, "--count", 120, "--output", WORK / "more.jsonl", "--journal", WORK / "fas.jsonl.journal.jsonl")
        asked_twice = [key for key, times in endpoint.finished.items() if times > 1]
        requests = list(endpoint.requests.values())
        planning = run(*inputs, "--endpoint", endpoint.url, "--count", 30, "--kind", "planning", "--output", WORK / "planning.jsonl")
        short = run(*inputs, "--endpoint", endpoint.url, "--count", 30, "--max-length", "12", "--min-length", "1", "--output", WORK / "short.jsonl")
    samples = lines("fas.jsonl") if result.returncode == 0 else []
    check("fas", samples, result.stderr)
    check("a larger --count goes on from a smaller", more.returncode == 0 and lines("more.jsonl")[: len(samples)] == samples and not asked_twice)
    by_prompt = {request["messages"][0]["content"]: request for request in requests}
    questions = {p: by_prompt[p] for p in by_prompt if p.startswith("You write questions")}
    check("one question a prompt, of 3 styles for a memory", len(questions) == 120 and
          all(n == 3 for n in collections.Counter(re.search(r"<knowledge>.*?</knowledge>", p, re.S)[0] for p in questions).values()))
    # What must be kept: plans that can be read and call a tool that exists, and that the judge keeps; reasoning with the right year.
    wanted, counts = set(), collections.Counter()
    for prompt, request in by_prompt.items():
        if "Do only the first step" in prompt:
            question = prompt.split("The question:\n")[1].split("\n\nDo only")[0]
            judged = [policy(r) for p, r in by_prompt.items() if p.startswith("You judge") and f"The question:\n{question}\n" in p]
            invalid = "telephone" in policy(request)
            counts["invalid tool"] += invalid
            check("a judge is asked unless the tool is invalid", bool(judged) != invalid, question)
            for verdict in judged:
                verdict = verdict.split(">")[1].split("<")[0].replace("_", " ")
                counts[verdict] += 1
                if verdict == "keep":
                    wanted.add(("fas_planning", question))
        elif prompt.startswith("Below are a question"):
            question = prompt.split("The question:\n")[1].split("\n\nThe knowledge")[0]
            right = year(int(re.search(r"case (\d+)", question)[1]))
            if f"<answer>{right}</answer>" in policy(request):
                wanted.add(("fas_reasoning", question))
            else:
                counts["wrong answer"] += 1
    kept = {(s["kind"], s["segments"][0]["text"].rstrip("\n")) for s in lines("more.jsonl")}
    check.none(f"kept is what the judges and the answers say ({len(kept)} samples)", sorted(kept ^ wanted))
    ignored = wanted | {("fas_planning", q) for k, q in wanted if k == "fas_reasoning"}
    check("a judge that is ignored would be found", ignored != wanted)
    table = dict((name.strip(), int(n)) for name, n in re.findall(r"^  (\D+?) +(\d+)$", more.stdout, re.M))
    reported = {r: sum(1 for line in lines("more.jsonl.rejects.jsonl") if line["reason"] == r) for r in counts if r != "keep"}
    check("rejects are counted by class", all(reported[r] == counts[r] for r in reported) and all(counts[c] > 0 for c in
          ("content inconsistency", "search necessity", "logic discontinuity", "invalid tool", "wrong answer")), (reported, counts))
    check.none("and the table has every class", [c for c in ("content inconsistency", "search necessity", "logic discontinuity", "invalid tool", "wrong answer") if c not in table])
    check("samples name their entities", all(s["entities"] and all(e.startswith("Harbour") for e in s["entities"]) for s in samples))
    check("--kind planning", planning.returncode == 0 and {s["kind"] for s in lines("planning.jsonl")} == {"fas_planning"} and "reasoning" not in planning.stdout.split("answers")[0])
    check("--max-length", short.returncode == 0 and lines("short.jsonl") == [] and "too long" in {r["reason"] for r in lines("short.jsonl.rejects.jsonl")})


def test_prompts_and_tools():
    (WORK / "prompts").mkdir()
    (WORK / "prompts" / "has_alternatives.txt").write_text("MY PROMPT Propose {count} of {question} after {history}\n")
    (WORK / "tools.json").write_text(json.dumps([{"type": "function", "function": {"name": "telephone", "description": "d", "parameters": {
        "type": "object", "properties": {"query": {"type": "array", "items": {"type": "string"}}}, "required": ["query"]}}}]))
    (WORK / "trajectories.jsonl").write_text(trajectories(4))
    inputs = ["af_synth", "has", "--trajectories", WORK / "trajectories.jsonl", "--model", "m", "--output", WORK / "own.jsonl"]
    with Endpoint(answer=lambda request: policy(request).replace('"search"', '"telephone"')) as endpoint:
        own = run(*inputs, "--endpoint", endpoint.url, "--prompts", WORK / "prompts", "--tools", WORK / "tools.json")
        prompts = [request["messages"][0]["content"] for request in endpoint.requests.values()]
        other = run(*inputs, "--endpoint", endpoint.url)
    check("prompts and tools of the user's", own.returncode == 0 and all(p.startswith("MY PROMPT Propose 3 of How many quays") for p in prompts) and "4 kept" in own.stdout)
    check("tools that do not exist are counted", "0 kept" in other.stdout and re.search(r"unreadable, [1-9]\d* invalid tool", other.stdout))
    (WORK / "prompts" / "has_alternatives.txt").write_text("one\n{question} {history}\n{counts}\n")
    result = run(*inputs, "--endpoint", "http://127.0.0.1:1/v1", "--prompts", WORK / "prompts")
    check("an unknown placeholder is an error with file and line", result.returncode == 2 and
          "has_alternatives.txt:3: there is no placeholder {counts} for this prompt; did you mean {count}?" in result.stderr, result.stderr)
    for options, says in ((["--options", "1"], "--options 1: expected"), (["--options", "5..2"], "--options 5..2"), (["--max-tokens", "0"], "--max-tokens 0"),
                          (["--min-tokens", "9", "--max-tokens", "8"], "--max-tokens 8: expected 9"), (["--split", "train"], "--split: only for the offline teacher"),
                          (["--prompts", "."], "--prompts: only for a teacher behind an endpoint"), (["--teacher", "endpoint"], "--endpoint URL is missing"),
                          (["--tokenizer", "/nowhere"], "/nowhere"), (["--outcome", "maybe"], "expected given or match or either"),
                          (["--rejects", WORK / "trajectories.jsonl"], "trajectories.jsonl: is the input itself"), (["--rejects", WORK], "is a folder")):
        result = run("af_synth", "has", "--trajectories", WORK / "trajectories.jsonl", "--output", WORK / "x.jsonl", *options)
        check(f"{options} is refused", result.returncode == 2 and says in result.stderr and not list(WORK.glob("x.jsonl*")), result.stderr)


def main():
    try:
        for test in (test_real_trajectories, test_hostile_lines, test_fas, test_prompts_and_tools):
            test()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
