"""Loss spikes: documents that do not belong there are planted in known steps; the run goes back and on without them, to the same bits however it is
stopped meanwhile, and to the same numbers on however many ranks."""
import json
import random
import shutil
import signal
import subprocess
import time

from common import MPI_ENVIRONMENT, events_of, json_lines, state_of, steps_of, tensors_of, tokenize

CONFIG = """
seed: 7
model: {model_type: qwen3, vocab_size: 288, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8,
        intermediate_size: 64, max_position_embeddings: 128, tie_word_embeddings: false, rope_theta: 10000}
stages:
  - {name: stage1, seq_length: 64, train_iters: 30, global_batch_size: 4, lr: {lr: 1e-2, min_lr: 1e-3}, data: [{path: DATA, name: d}]}
  - {name: stage2, seq_length: 128, train_iters: 12, global_batch_size: 4, packing: best_fit, lr: {lr: 3e-3, min_lr: 1e-3}, data: [{path: DATA, name: d}]}
validation: {data: [{path: clean.h5, name: heldout}], eval_interval: 10, eval_iters: 1}
checkpoint: {save_interval: 12}
runtime: {threads_per_rank: 1, peak_tflops: 0.1, loss_spike_factor: 1.6, loss_spike_window: 6}
logging: {tensorboard: false}
"""
DOCUMENTS = 500  # of 64 tokens each: a sequence of stage 1, half of one in stage 2
COMPARED = ("lm_loss", "grad_norm", "params_norm", "learning_rate", "consumed_tokens")


class Spikes:
    def __init__(self, binaries, work, check, launcher=()):
        """`launcher`: what the words of af_train come behind."""
        self.bin, self.check, self.launcher = binaries, check, list(launcher)
        self.work = work / "spikes"
        self.work.mkdir()

    def start(self, *command, ranks=1):
        words = [str(self.bin / command[0]), *map(str, command[1:])]
        return subprocess.Popen([*self.launcher, "-np", str(ranks), *words] if ranks > 1 else words, cwd=self.work, env=MPI_ENVIRONMENT, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *command, ranks=1):
        job = self.start(*command, ranks=ranks)
        output = job.communicate(timeout=300)[0]
        return job.returncode, output

    def train(self, data, out, *overrides, ranks=1):
        return self.run("af_train", self.config(data), f"output_dir={out}", *overrides, ranks=ranks)

    def config(self, data):
        path = self.work / f"{data}.yaml"
        path.write_text(CONFIG.replace("DATA", f"{data}.h5"))
        return path

    def dataset(self, name, poison):
        """All documents as ever but those numbered in `poison`, which are of the same length."""
        words = random.Random(1)
        noise = random.Random(2)
        texts = []
        for i in range(DOCUMENTS):
            texts.append("".join(words.choice(("alpha ", "beta ", "gamma ", "delta ")) for _ in range(16))[:63])
            if i in poison:
                texts[-1] = "".join(chr(noise.randrange(33, 96)) for _ in range(63))
        tokenize(self.bin, self.work, name, texts)

    def steps(self, out):
        return steps_of(self.work / out)

    def events(self, out, name):
        return events_of(self.work / out, name)

    def state(self, out):
        return state_of(self.work / out)

    def tensors(self, out):
        return tensors_of(self.work / out)

    def documents(self, out, step):
        code, output = self.run("af_data", "replay", "--step", step, out)
        self.check(f"{out}: replay of step {step}", code == 0, output)
        return [(d["epoch"], d["document"], d["begin"], d["end"]) for line in output.splitlines()[1:] for d in json.loads(line)["documents"]]

    def same(self, what, out, like):
        ours, theirs = self.steps(out), self.steps(like)
        wrong = [(i, k) for i in theirs for k in COMPARED if ours.get(i, {}).get(k) != theirs[i][k]]
        self.check(f"{what}: the steps of the run that was not stopped", sorted(ours) == sorted(theirs) and not wrong, str(wrong[:5]))
        self.check(f"{what}: its tensors", self.tensors(out) == self.tensors(like))
        self.check(f"{what}: its state", {k: v for k, v in self.state(out).items() if k != "datasets"} == {k: v for k, v in self.state(like).items() if k != "datasets"})

    def make(self):
        """What the steps of undisturbed runs are made of says which documents to spoil: those of steps 20 and 21, and of one in stage 2."""
        self.dataset("clean", ())
        code, output = self.train("clean", "clean_run")
        self.check("without spikes nothing is done", code == 0 and not self.events("clean_run", "rewind") and "loss_spikes" not in self.state("clean_run"), output[-1500:])
        # As long as the runs below that leave out one step, and three in each stage.
        for name, first, second in (("one_more", 31, 12), ("six_more", 33, 15)):
            code, output = self.train("clean", name, f"stages.0.train_iters={first}", f"stages.1.train_iters={second}")
            self.check(f"a run of {first} and {second} steps", code == 0, output[-500:])
        self.poison = {step: {d for _, d, _, _ in self.documents("six_more", step)} for step in (20, 21, 40)}
        self.dataset("one", self.poison[20])
        self.dataset("two", self.poison[20] | self.poison[40])
        self.dataset("row", self.poison[20] | self.poison[21])

    def expect(self, what, out, longer, left_out):
        """The 42 steps have the longer run's documents in their order, but for those of the steps left out."""
        kept = [step for step in range(1, 43 + len(left_out)) if step not in left_out]
        near = [step for step in range(1, 43) if any(abs(kept[step - 1] - other) < 5 for other in (*left_out, 1, 33, 48))]
        wrong = [step for step in near if self.documents(out, step) != self.documents(longer, kept[step - 1])]
        self.check(f"{what}: every other token comes, once, in its order", not wrong, str(wrong))

    def go_back(self):
        code, output = self.train("one", "off", "runtime.loss_spike_factor=0")
        self.check("off: the run goes through it", code == 0 and not self.events("off", "rewind"), output[-1500:])
        spiked = self.steps("off")[20]["lm_loss"]
        code, output = self.train("one", "spike")
        event = self.events("spike", "rewind")
        self.check("a spike is gone back behind", code == 0 and len(event) == 1 and "loss spike: the lm loss of iteration 20" in output, output[-3000:])
        first = next(line for line in json_lines(self.work / "spike/metrics.jsonl") if line.get("iteration") == 20 and "event" not in line)
        event = event[0]
        self.check("the event says what and where", (event["iteration"], event["back_to"], event["lm_loss"], event["checkpoint"]) == (20, 12, spiked, "spike/checkpoints/stage1-12")
                   and first["lm_loss"] == spiked > 1.6 * event["median"], str(event)[:500])
        named = [(d["epoch"], d["document"], d["begin"], d["end"]) for s in event["sequences"] for d in s["documents"]]
        self.check("and names the documents", named == self.documents("one_more", 20) and all(f" {d}" in output for _, d, _, _ in named), str(named))
        steps = self.steps("spike")
        self.check("the second time it is none", sorted(steps) == list(range(1, 43)) and steps[20]["lm_loss"] < spiked / 1.5, f"{spiked} {steps[20]['lm_loss']}")
        self.check("before, nothing is another", all(steps[i][k] == self.steps("off")[i][k] for i in range(1, 20) for k in COMPARED))
        self.expect("spike", "spike", "one_more", {20})
        inspected = self.run("af_checkpoint", "inspect", "spike/checkpoints")[1]
        self.check("inspect shows it", "at iteration 20" in inspected and "from iteration 12" in inspected, inspected)
        self.check("a run that does not go back is another", self.tensors("off") != self.tensors("spike") and self.state("off")["data"] != self.state("spike")["data"])
        state = self.state("spike")
        self.check("the checkpoint knows", [(s["iteration"], s["back_to"], s["steps"]) for s in state["loss_spikes"]] == [(20, 12, 1)]
                   and state["data"]["passed_over"] == [{"begin": 76, "count": 4}] and state["consumed_samples"] == 42 * 4 == state["data"]["consumed_sequences"], str(state)[:800])

    def interrupted(self):
        """Stopped and killed right after it went back, and gone on with from each checkpoint: the same bits."""
        slow = "stages.0.micro_batch_size=1"
        code, output = self.train("one", "whole", slow, "checkpoint.save_interval=9")
        self.check("an undisturbed run with a spike", code == 0, output[-800:])
        for name, number in (("stopped", signal.SIGUSR1), ("killed", signal.SIGKILL)):
            job = self.start("af_train", self.config("one"), f"output_dir={name}", slow, "checkpoint.save_interval=9")
            end = time.monotonic() + 60
            while job.poll() is None and time.monotonic() < end and not self.events(name, "rewind"):
                time.sleep(0.002)
            job.send_signal(number)
            job.communicate(timeout=120)
            self.check(f"{name}: the signal came in time", job.returncode == (75 if number == signal.SIGUSR1 else -number) and self.events(name, "rewind"))
            code, output = self.train("one", name, slow, "checkpoint.save_interval=9")
            self.check(f"{name}: goes on", code == 0 and "resumed from" in output, output[-800:])
            self.same(name, name, "whole")
        for at in (9, 18, 27):  # the one that it went back to knows of it since
            out = f"from_{at}"
            code, output = self.run("af_train", self.config("one"), f"output_dir={out}", slow, "checkpoint.save_interval=9", "--resume", f"whole/checkpoints/stage1-{at}")
            self.check(f"from {at}", code == 0 and len(self.events(out, "rewind")) == (at == 9), output[-800:])
            self.check(f"from {at}: the same tensors", self.tensors(out) == self.tensors("whole"))

    def damaged(self):
        """The checkpoint to go back to is not what was written: the run goes back to the one before it, says so, and comes to the same bits."""
        words = (self.config("one"), "output_dir=damaged", "stages.0.micro_batch_size=1", "checkpoint.save_interval=0")
        self.check("damaged: an undisturbed run", self.run("af_train", *words[:1], "output_dir=whole_0", *words[2:])[0] == 0)
        for _ in range(4):  # the moment may have passed before it is seen
            shutil.rmtree(self.work / "damaged", ignore_errors=True)
            job = self.start("af_train", *words)
            while job.poll() is None and len(self.steps("damaged")) < 8:
                time.sleep(0.002)
            job.send_signal(signal.SIGUSR1)
            job.communicate(timeout=120)
            at = max(self.steps("damaged"))
            job = self.start("af_train", *words)
            said = [job.stdout.readline()]
            job.send_signal(signal.SIGSTOP)
            with open(self.work / f"damaged/checkpoints/stage1-{at}/shard-00000.h5", "r+b") as shard:
                shard.seek(-5000, 2)
                shard.write(b"damage")
            in_time = not self.events("damaged", "rewind")
            job.send_signal(signal.SIGCONT)
            output = said[0] + job.communicate(timeout=120)[0]
            if in_time and at < 20:
                break
        self.check("damaged: it had been whole", f"resumed from damaged/checkpoints/stage1-{at} " in said[0] and in_time, output[:500])
        rewinds, skipped = self.events("damaged", "rewind"), self.events("damaged", "checkpoint_skipped")
        self.check("damaged: the one before it will do", job.returncode == 0 and [e["back_to"] for e in rewinds] == [0], output[-2000:])
        self.check("damaged: said and recorded", [e["path"] for e in skipped] == [f"damaged/checkpoints/stage1-{at}"] and "shard-00000.h5" in skipped[0]["reason"]
                   and "skipped the checkpoint" in output and [s["back_to"] for s in self.state("damaged")["loss_spikes"]] == [0], str(skipped))
        self.check("damaged: it is out of the way", [p.name for p in (self.work / "damaged/checkpoints/aside").iterdir()] == [f"stage1-{at}"], output[-2000:])
        self.same("damaged", "damaged", "whole_0")

    def several(self):
        """Steps before the spike are left out too; checkpoints that were taken among them go; a second stage's spike."""
        code, output = self.train("two", "several", "runtime.loss_spike_skip=3", "checkpoint.save_interval=2", "checkpoint.keep=0")
        events = self.events("several", "rewind")
        self.check("two spikes, in both stages", code == 0 and [(e["iteration"], e["back_to"]) for e in events] == [(20, 16), (37, 34)], f"{[(e['iteration'], e['back_to']) for e in events]} {output[-1500:]}")
        self.check("what was taken among them was no longer there", "several/checkpoints/stage1-18" not in [e["checkpoint"] for e in events], str(events)[:300])
        code, output = self.train("one", "few", "runtime.loss_spike_skip=3", "checkpoint.save_interval=1", "checkpoint.keep=1", "checkpoint.keep_every=8")
        self.check("old ones that were removed meanwhile are passed over", code == 0 and [e["back_to"] for e in self.events("few", "rewind")] == [16], output[-1500:])
        self.expect("several", "several", "six_more", {18, 19, 20, 38, 39, 40})

        for name, words, expected in (("again", (), "although the samples"), ("gone", ("runtime.loss_spike_skip=3", "checkpoint.save_interval=1", "checkpoint.keep=1"), "no checkpoint from before")):
            code, output = self.train("row", name, *words)
            stop = self.events(name, "stop")
            self.check(f"{name}: a clear end", code == 1 and expected in output and stop[-1]["reason"] == "loss spike", f"{code} {output[-1500:]}")
            self.check(f"{name}: whose newest checkpoint is whole", self.run("af_checkpoint", "verify", f"{name}/checkpoints")[0] == 0)
        # Nothing saved before: back to the run's first checkpoint, which is there for that.
        code, output = self.train("one", "first", "checkpoint.save_interval=0")
        self.check("back to the beginning", code == 0 and [e["back_to"] for e in self.events("first", "rewind")] == [0], output[-1500:])
        for words in (("runtime.loss_spike_factor=0.5",), ("runtime.loss_spike_factor=-2",), ("runtime.loss_spike_skip=0",)):
            code, output = self.train("one", "refused", *words)
            self.check(f"{words} is refused", code == 2 and words[0].split("=")[0] in output and not (self.work / "refused").exists(), output)

    def ranks(self):
        """The same under mpirun, in a layout and gone on with in another."""
        one = self.train("one", "alone")
        four = self.train("one", "four", "parallel.tensor_model_parallel_size=2", ranks=4)
        self.check("four ranks go back too", one[0] == four[0] == 0, one[1][-800:] + four[1][-3000:])
        for key in ("iteration", "back_to", "sequences"):
            self.check(f"to the same place: {key}", [e[key] for e in self.events("four", "rewind")] == [e[key] for e in self.events("alone", "rewind")] != [])
        ours, theirs = self.steps("four"), self.steps("alone")
        off = max(abs(ours[i]["lm_loss"] - theirs[i]["lm_loss"]) / theirs[i]["lm_loss"] for i in theirs)
        self.check("with one rank's numbers", sorted(ours) == sorted(theirs) and off < 1e-4, str(off))
        self.check("and its samples", self.state("four")["data"] == self.state("alone")["data"])
        shutil.copytree(self.work / "four/checkpoints/stage1-24", self.work / "on/checkpoints/stage1-24")
        code, output = self.train("one", "on", "parallel.pipeline_model_parallel_size=2", ranks=2)
        off = max(abs(line["lm_loss"] - theirs[i]["lm_loss"]) / theirs[i]["lm_loss"] for i, line in self.steps("on").items()) if code == 0 else 1
        self.check("and go on in another layout", code == 0 and off < 1e-4 and self.state("on")["data"] == self.state("alone")["data"], f"{off} {output[-1500:]}")


def run(binaries, work, check, launcher=()):
    spikes = Spikes(binaries, work, check, launcher)
    for part in (spikes.make, *((spikes.ranks,) if launcher else (spikes.go_back, spikes.interrupted, spikes.damaged, spikes.several))):
        begin = time.monotonic()
        part()
        print(f"  loss spikes, {part.__name__}: {time.monotonic() - begin:.0f} s", flush=True)
