"""Runs that end before their work does, and go on: signals in every phase, the time limit, bad steps, another configuration at the resume."""
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time

from common import events_of, state_of, steps_of

REQUEUE = 75


class Stops:
    def __init__(self, binaries, work, check, config):
        self.bin, self.work, self.check = binaries, work, check
        one_thread = ("threads_per_rank: 2", "threads_per_rank: 1")  # so that a busy machine's runs do not take long
        self.config = lambda name, replace=(): config(name, replace=[*replace, one_thread])

    def start(self, *command):
        return subprocess.Popen([str(self.bin / command[0]), *map(str, command[1:])], cwd=self.work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *command):
        job = self.start(*command)
        output = job.communicate(timeout=300)[0]
        return job.returncode, output

    def steps(self, out):
        return steps_of(self.work / out)

    def events(self, out, name):
        return events_of(self.work / out, name)

    def weights(self, out):
        folder = self.work / f"{out}_hf"
        shutil.rmtree(folder, ignore_errors=True)
        code, output = self.run("af_checkpoint", "export-hf", f"{out}/checkpoints/latest", folder.name)
        self.check(f"{out}: export-hf", code == 0, output)
        return (folder / "model.safetensors").read_bytes() if code == 0 else b""

    def replay(self, out, step):
        code, output = self.run("af_data", "replay", "--step", step, out)
        self.check(f"{out}: replay of step {step}", code == 0, output)
        return [json.loads(line) for line in output.splitlines()][1:]

    # When a signal is to come, by what the run shows of itself.
    def handlers_in(self, job, out):
        try:
            caught = re.search(r"SigCgt:\s*(\w+)", open(f"/proc/{job.pid}/status").read())
            return caught and int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1
        except OSError:
            return False

    def stopped(self, what, out, path, when, number=signal.SIGUSR1, again=None):
        """The run's exit code and output, after the signal `number` when `when(job)` says so; `again`: another one so many seconds later."""
        job = self.start("af_train", path)
        end = time.monotonic() + 60
        while job.poll() is None and time.monotonic() < end and not when(job):
            time.sleep(0.005)
        if job.poll() is None:
            job.send_signal(number)
        if again is not None:
            time.sleep(again)
            job.send_signal(number)
        output = job.communicate(timeout=120)[0]
        return job.returncode, output

    def signals(self):
        # Evaluation and data are large enough to be hit; a run of about a second.
        longer = [("eval_interval: 6, eval_iters: 2", "eval_interval: 6, eval_iters: 12"), ("save_interval: 5", "save_interval: 4")]
        code, output = self.run("af_train", self.config("undisturbed", replace=longer))
        self.check("a run that nobody disturbs", code == 0, output)
        whole, weights = self.steps("undisturbed"), self.weights("undisturbed")
        validations = [(e["iteration"], e["lm_loss"]) for e in self.events("undisturbed", "validation")]
        folder_changes = lambda out, n: len(list((self.work / out / "checkpoints").glob("*"))) >= n if (self.work / out / "checkpoints").exists() else False
        phases = {
            "start": lambda out: lambda job: self.handlers_in(job, out),
            "data": lambda out: lambda job: self.events(out, "stage_begin"),
            "step": lambda out: lambda job: len(self.steps(out)) >= 3,
            "evaluation": lambda out: lambda job: 6 in self.steps(out),
            "save": lambda out: lambda job: folder_changes(out, 1),
            "last": lambda out: lambda job: 12 in self.steps(out),
        }
        for i, (name, when) in enumerate(phases.items()):
            out = f"stop_{name}"
            path = self.config(out, replace=longer)
            number = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)[i % 3]
            for attempt in range(4):  # on a busy machine the moment may have passed before it is seen
                code, output = self.stopped(name, out, path, when(out), number)
                at = max(self.steps(out), default=0)
                in_phase = {"start": at == 0, "evaluation": at == 6, "last": at == 12}.get(name, 0 < at < 18)
                if in_phase or attempt == 3:
                    break
                shutil.rmtree(self.work / out, ignore_errors=True)
            said = [line for line in output.splitlines() if line.startswith("stopped by")]
            self.check(f"a signal in {name}: exit 75 and one line that says why", code == REQUEUE and len(said) == 1 and number.name in said[0], f"{code}\n{output[-1500:]}")
            self.check(f"{name}: stopped in time", in_phase, str(at))
            event = self.events(out, "stop")
            self.check(f"{name}: an event", [(e["reason"], e["iteration"]) for e in event] == [(number.name, at)], str(event))
            code, output = self.run("af_train", path)
            self.check(f"{name}: goes on", code == 0 and (at == 0 or f"iteration {at})" in output), output[-1500:])
            steps = self.steps(out)
            same = all(steps[i][k] == whole[i][k] for i in whole for k in ("lm_loss", "grad_norm", "params_norm", "learning_rate", "consumed_tokens"))
            self.check(f"{name}: the steps of a run that never stopped", sorted(steps) == sorted(whole) and same)
            ours = sorted(set((e["iteration"], e["lm_loss"]) for e in self.events(out, "validation")))
            self.check(f"{name}: no evaluation is lost", ours == validations, f"{ours} {validations}")
            self.check(f"{name}: the weights of a run that never stopped", self.weights(out) == weights)
        # Moments that a seed names: how much the run has reported, and some milliseconds more.
        size = lambda out: (self.work / out / "metrics.jsonl").stat().st_size if (self.work / out / "metrics.jsonl").exists() else 0
        moments, stopped = random.Random(5), 0
        for i in range(6):
            out, share, after = f"stop_moment{i}", moments.uniform(0, 0.9), moments.uniform(0, 0.02)
            path = self.config(out, replace=longer)
            code, output = self.stopped(out, out, path, lambda job: size(out) >= share * size("undisturbed") and time.sleep(after) is None)
            stopped += code == REQUEUE
            self.check(f"a signal at {share:.2f}: 75, or all was done", code == (REQUEUE if "stopped by" in output else 0), f"{code}\n{output[-1500:]}")
            code, output = self.run("af_train", path)
            steps = self.steps(out)
            same = sorted(steps) == sorted(whole) and all(steps[i][k] == whole[i][k] for i in whole for k in ("lm_loss", "grad_norm", "params_norm"))
            self.check(f"a signal at {share:.2f}: the same run", code == 0 and same and self.weights(out) == weights, output[-1500:])
        self.check("most of them stop it", stopped >= 4, str(stopped))
        # A second request ends it at once: nothing is saved. (One that comes with the first is the first.)
        slow = [("train_iters: 12", "train_iters: 4"), ("global_batch_size: 4", "global_batch_size: 4096")]
        path = self.config("twice", replace=slow)
        code, output = self.stopped("twice", "twice", path, lambda job: self.events("twice", "stage_begin"), signal.SIGTERM, again=1.2)
        self.check("a second signal: exit 75, nothing saved", code == REQUEUE and "second time" in output and not (self.work / "twice/checkpoints").exists(),
                   f"{code}\n{output[-800:]}")
        path = self.config("both", replace=longer)
        code, output = self.stopped("both", "both", path, lambda job: self.steps("both"), signal.SIGTERM, again=0.0)
        self.check("two signals at once are one", code == REQUEUE and (self.work / "both/checkpoints/latest").exists(), f"{code}\n{output[-800:]}")

    def saved_after(self, begin):
        """Seconds from `begin` until the newest checkpoint was the newest."""
        latest = self.work / "limited/checkpoints/latest"
        return latest.lstat().st_mtime - begin if latest.is_symlink() else -1

    def time_limit(self):
        path = self.config("limited", replace=[("train_iters: 12", "train_iters: 100000"), ("save_interval: 5", "save_interval: 0"), ("eval_interval: 6", "eval_interval: 0")])
        begin = time.time()
        code, output = self.run("af_train", path, "--time-limit", "4s")
        seconds = self.saved_after(begin)
        self.check("--time-limit: saved before it, not long before", code == REQUEUE and "the time limit" in output and 1 < seconds < 4, f"{code} {seconds} {output[-500:]}")
        saved = max(self.steps("limited"))
        environment = {**os.environ, "SLURM_JOB_END_TIME": str(int(time.time()) + 5)}
        begin = time.time()
        result = subprocess.run([str(self.bin / "af_train"), str(path)], cwd=self.work, env=environment, capture_output=True, text=True, timeout=60)
        self.check("SLURM_JOB_END_TIME likewise, from there on", result.returncode == REQUEUE and f"iteration {saved})" in result.stdout and self.saved_after(begin) < 5,
                   result.stdout[-800:] + result.stderr)
        code, output = self.run("af_train", path, "--time-limit", "1s")
        self.check("no time for a step is a failure, not another start", code == 1 and "no time for a step" in output, f"{code} {output[-500:]}")
        code, output = self.run("af_train", path, "--time-limit", "soon")
        self.check("a time that is none", code == 2 and "3h30m" in output, output)

    def bad_steps(self):
        path = self.config("diverges", replace=[("lr: 3e-3, min_lr: 3e-4", "lr: 1e30, min_lr: 1e30"), ("train_iters: 12", "train_iters: 40"), ("lr_warmup_iters: 2", "lr_warmup_iters: 0"),
                                                ("save_interval: 5", "save_interval: 2"), ("peak_tflops: 0.1", "peak_tflops: 0.1, max_bad_steps: 3")])
        code, output = self.run("af_train", path)
        steps = self.steps("diverges")
        bad = [i for i in steps if steps[i]["skipped"]]
        self.check("a run that diverges ends with 1 and says why", code == 1 and "3 steps in a row" in output and "max_bad_steps" in output, f"{code} {output[-2000:]}")
        self.check("after so many bad steps in a row", len(bad) >= 3 and bad[-3:] == list(range(max(steps) - 2, max(steps) + 1)), str(bad))
        events = self.events("diverges", "bad_step")
        # The weights before the bad steps are those of a run that ends there.
        good = bad[-3] - 1
        self.check("the state before them is saved, and said", f"iteration {good}: diverges/checkpoints/stage1-{good}" in output, output[-500:])
        self.run("af_train", path, "output_dir=diverges_not", f"stages.0.train_iters={good}", "--stage", "stage1")
        code, output = self.run("af_checkpoint", "diff", "diverges", "diverges_not")
        self.check("it is the state of a run that ends there", code == 0 and (self.work / f"diverges/checkpoints/stage1-{good}").exists(), output)
        state, other = (state_of(self.work / out) for out in ("diverges", "diverges_not"))
        self.check("also of data and routers", all(state[k] == other[k] for k in ("iteration", "data", "previous_expert_counts", "skipped", "optimizer_steps")), f"{state}\n{other}")
        code, output = self.run("af_train", path, "stages.0.lr.lr=1e-3", "stages.0.lr.min_lr=1e-3", "stages.0.train_iters=12")
        self.check("from which another learning rate goes on", f"iteration {good})" in output and code in (0, 1), output[-800:])
        self.check("each has an event", [e["iteration"] for e in events] == bad and events[-1]["in_a_row"] == 3, str([(e["iteration"], e["in_a_row"]) for e in events]))
        self.check("with the step's samples", [s["sequence"] for s in events[-1]["sequences"]] == [s["sequence"] for s in self.replay("diverges", bad[-1])])

        # (Weights of changed().) The logit of one token is minus infinity everywhere: where it is the target, the loss is infinite. So
        # the steps that have it to predict, and only those, are skipped, and their documents named.
        self.run("af_checkpoint", "export-hf", "same/checkpoints/latest", "large")
        file = self.work / "large" / "model.safetensors"
        data = bytearray(file.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])

        def put(name, row, column, value):  # bf16
            assert header[name]["dtype"] == "BF16", header[name]
            at = 8 + size + header[name]["data_offsets"][0] + 2 * (row * header[name]["shape"][-1] + column)
            data[at : at + 2] = struct.pack("<f", value)[2:]

        rows, columns = header["lm_head.weight"]["shape"]
        for row in range(rows):  # what the logit is made of has the same sign everywhere
            put("model.embed_tokens.weight", row, 0, 1)
        put("model.norm.weight", 0, 0, 100)
        for column in range(columns):
            put("lm_head.weight", ord("7"), column, 0 if column else -3e38)
        file.write_bytes(data)
        path = self.config("poisoned", replace=[("stages:", "init: {hf_checkpoint: large}\nstages:"), ("micro_batch_size: 2", "micro_batch_size: 1"),
                                                ("peak_tflops: 0.1", "peak_tflops: 0.1, max_bad_steps: 100")])
        code, output = self.run("af_train", path)
        self.check("bad samples do not end a run", code == 0, output[-1500:])
        steps = self.steps("poisoned")
        texts = {}
        for name in ("a", "b"):
            texts[name] = [json.loads(line)["text"].encode() for line in open(self.work / f"{name}.jsonl")]

        def meets(sequence):
            return any(b"7" in texts[sequence["source"]][d["document"]][d["begin"] + 1 : d["end"] + 1] for d in sequence["documents"])  # targets

        named = {e["iteration"]: [s["sequence"] for s in e["sequences"]] for e in self.events("poisoned", "bad_step")}
        expected = {}
        for step in steps:
            culprits = [s["sequence"] for s in self.replay("poisoned", step) if meets(s)]
            if culprits:
                expected[step] = culprits
        self.check("the bad steps are those with a bad sample, by name", named == expected and 0 < len(named) < len(steps), f"{named}\n{expected}")
        self.check("their weights stay", all(steps[i]["params_norm"] == steps[i - 1]["params_norm"] for i in named if i > 1))

    def changed(self):
        """Resuming with another mix, batch size and learning rate: each source goes on where it was."""
        common = [("train_iters: 12", "train_tokens: 3072"), ("save_interval: 5", "save_interval: 4"), ("keep: 2", "keep: 0")]
        undisturbed, path = self.config("same", replace=common), self.config("changed", replace=common)
        for p in (undisturbed, path):
            code, output = self.run("af_train", p, "--stage", "stage1")
            self.check("before the change", code == 0, output)
        other = self.config("changed", replace=common + [("weight: 0.7", "weight: 0.2"), ("global_batch_size: 4", "global_batch_size: 8"), ("lr: 3e-3, min_lr", "lr: 1e-3, min_lr")])
        code, output = self.run("af_train", other, "--stage", "stage1", "--resume", "changed/checkpoints/stage1-4")
        self.check("the resumed run says what changed", code == 0 and all(words in output for words in (
            "stages.0.global_batch_size: 4 -> 8", "stages.0.lr.lr: 0.003 -> 0.001", "stages.0.data.0.weight: 0.7 -> 0.2", "4 iterations of stage stage1 were done; they count as 2")), output[:3000])
        event = self.events("changed", "resume")[-1]
        keys = {c["key"]: (c["was"], c["now"]) for c in event["changed"]}
        self.check("in an event too", keys.get("stages.0.global_batch_size") == ("4", "8") and event["stage_iteration"] == 2 and len(keys) == 3, str(event))
        steps = self.steps("changed")
        last = self.events("changed", "stage_end")[-1]["iteration"]
        self.check("train_tokens are what was asked for", last == 8 and steps[last]["consumed_tokens"] == 3072, f"{last} {steps[last]}")

        def documents(out, last):
            parts = {"a": [], "b": []}
            for step in range(1, last + 1):
                for sequence in self.replay(out, step):
                    parts[sequence["source"]] += [(d["epoch"], d["document"], d["begin"], d["end"]) for d in sequence["documents"]]
            merged = {}
            for source, pieces in parts.items():  # a document that is cut goes on where it was cut
                merged[source] = []
                for piece in pieces:
                    if merged[source] and merged[source][-1][:2] == piece[:2] and merged[source][-1][3] == piece[2]:
                        piece = merged[source].pop()[:3] + piece[3:]
                    merged[source].append(piece)
            return merged

        ours, theirs = documents("changed", 8), documents("same", 12)
        for source in ("a", "b"):
            one, two = sorted((ours[source], theirs[source]), key=len)
            # The last one may be cut elsewhere; all before are the same documents in the same order, each whole and once.
            self.check(f"{source}: no document is repeated or skipped", len(one) > 3 and one[:-1] == two[: len(one) - 1] and one[-1][:3] == two[len(one) - 1][:3], f"{one}\n{two}")
        self.check("the mix did change", len(ours["b"]) > len(theirs["b"]) and len(ours["a"]) < len(theirs["a"]))


def run(binaries, work, check, config):
    stops = Stops(binaries, work, check, config)
    for part in (stops.signals, stops.time_limit, stops.changed, stops.bad_steps):
        begin = time.monotonic()
        part()
        print(f"  stops, {part.__name__}: {time.monotonic() - begin:.0f} s", flush=True)
