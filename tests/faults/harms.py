"""What is done to a run, and what is expected of it then."""
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import time

from job import FOLDER, Moment, random_moment
from runs import LAYOUTS

LIMIT = 30  # seconds from the harm until the job has ended
HEARTBEAT = "runtime.heartbeat_seconds=4"
KINDS = {  # name: how often, in a sample and with --full; a sample has each once, before it draws
    "kill_rank": (8, 8), "kill_in_save": (4, 4), "kill_in_rename": (2, 3), "kill_in_handover": (2, 3), "kill_mpirun": (3, 3), "stop_rank": (1, 2),
    "damage": (6, 6), "io_error": (5, 5), "full_disk": (1, 2), "unreadable": (2, 2), "cut_link": (0, 1),
}
# Nobody but mpirun can say it. It does not always notice the signal: then it has a process that "returned a non-zero exit code", and ends with 128 + 9.
KILLED = r"process rank {rank} .*signal 9|1 process returned\s+a non-zero exit code[\s\S]*\nexit code 137$"
SAVES = ["stage1-2", "stage1-4", "stage1-6", "stage1-8", "stage2-10", "stage2-12", "stage2-14"]


class Episode:
    """One output directory: one to three faults, and then it may finish."""
    def __init__(self, runs, seed, only, full):
        self.runs, self.random, self.only, self.full = runs, random.Random(seed), only, full
        self.layout = self.random.choice(list(LAYOUTS))
        self.ranks = LAYOUTS[self.layout][0]
        self.story, self.problems, self.skipped, self.must_say, self.undo = [], [], [], [], []
        self.none_left, self.steps_after, self.seconds_after = False, 0, 0.0

    def __str__(self):
        return f"{self.layout}: " + ", then ".join(self.story)

    def play(self):
        """The kinds of the faults that it met."""
        self.reference = self.runs.reference(self.layout)
        self.folder = self.runs.fresh()
        met = []
        try:
            for _ in range(self.random.choice([1, 1, 2, 3])):
                weights = {kind: w[self.full] for kind, w in KINDS.items()}
                kind = self.only or self.random.choices(list(weights), list(weights.values()))[0]
                hit = getattr(self, kind)()
                if hit is None:
                    break
                met += [kind] * hit
                if self.problems or not hit or kind == "damage":
                    break
            if met and not self.problems:
                self.finish()
        finally:
            for action in reversed(self.undo):
                action()
        return met

    def finish(self):
        ended, job, output = self.run_on()
        if self.none_left and ended and job.process.returncode == 2 and "none of 1 checkpoints can be read; to begin anew: --resume never" in output:
            refusal, (ended, job, output) = output, self.run_on("--resume", "never")
            output = refusal + output
        if not ended or job.process.returncode != 0:
            return self.problem(f"the run that goes on {'does not end' if not ended else f'ends with {job.process.returncode}'}", output)
        for pattern in self.must_say:
            if not re.search(pattern, output):
                return self.problem(f"the run that goes on does not say /{pattern}/", output)
        for difference in self.reference.differences(self.folder):
            self.problem(difference)

    def run_on(self, *words):
        job = self.runs.start(self.layout, *words)
        ended = job.wait(60)
        job.clean_up()
        return ended, job, job.output()

    def problem(self, text, output=""):
        self.problems.append(text + ("\n    | " + "\n    | ".join(tail(output)) if output else ""))

    def ends(self, job, expected, limit=LIMIT, may_finish=False):
        """Waits for the end; whether the harm was felt. `expected`: what the output has to say then."""
        job.wait_for_mpirun(limit)
        steps = self.runs.steps_of(self.folder)
        begin = time.monotonic()
        ended = job.wait(limit)
        self.seconds_after = time.monotonic() - begin
        self.steps_after = self.runs.steps_of(self.folder) - steps
        output, code, left = job.output(), job.process.poll(), job.clean_up()
        if not ended:
            self.problem(f"not ended {LIMIT} s after: " + ("mpirun runs" if code is None else f"processes {sorted(left)} are left"), output)
            return True
        said = expected is None or re.search(expected, f"{output}\nexit code {code}")
        if code == 0 and not (may_finish and said):
            return False
        if not said:
            self.problem(f"ended with {code} after {job.seconds():.1f} s and did not say /{expected}/", output)
        return True

    def operation(self, rank, operations=None):
        """A file operation of that rank in an undisturbed run: all kinds are as likely."""
        counts = {o: n for o, n in self.reference.counts[rank].items() if n and (not operations or o in operations)}
        operation = self.random.choice(list(counts))
        return f"{rank} {operation} {self.random.randint(1, counts[operation])}"

    def strike(self, what, action, expected, *words, rank=None, plans=(), moments=()):
        """harm.c does it before some file operation of some rank, or a signal from here does at a moment: one of `plans` and `moments`, or any."""
        slow = self.random.choice([0, 30])
        rank = self.random.randrange(self.ranks) if rank is None else rank
        if action == "parent":
            slow = 150
            expected, victim = None, lambda job: job.mpirun_of()
        else:
            expected, victim = expected.format(rank=rank), lambda job: job.rank_of(rank)
        any_moment = not plans and not moments
        if self.random.random() < 0.5 if bool(plans) == bool(moments) else plans:
            operation, number, part = self.random.choice(plans) if plans else (*self.operation(rank).split(" ")[1:], "")
            self.story.append(f"{what} of rank {rank} before its {operation} {number}{part and ' of ' + part}")
            return self.ends(self.runs.start(self.layout, *words, harm=f"{rank} {operation} {number} {action} {part}", slow=slow), expected, LIMIT + 15)
        moment = random_moment(self.random, self.reference.seconds) if any_moment else self.random.choice(moments)
        self.story.append(f"{what}{'' if action == 'parent' else f' of rank {rank}'} {moment}")
        job = self.runs.start(self.layout, *words, slow=slow)
        if moment.wait_for(job):
            while not (pid := victim(job)) and not job.ended():
                time.sleep(0.002)
            if pid:
                try:
                    os.kill(pid, signal.SIGSTOP if action == "stop" else signal.SIGKILL)
                except ProcessLookupError:
                    pass
        return self.ends(job, expected)

    # The kinds of harm. Each: whether it was felt; None: not possible here.
    def kill_rank(self):
        return self.strike("SIGKILL", "kill", KILLED)

    def kill_in_save(self):
        """While shards, or what belongs to all of them, are written."""
        save = self.random.choice(SAVES)
        shard, of_all = [(o, n, f"{save}.tmp/shard-") for o, n in (("open", 1), ("write", 1), ("write", 2), ("write", 3), ("sync", 1))], []
        rank = self.random.randrange(self.ranks)
        if rank == 0:
            of_all = [(o, 1, f"{save}.tmp/{name}") for o in ("open", "write", "sync") for name in ("state.json", "run.yaml", "config.json", "manifest.json")]
        return self.strike("SIGKILL", "kill", KILLED, rank=rank, plans=shard + of_all)

    def kill_in_rename(self):
        """As a checkpoint gets its name, and `latest` its place."""
        save, n = self.random.choice([(s, i + 1) for i, s in enumerate(SAVES)])
        plans = [("rename", 1, f"{save}.tmp"), ("remove", n, "latest.tmp"), ("link", n, "latest.tmp"), ("rename", n, "latest.tmp")]
        return self.strike("SIGKILL", "kill", KILLED, rank=0, plans=plans)

    def kill_in_handover(self):
        """Between the save that ends stage 1 and the first steps of stage 2."""
        n = SAVES.index("stage1-8") + 1
        plans = [("write", 1, "stage1-8.tmp/manifest.json"), ("rename", 1, "stage1-8.tmp"), ("link", n, "latest.tmp"), ("rename", n, "latest.tmp")]
        moments = [Moment("file", "run/checkpoints/stage1-8", self.random.uniform(0, 0.03)), Moment("line", r"^ saved .*stage1-8", self.random.uniform(0, 0.02)),
                   Moment("line", r"^stage stage2", self.random.uniform(0, 0.03))]
        rank = self.random.choice([0, None])
        return self.strike("SIGKILL", "kill", KILLED, rank=rank, plans=plans if rank == 0 else (), moments=moments)

    def kill_mpirun(self):
        felt = self.strike("SIGKILL of mpirun", "parent", "")
        if felt and not self.problems and (self.steps_after > 4 or self.seconds_after > 5):  # its disk is slow: there is more to do than that
            self.problem(f"the ranks went on without mpirun: {self.steps_after} more iterations, {self.seconds_after:.1f} s")
        return felt

    def stop_rank(self):
        patience = self.random.choice([[], [HEARTBEAT]]) if self.full else [HEARTBEAT]
        return self.strike("SIGSTOP", "stop", r"sign of life.*; rank {rank} \(process \d+\) is stopped", *patience)

    def damage(self):
        """A killed run's newest checkpoint is not what it was; the run goes on from the one before, and says so."""
        if not self.checkpoints() and not self.kill_rank():
            return False
        names = self.checkpoints()
        if self.problems or not names:
            return not self.problems
        newest = self.folder / "run/checkpoints" / names[-1]
        files = sorted(p for p in newest.iterdir() if p.is_file())
        victim = self.random.choice(files)
        how = self.random.choice(["flip", "flip", "truncate", "empty", "remove", "garble"])
        data = bytearray(victim.read_bytes())
        if how == "remove":
            victim.unlink()
        elif how == "flip":
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        elif how == "garble":
            at = self.random.randrange(len(data))
            piece = self.random.randbytes(self.random.randint(16, 512))
            data[at:at + len(piece)] = piece
        else:
            data = data[:self.random.randrange(len(data)) if how == "truncate" else 0]
        if how != "remove":
            victim.write_bytes(data)
        self.story.append(f"{how} of {newest.name}/{victim.name}")
        self.must_say += [re.escape(newest.name), re.escape(victim.name)]
        self.none_left = len(names) == 1
        return True

    def checkpoints(self):
        """Names of the whole ones, the newest last."""
        root = self.folder / "run/checkpoints"
        names = [p.name for p in root.iterdir() if re.fullmatch(r"stage\d-\d+", p.name)] if root.is_dir() else []
        return sorted(names, key=lambda name: int(name.split("-")[1]))

    def io_error(self):
        rank = self.random.randrange(self.ranks)
        error = self.random.choice([errno.ENOSPC, errno.EIO, errno.EIO, errno.EACCES])
        plan = self.operation(rank, ("open", "write", "sync", "truncate", "rename", "folder", "link") if error == errno.ENOSPC else None)
        self.story.append(f"{os.strerror(error)} in rank {rank} from its {plan.split(' ', 1)[1]} on")
        return self.ends(self.runs.start(self.layout, harm=f"{plan} {error}"), re.escape(os.strerror(error)), LIMIT + 15, may_finish=True)

    def full_disk(self):
        if not self.root("a small tmpfs"):
            return None
        target, aside = self.folder / "run", self.folder / "aside"
        if os.path.ismount(target):
            return False
        self.move(target, aside)
        target.mkdir()
        used = sum(-(-p.stat().st_size // 4096) * 4 for p in aside.rglob("*") if p.is_file() and not p.is_symlink())
        kilobytes = used + self.random.choice([self.random.randint(30, 900), self.random.randint(2000, 8000)])
        self.story.append(f"a disk with room for {kilobytes - used} kB")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0755", "tmpfs", target], check=True)
        self.undo.append(lambda: subprocess.run(["umount", "-l", target], check=False))
        if aside.exists():
            shutil.copytree(aside, target, symlinks=True, dirs_exist_ok=True)
        job = self.runs.start(self.layout)
        Moment("line", r"No space left on device|are free on this disk").wait_for(job, LIMIT + 15)
        subprocess.run(["mount", "-o", "remount,size=50m", target], check=True)  # somebody makes room
        return self.ends(job, r"No space left on device|\d+ bytes are free on this disk", may_finish=True)

    def unreadable(self):
        """As another user: what cannot be read or written is named."""
        if not self.root("another user"):
            return None
        run, data = self.folder / "run", self.folder / self.random.choice(["a.h5", "b.h5"])
        where = self.random.choice(["data", "data at the stage's end", "a folder for data", "output", "checkpoints"])
        self.story.append(f"{where} cannot be used ({data.name})")
        subprocess.run(["chown", "-R", "65534:65534", self.folder], check=True)
        aside = data.with_suffix(".aside")
        harm, restore, expected = {
            "data": (lambda: data.chmod(0), lambda: data.chmod(0o644), data.name),
            "data at the stage's end": (lambda: data.chmod(0), lambda: data.chmod(0o644), data.name),
            "a folder for data": (lambda: (data.rename(aside), data.mkdir()), lambda: (data.rmdir(), aside.rename(data)), data.name),
            "output": (lambda: (run.mkdir(exist_ok=True), run.chmod(0o555), os.chown(run, 0, 0)), lambda: run.chmod(0o755), "run"),
            "checkpoints": (lambda: (run.mkdir(exist_ok=True), os.chown(run, 65534, 65534), self.move(run / "checkpoints", aside), (run / "checkpoints").touch()),
                            lambda: ((run / "checkpoints").unlink(), self.move(aside, run / "checkpoints")), "run/checkpoints"),
        }[where]
        if where == "data at the stage's end":
            job = self.runs.start(self.layout, nobody=True)
            if Moment("line", r"iteration +[2-7]/").wait_for(job):
                harm()
        else:
            harm()
            job = self.runs.start(self.layout, nobody=True)
        why = r"(Permission denied|[Ii]s a directory|[Nn]ot a (directory|folder|file)|not an HDF5 file|File exists)"
        hit = self.ends(job, rf"{re.escape(expected)}\b.*{why}|{why}.*{re.escape(expected)}\b")
        restore()
        return hit

    @staticmethod
    def move(old, new):
        if old.exists():
            old.rename(new)

    def cut_link(self):
        """Ranks on two hosts; the network between them is cut."""
        if not self.root("hosts of their own") or not shutil.which("ip"):
            return None
        state = self.runs.work / "hosts"
        environment = {"N": "2", "P": "aff", "STATE": str(state)}
        hosts = [str(FOLDER.parent / "mpi/hosts.sh")]
        agent = str(FOLDER.parent / "mpi/host_exec.sh")
        if subprocess.run(["bash", *hosts, "up"], env={**os.environ, **environment}, capture_output=True).returncode:
            self.skipped.append("cut_link: hosts cannot be made")
            return None
        self.undo.append(lambda: subprocess.run(["bash", *hosts, "down"], env={**os.environ, **environment}, capture_output=True))
        # Who finds it: mpirun, if it is told to ask its daemons for a sign of life, or the trainer, whose MPI_Abort then needs mpirun to give up
        # its connection (the system's default is 15 minutes, and 480 s in mpirun).
        by_mpirun = self.random.random() < 0.5
        asking = ["--mca", "oob_tcp_keepalive_time", "4", "--mca", "oob_tcp_keepalive_intvl", "2", "--mca", "oob_tcp_keepalive_probes", "3"]
        for host in ("aff1", "aff2"):
            subprocess.run(["ip", "netns", "exec", host, "sysctl", "-qw", "net.ipv4.tcp_retries2=3"], check=True)
        each = self.ranks // 2
        mpirun = [agent, "10.77.0.1", "mpirun", "--mca", "plm", "rsh", "--mca", "plm_rsh_agent", agent, "--host", f"10.77.0.1:{each},10.77.0.2:{each}", "--bind-to",
                  "none", "--mca", "pml", "ob1", "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_if_include",
                  "10.77.0.0/24", "--mca", "mpi_yield_when_idle", "1", *(asking if by_mpirun else [])]
        job = self.runs.start(self.layout, *([] if by_mpirun else [HEARTBEAT]), mpirun=mpirun, environment=environment, slow=30)
        moment = Moment("line", self.random.choice([r"^stage stage1", r"iteration +2/", r"iteration +5/", r"^ saved ", r"^stage stage2"]), self.random.uniform(0, 0.03))
        self.story.append(f"the link between two hosts cut {moment}")
        if moment.wait_for(job):
            subprocess.run(["ip", "-n", "aff-sw", "link", "set", "p2", "down"], check=True)
        return self.ends(job, r"lost communication with a remote daemon|unable to reliably start one or more daemons" if by_mpirun else r"rank \d+ on aff\d has shown no sign of life .*the network from there to aff\d is")

    def root(self, what):
        if os.geteuid() != 0:
            self.skipped.append(f"{what} needs root")
        return os.geteuid() == 0


def tail(output):
    return [line[:240] for line in output.splitlines() if "iteration" not in line or "error" in line][-14:]
