"""Output directories as they are met: used before, copied, damaged, shared, full. A run goes on from what is its own, and loses nothing."""
import os
import re
import resource
import shutil
import signal
import subprocess
import time

from common import json_lines


class Folders:
    def __init__(self, binaries, work, check, config):
        self.bin, self.work, self.check = binaries, work, check
        self.path = config("folders", replace=[("threads_per_rank: 2", "threads_per_rank: 1"), ("keep: 2", "keep: 0"), ("eval_interval: 6", "eval_interval: 0")])
        self.train("whole_folder", 0)
        self.names = ["stage1-10", "stage1-12", "stage1-5", "stage2-15", "stage2-18"]
        self.check("the checkpoints of a run that keeps all", self.left("whole_folder") == self.names, str(self.left("whole_folder")))

    def start(self, *command, **options):
        return subprocess.Popen([str(self.bin / command[0]), *map(str, command[1:])], cwd=self.work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def run(self, *command):
        job = self.start(*command)
        return job.communicate(timeout=120)[0], job.returncode

    def train(self, out, code, *words):
        """Its output; it has to end with `code`."""
        output, ended = self.run("af_train", self.path, f"output_dir={out}", *words)
        self.check(f"{out} {' '.join(map(str, words))}: ends with {code}", ended == code, f"{ended}\n{output[-2000:]}")
        return output

    def copy(self, out, *names):
        """A run's directory as the undisturbed one left it, with these checkpoints alone."""
        shutil.copytree(self.work / "whole_folder", self.work / out, symlinks=True, ignore=lambda _, found: set(found) & set(self.names) - set(names or self.names))
        return self.work / out / "checkpoints"

    def left(self, out):
        return sorted(p.name for p in (self.work / out / "checkpoints").iterdir() if "-" in p.name)

    def latest(self, out):
        return os.readlink(self.work / out / "checkpoints/latest")

    def last(self, out, like="whole_folder"):
        """Whether it ended with the other's bytes."""
        ours, theirs = (self.work / name / "checkpoints/stage2-18/shard-00000.h5" for name in (out, like))
        return ours.exists() and ours.read_bytes() == theirs.read_bytes()

    def harm(self, checkpoint):
        with open(checkpoint / "shard-00000.h5", "r+b") as shard:
            shard.seek(-5000, 2)
            shard.write(b"damage")

    def used(self):
        """Beginning anew, or from an older checkpoint, in a directory that has newer ones."""
        root = self.copy("anew")
        output = self.train("anew", 0, "--resume", "never", "checkpoint.keep=1", "stages.0.train_iters=8", "--stage", "stage1")
        self.check("anew: what was there is set aside, and said", sorted(p.name for p in (root / "aside").iterdir()) == self.names and output.count("set aside: ") == 5, output)
        self.check("anew: and what is new stays", self.left("anew") == ["stage1-5", "stage1-8"] and self.latest("anew") == "stage1-8", str(self.left("anew")))
        output = self.train("anew", 0, "stages.0.train_iters=8", "--stage", "stage2", "stages.1.train_iters=1")
        self.check("anew: a restart goes on with what is new", "resumed from anew/checkpoints/stage1-8 " in output, output[:500])
        whole = self.run("af_checkpoint", "verify", root / "aside/stage2-18")
        self.check("anew: what is aside is whole", whole[1] == 0, whole[0])
        self.train("anew", 0, "--resume", "never", "--stage", "stage1")
        self.check("anew: twice", (root / "aside/stage1-5.2").is_dir() and self.left("anew") == ["stage1-10", "stage1-12", "stage1-5"], str(list((root / "aside").iterdir())))

        self.copy("back")
        output = self.train("back", 0, "--resume", "back/checkpoints/stage1-5", "--stage", "stage1", "checkpoint.keep=2", "checkpoint.save_interval=4")
        self.check("from an older one: the newer are aside", self.left("back") == ["stage1-12", "stage1-5", "stage1-8"] and self.latest("back") == "stage1-12", str(self.left("back")))
        self.check("from an older one: and again", self.train("back", 0, "checkpoint.save_interval=4").count("resumed from back/checkpoints/stage1-12 ") == 1 and self.last("back"))
        self.copy("link")
        output = self.train("link", 0, "--resume", "link/checkpoints/latest/")
        self.check("latest is gone on from by its own name, with nothing aside", "resumed from link/checkpoints/stage2-18 " in output and self.left("link") == self.names, output)

    def damaged(self):
        root = self.copy("harmed", "stage1-5", "stage1-10")
        self.harm(root / "stage1-10")
        output = self.train("harmed", 0, "checkpoint.keep=1", "checkpoint.save_interval=7", "--stage", "stage1")
        self.check("harmed: named, aside, and not counted among those that are kept", "skipped the checkpoint harmed/checkpoints/stage1-10: " in output
                   and (root / "aside/stage1-10").is_dir() and self.left("harmed") == ["stage1-12", "stage1-7"], f"{self.left('harmed')} {output}")
        root = self.copy("all_harmed", "stage1-5", "stage1-10")
        for what in ("stage1-5", "stage1-10"):
            (root / what / "manifest.json").unlink()
        before = sorted(str(p) for p in root.rglob("*"))
        for _ in range(2):
            output = self.train("all_harmed", 2)
            self.check("all harmed: never begun anew unasked", "none of 2 checkpoints can be read" in output and output.count("manifest.json: is missing") == 2
                       and before == sorted(str(p) for p in root.rglob("*")), output)
        self.train("all_harmed", 0, "--resume", "never")
        self.check("all harmed: asked for, anew", self.last("all_harmed") and sorted(p.name for p in (root / "aside").iterdir()) == ["stage1-10", "stage1-5"])
        # Replaced where the file system cannot do it at once, and killed meanwhile.
        root = self.copy("replaced")
        (root / "stage2-18").rename(root / "stage2-18.old.tmp")
        (root / "stage2-18.tmp").mkdir()
        self.check("replaced: has its name again", "nothing to do" in self.train("replaced", 0) and self.left("replaced") == sorted([*self.names, "stage2-18.tmp"]))

    def copied(self):
        for name, harm in (("dangling", lambda root: ((root / "latest").unlink(), (root / "latest").symlink_to("stage9-99"))),
                           ("no_links", lambda root: (root / "latest").unlink()),
                           ("followed", lambda root: ((root / "latest").unlink(), shutil.copytree(root / "stage2-15", root / "latest")))):
            root = self.copy(name, "stage1-12", "stage2-15")
            harm(root)
            output, code = self.run("af_checkpoint", "verify", name)
            self.check(f"{name}: tools take the newest", code == 0 and ("stage2-15: whole" in output or name == "followed"), output)
            output = self.train(name, 0)
            self.check(f"{name}: goes on from the newest", f"resumed from {name}/checkpoints/stage2-15 " in output and self.latest(name) == "stage2-18" and self.last(name), output)
        root = self.copy("followed_alone", "stage2-15")
        (root / "latest").unlink()
        (root / "stage2-15").rename(root / "latest")
        output = self.train("followed_alone", 2)
        self.check("a latest that is no link: refused, with its name", "give it the name that it had, such as stage2-15" in output and self.left("followed_alone") == [], output)
        # A checkpoint elsewhere may be linked to, and a folder of another's is none.
        root = self.copy("linked", "stage2-15")
        (root / "stage2-15").rename(self.work / "else where")
        (root / "stage2-15").symlink_to("../../else where")
        (root / "notes-99").mkdir()
        output = self.train("linked", 0)
        self.check("a link to a checkpoint is one", "resumed from linked/checkpoints/stage2-15 " in output and self.last("linked") and (root / "notes-99").is_dir(), output)

    def shared(self):
        """A second run in a directory that one is writing to."""
        first = subprocess.Popen([self.bin / "af_train", self.path, "output_dir=shared", "stages.0.train_iters=100000"], cwd=self.work, stdout=subprocess.DEVNULL)
        metrics = self.work / "shared/metrics.jsonl"
        while first.poll() is None and not (metrics.exists() and "grad_norm" in metrics.read_text()):
            time.sleep(0.005)
        second = self.start("af_train", self.path, "output_dir=shared")
        said = second.stdout.readline()
        self.check("a second run waits", f"another run writes there (process {first.pid} on " in said and metrics.read_text().count("run_begin") == 1, said)
        second.send_signal(signal.SIGUSR1)
        output = second.communicate(timeout=60)[0]
        self.check("and is refused", second.returncode == 2 and "take another output_dir" in output, output)
        third = self.start("af_train", self.path, "output_dir=shared", "stages.0.train_iters=12")
        said = third.stdout.readline()
        first.kill()
        first.wait()
        output = third.communicate(timeout=60)[0]
        self.check("or goes on when the first has died", "another run writes there" in said and third.returncode == 0, said + output[-1500:])

    def full(self):
        """Nothing can be written any more, reports too: the run goes on, and they come when there is room."""
        def limit(bytes_):
            return resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        words = ("output_dir=full", "stages.0.train_iters=60", "checkpoint.save_interval=20", "checkpoint.async_save=false")
        job = self.start("af_train", self.path, *words, preexec_fn=lambda: limit(9000), restore_signals=False)
        lines, warned = [], ("metrics.jsonl cannot be written: ", "could not be saved: ")
        while not all(any(w in line for line in lines) for w in warned) and (line := job.stdout.readline()):
            lines.append(line)
        resource.prlimit(job.pid, resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))
        output = "".join(lines) + job.communicate(timeout=120)[0]
        steps = [line["iteration"] for line in json_lines(self.work / "full/metrics.jsonl") if "event" not in line]
        self.check("full: the run goes on, and no line is lost", job.returncode == 0 and steps == list(range(1, 67)) and "waited for room" in output and "saved full/" in output,
                   f"{job.returncode} {len(steps)} {output[-1500:]}")
        tried = re.findall(r"(?:the checkpoint| saved) full/checkpoints/(\S+)", output)
        self.check("full: a failed save is tried again after a tenth of the interval", "tried again after iteration 22\n" in output and tried[:2] ==
                   ["stage1-20", "stage1-22"], str(tried))
        replayed, code = self.run("af_data", "replay", "--step", 63, "full")
        self.check("full: nor the ledger", code == 0, replayed)


def run(binaries, work, check, config):
    folders = Folders(binaries, work, check, config)
    for part in (folders.used, folders.damaged, folders.copied, folders.shared, folders.full):
        begin = time.monotonic()
        part()
        print(f"  folders, {part.__name__}: {time.monotonic() - begin:.0f} s", flush=True)
