#!/usr/bin/env python3
"""The endpoint teacher against an endpoint that fails in every way: nothing lost, nothing twice, and what is wrong is said.

usage: endpoint_suite.py BUILD_DIR

Each check is also run on a client that was spoilt (no retries, no journal) and must find it. Closes with "N passed, N failed, N skipped"."""
import collections
import pathlib
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, json_lines  # noqa: E402
from endpoint import FINAL, PASSING, Endpoint, default_answer, environment, journal_lines  # noqa: E402
from policy import documents, policy, trajectories  # noqa: E402

PROBE = pathlib.Path(sys.argv[1]).resolve() / "tests" / "teacher_probe"
SYNTH = pathlib.Path(sys.argv[1]).resolve() / "bin" / "af_synth"
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_endpoint_"))
SECRET = "sk-secret-0123456789"
check = Checks()


def command(endpoint, name, items, *options):
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    return [PROBE, "--endpoint", url, "--model", "m", "--items", str(items), "--output", WORK / name, "--retry-wait", "0.05", *map(str, options)]


def run(endpoint, name, items, *options, key=SECRET, **more):
    return subprocess.run(command(endpoint, name, items, *options), capture_output=True, text=True, timeout=120, env={**environment(key), **more})


def expected(items):
    """The output, computed here from what the endpoint answers."""
    def ask(item, text):
        return default_answer({"messages": [{"role": "user", "content": text}], "seed": item})

    lines = []
    for item in range(items):
        first = ask(item, f"item {item}")
        lines.append({"item": item, "first": first, "second": ask(item, "more of " + first)})
    return lines


def output_problems(name, items):
    lines = json_lines(WORK / name)
    return [f"{len(lines)} lines for {items} items"] if len(lines) != items else [f"item {i} is wrong" for i, e in enumerate(expected(items)) if lines[i] != e]


def leaks(name, result):
    texts = [result.stdout, result.stderr] + [p.read_text(errors="replace") for p in WORK.glob(name + "*")]
    return ["the key, or half of it, is written somewhere"] if any(SECRET[:8] in text for text in texts) else []


def test_concurrency():
    items = 192
    with Endpoint(latency=0.3) as endpoint:
        begin = time.time()
        result = run(endpoint, "many", items, "--concurrency", 64)
        seconds = time.time() - begin
    check("64 requests at the same time", endpoint.most == 64, f"at most {endpoint.most} at the same time")
    check("they overlap", seconds < 0.3 * 2 * items / 8, f"{seconds:.1f} s")  # 64 at a time: 1.8 s; 8 at a time: 14 s
    check.none("all are answered", output_problems("many", items) + [e for e in [result.stderr] if result.returncode])
    check("the key comes as a bearer", endpoint.authorizations == {f"Bearer {SECRET}"})
    check.none("the key is written nowhere", leaks("many", result))
    check("tokens are accounted for", f"{22 * items}" in result.stderr.splitlines()[-1] and f"{14 * items}" in result.stderr.splitlines()[-1])
    journal = journal_lines(WORK / "many.journal")
    check("the journal holds each request once", sorted(line["key"] for line in journal) == sorted(endpoint.requests))


def faults_of(seed, slow=("slow", "429-after", "429-date")):
    """One to three faults for most requests, each kind often enough; those that cost seconds are rare."""
    kinds = [kind for kind in PASSING if kind not in ("slow", "429-after", "429-date")] * 6 + list(slow)

    def plan(request, attempt):
        draw = random.Random(f"{seed} {request['messages'][0]['content']}")
        faults = [draw.choice(kinds) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
        return faults[attempt] if attempt < len(faults) else None

    return plan


def fault_problems(endpoint, name, items, plan):
    problems = output_problems(name, items)
    attempts = collections.Counter(key for _, key, _ in endpoint.events)
    if len(endpoint.finished) != 2 * items:
        problems.append(f"{len(endpoint.finished)} of {2 * items} requests were answered")
    for key, request in endpoint.requests.items():
        faults = next(n for n in range(100) if plan(request, n) is None)
        if endpoint.finished.get(key, 0) != 1:
            problems.append(f"answered {endpoint.finished.get(key, 0)} times: {request['messages']}")
        if attempts[key] != faults + 1:
            problems.append(f"{faults} faults, {attempts[key]} attempts: {request['messages']}")
    return problems + [f"{early:.2f} s before the time that Retry-After gave" for _, early in endpoint.too_early]


def test_faults():
    items, plan = 120, faults_of(1)
    with Endpoint(plan) as endpoint:
        result = run(endpoint, "faults", items, "--concurrency", 64, "--timeout", 3)
    seen = {fault for _, _, fault in endpoint.events} - {None}
    check.none("every kind of fault came", [f"not {kind}" for kind in PASSING if kind not in seen])
    check.none("faults that pass: nothing lost, nothing twice", fault_problems(endpoint, "faults", items, plan))
    check("they are told of", "asked again in" in result.stderr and result.returncode == 0)

    def asked_to_wait(request, attempt):
        return None if attempt else ["429-after", "429-date"][request["seed"] % 2]

    with Endpoint(asked_to_wait) as endpoint:
        run(endpoint, "wait", 4, "--concurrency", 8)
    check.none("Retry-After is obeyed, in seconds and as a date", fault_problems(endpoint, "wait", 4, asked_to_wait))
    with Endpoint(plan) as endpoint:
        result = run(endpoint, "no-retries", items, "--concurrency", 64, "--timeout", 3, "--retries", 0)
    check("a client without retries is noticed", bool(fault_problems(endpoint, "no-retries", items, plan)) and result.returncode == 1)
    check("and says where it ended", " in 1 attempts; at last: " in result.stderr)


def kill_problems(name, items, spoil):
    """Killed three times, and started again; `spoil` (a function of the journal's path) is what happens in between."""
    problems, concurrency, known = [], 8, set()
    with Endpoint(latency=0.03) as endpoint:
        for answers in (2 * items // 5, 3 * items // 5, items, None):
            begin = len(endpoint.events)
            process = subprocess.Popen(command(endpoint, name, items, "--concurrency", concurrency), stderr=subprocess.PIPE, env=environment(SECRET))
            while answers and sum(endpoint.finished.values()) < answers and process.poll() is None:
                time.sleep(0.002)
            if answers:
                process.kill()
            said = process.communicate()[1].decode()
            if process.returncode != (-9 if answers else 0):
                problems.append(f"exit {process.returncode}: {said}")
                break
            time.sleep(0.1)  # what is under way ends
            asked = [key for _, key, _ in endpoint.events[begin:]]
            twice = known.intersection(asked)
            if twice:
                problems.append(f"{len(twice)} requests were asked again although their answers were in the journal")
            if not answers and len(asked) + len(known) != 2 * items:
                problems.append(f"{len(known)} answers in the journal and {len(asked)} requests do not make {2 * items}")
            known = {line["key"] for line in journal_lines(WORK / (name + ".journal"))}
            lost = set(endpoint.finished) - known
            if len(lost) > concurrency:
                problems.append(f"{len(lost)} answers are not in the journal, {concurrency} were under way")
            if answers:
                spoil(WORK / (name + ".journal"))
        extra = sum(endpoint.finished.values()) - 2 * items
        if extra > 3 * concurrency:
            problems.append(f"{extra} answers were given more than once")
    return problems + output_problems(name, items)


def torn(path):
    """As a machine that lost power leaves it: the last line cut."""
    data = path.read_bytes()
    path.write_bytes(data + b'{"key":"' + b"0" * 40)


def test_kill():
    check.none("killed and started again: no answer twice, none lost", kill_problems("killed", 120, lambda path: None))
    check.none("so with a torn last line", kill_problems("torn", 60, torn))
    check("a client without a journal is noticed", bool(kill_problems("forgets", 60, lambda path: path.unlink())))
    with Endpoint(latency=0.2) as endpoint:
        first = subprocess.Popen(command(endpoint, "two", 40, "--concurrency", 4), stderr=subprocess.DEVNULL, env=environment(SECRET))
        while not endpoint.finished:
            time.sleep(0.005)
        result = run(endpoint, "two", 40)
        check("a second process on a journal is refused", result.returncode == 2 and "another process is at work with this journal" in result.stderr)
        first.kill()
        first.wait()
    (WORK / "notes.journal").write_text("my notes\n")
    result = run("http://127.0.0.1:1/v1", "notes", 1)
    check("a file that is no journal is left alone", result.returncode == 2 and (WORK / "notes.journal").read_text() == "my notes\n")


def test_equal_requests():
    items = 60
    with Endpoint(latency=0.05) as endpoint:
        result = run(endpoint, "equal", items, "--concurrency", 32, "--prompt", "the same")
    first = [key for key, request in endpoint.requests.items() if request["messages"][0]["content"] == "the same"]
    check("another seed is another request", result.returncode == 0 and len(first) == items and set(endpoint.finished.values()) == {1})
    with Endpoint() as endpoint:
        result = run(endpoint, "extra", 1, "--request-extra", '{"top_k":20}')
        body = next(iter(endpoint.requests.values()))
    check("members beyond the standard's", result.returncode == 0 and body["top_k"] == 20 and list(body)[:2] == ["model", "messages"])
    check("the journal's key is the hash of what was sent", all(line["key"] in endpoint.requests for line in journal_lines(WORK / "extra.journal")))


def test_final():
    says = {"400": "refuses a request", "401": "does not accept the key in the environment variable OPENAI_API_KEY", "404": "no model m",
            "307": "redirects to http://127.0.0.1:1/elsewhere"}
    for fault in FINAL:
        with Endpoint(lambda request, attempt: fault) as endpoint:
            result = run(endpoint, f"final-{fault}", 20, "--concurrency", 4)
        check(f"{fault} is said once and not asked again", says[fault] in result.stderr and len(endpoint.events) <= 4 and
              result.returncode == (1 if fault == "400" else 2) and result.stderr.count(endpoint.url) == 1,
              f"exit {result.returncode}, {len(endpoint.events)} requests: {result.stderr}")
        check.none(f"{fault}: the key is written nowhere", leaks(f"final-{fault}", result))
    for fault in ("401-cut", "echo-200"):
        with Endpoint(lambda request, attempt: fault) as endpoint:
            result = run(endpoint, fault, 1, "--retries", 0)
        check(f"{fault}: no half of the key where a message is cut", "x" * 200 in result.stderr and not leaks(fault, result), result.stderr)
    with Endpoint(lambda request, attempt: "401") as endpoint:
        result = run(endpoint, "no-key", 1, key=None)
    check("a key that is missing is named", "the environment variable OPENAI_API_KEY holds none" in result.stderr and endpoint.authorizations == {None})
    for options, says in [(["--endpoint", "localhost:8000"], "expected an address such as http://localhost:8000/v1"),
                          (["--endpoint", "http://me:word@localhost/v1"], "holds a name or a password"),
                          (["--endpoint", "http://localhost/v1/chat/completions"], "without /chat/completions"),
                          (["--endpoint", "http://localhost/v1?key=a:word"], "endpoint http://localhost/v1: expected"),
                          (["--cacert", "no.pem"], "--cacert no.pem: cannot be read"),
                          (["--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE: no such environment variable is set"),
                          (["--concurrency", "0"], "expected 1 to"), (["--timeout", "-1"], "expected a number from 0.001 to 86400"), (["--model="], "--model NAME is missing"),
                          (["--request-extra", '{"n":2}'], "is set by the program itself"), (["--request-extra", "{"], "--request-extra:1:")]:
        result = run("http://127.0.0.1:1/v1", "options", 1, *options)
        check(f"{options} is refused", result.returncode == 2 and says in result.stderr and ":word" not in result.stderr, result.stderr)


def test_server_away():
    with Endpoint() as endpoint:
        port = endpoint.port
    result = run(f"http://127.0.0.1:{port}/v1", "away", 30, "--concurrency", 8, "--retries", 2)
    check("an endpoint that is away", result.returncode == 1 and "answered nothing in 3 attempts; at last: Failed to connect" in result.stderr and not (WORK / "away").exists())
    process = subprocess.Popen(command(f"http://127.0.0.1:{port}/v1", "away", 30, "--concurrency", 8), stderr=subprocess.DEVNULL, env=environment(SECRET))
    time.sleep(0.3)
    with Endpoint(port=port) as endpoint:
        process.wait(60)
    check.none("that comes back while it is asked", output_problems("away", 30) + ([] if set(endpoint.finished.values()) == {1} else ["twice"]))


def test_tls_and_proxies():
    """A certificate of our own making is refused until it is named, and then only for the host that it names; proxies are taken from the environment."""
    certificate, key = WORK / "certificate.pem", WORK / "key.pem"
    if shutil.which("openssl"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        with Endpoint(tls=tls) as endpoint:
            begin = time.time()
            result = run(endpoint, "untrusted", 20, "--concurrency", 4)
            quick = time.time() - begin < 10
            check("an unknown certificate is refused at once, with what to do", result.returncode == 2 and quick and "certificate" in result.stderr and
                  "--cacert FILE" in result.stderr and not endpoint.events and result.stderr.count(endpoint.url) == 1, result.stderr)
            (WORK / "none.pem").write_text("no certificate\n")
            result = run(endpoint, "none", 1, "--cacert", WORK / "none.pem")
            check("a file without certificates is named", result.returncode == 2 and "none.pem" in result.stderr, result.stderr)
            result = run(endpoint.url.replace("127.0.0.1", "localhost"), "other-host", 1, "--cacert", certificate)
            check("a certificate for another host is refused", result.returncode == 2 and not endpoint.events, result.stderr)
            result = run(endpoint, "trusted", 20, "--concurrency", 4, "--cacert", certificate)
            check.none("https with the certificate named", output_problems("trusted", 20) + leaks("trusted", result) + [e for e in [result.stderr] if result.returncode])
            check("the key went there", endpoint.authorizations == {f"Bearer {SECRET}"})
    else:
        check.skip("https (no openssl to make a certificate with)")
    with Endpoint() as endpoint:
        proxy = f"http://me:word@127.0.0.1:{endpoint.port}"
        result = run("http://teacher.invalid/v1", "proxy", 4, http_proxy=proxy)
        check.none("a proxy of the environment is used", output_problems("proxy", 4) + [t for t in endpoint.targets if t != "http://teacher.invalid/v1/chat/completions"])
        asked = len(endpoint.events)
        result = run("http://teacher.invalid/v1", "no-proxy", 1, "--retries", 0, http_proxy=proxy, no_proxy="teacher.invalid")
        check("but not where no_proxy says so", result.returncode == 1 and len(endpoint.events) == asked and "teacher.invalid" in result.stderr)
    result = run("http://teacher.invalid/v1", "away-proxy", 1, "--retries", 0, http_proxy=proxy)
    check("a proxy that is away: its password is not told", result.returncode == 1 and "word" not in result.stderr, result.stderr)


def synth(endpoint, what, name, inputs):
    options = ["--endpoint", endpoint.url, "--model", "m", "--concurrency", "32", "--timeout", "3", "--retry-wait", "0.05", "--output", WORK / name]
    return [SYNTH, what, *inputs, *options]


def test_programs():
    """af_synth fas and has: with faults, killed and started again, their files are those of a quiet run."""
    (WORK / "documents.jsonl").write_text(documents(60))
    (WORK / "trajectories.jsonl").write_text(trajectories(40))
    made = subprocess.run([SYNTH, "memory", "--documents", WORK / "documents.jsonl", "--output", WORK / "mem.db"], capture_output=True, text=True)
    check("a memory", made.returncode == 0, made.stderr)
    for what, inputs in (("fas", ["--memory", WORK / "mem.db", "--count", "60"]), ("has", ["--trajectories", WORK / "trajectories.jsonl"])):
        with Endpoint(answer=policy) as endpoint:
            quiet = subprocess.run(synth(endpoint, what, what, inputs), capture_output=True, text=True, env=environment(SECRET))
            wanted = (WORK / what).read_text() if quiet.returncode == 0 else ""
            requests = len(endpoint.events)
        check(f"{what}: {requests} requests, {wanted.count(chr(10))} samples", wanted.count("\n") >= 40 and requests >= 100, quiet.stderr)
        with Endpoint(faults_of(7, slow=()), answer=policy) as endpoint:
            result = subprocess.run(synth(endpoint, what, what + "-faults", inputs), capture_output=True, text=True, env=environment(SECRET))
        same = result.returncode == 0 and (WORK / (what + "-faults")).read_text() == wanted
        check(f"{what} with faults gives the same file", same and set(endpoint.finished.values()) == {1}, result.stderr)
        check(f"{what} says what was kept", "tried" in quiet.stdout and "retries" in quiet.stdout, quiet.stdout)
        with Endpoint(answer=policy, latency=0.05) as endpoint:
            for answers in (requests // 3, 2 * requests // 3):
                process = subprocess.Popen(synth(endpoint, what, what + "-killed", inputs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(SECRET))
                while sum(endpoint.finished.values()) < answers and process.poll() is None:
                    time.sleep(0.002)
                process.kill()
                process.wait()
            unfinished = not (WORK / (what + "-killed")).exists()
            time.sleep(0.1)
            known = {line["key"] for line in journal_lines(WORK / (what + "-killed.journal.jsonl"))}
            before = len(endpoint.events)
            result = subprocess.run(synth(endpoint, what, what + "-killed", inputs), capture_output=True, text=True, env=environment(SECRET))
            again = known.intersection(key for _, key, _ in endpoint.events[before:])
        same = result.returncode == 0 and unfinished and (WORK / (what + "-killed")).read_text() == wanted
        check(f"{what} killed and started again gives the same file", same and not again, (result.stderr, f"{len(again)} asked again"))


def main():
    try:
        for test in (test_concurrency, test_faults, test_kill, test_equal_requests, test_final, test_server_away, test_tls_and_proxies, test_programs):
            begin = time.time()
            test()
            print(f"{test.__name__}: {time.time() - begin:.1f} s")
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
