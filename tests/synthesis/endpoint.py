"""An OpenAI-compatible endpoint that fails as it is told to, and remembers what it was asked. Python's standard library alone.

    with Endpoint(plan) as endpoint: ...  # endpoint.url is what --endpoint takes
`plan(request, attempt)` names the fault (see Endpoint.fault) for the attempt-th time (from 0) that this request comes, or gives None: an answer.
`answer(request)` is the text of the answer; by default it depends on the messages and the seed alone."""
import asyncio
import email.utils
import hashlib
import json
import os
import socket
import struct
import threading
import time

RETRY_AFTER = 1.2  # seconds, that the faults with Retry-After ask for (rounded up where HTTP has whole seconds only)
PASSING = ["429", "429-after", "429-date", "408", "500", "503", "slow", "cut", "reset", "cut-header", "half", "half-chunked", "short-length", "not-json",
           "broken-json", "no-choices", "error-200", "empty"]
FINAL = ["400", "401", "404", "307"]


def key_of(body):
    return hashlib.sha256(body).hexdigest()


def environment(key=None):
    """For programs that are to ask it: straight, and with `key` as the API key."""
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY" and not name.lower().endswith("_proxy")}
    return {**kept, "OPENAI_API_KEY": key} if key else kept


def journal_lines(path):
    """The whole lines of a journal of answers, which may not be there yet, without its head."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text.split(b"\n")[1:-1]]


def default_answer(request):
    digest = hashlib.sha256(json.dumps([request["messages"], request["seed"]]).encode()).hexdigest()
    return f"<think>answer \u00e9\U0001f600\n\"{digest}\"</think>"


def reply_of(request, answer):
    message = {"role": "assistant", "content": answer(request)}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"id": "x", "object": "chat.completion", "model": request["model"], "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage}


class Endpoint:
    def __init__(self, plan=lambda request, attempt: None, answer=default_answer, latency=0.0, port=0, tls=None):
        self.plan, self.answer, self.latency, self.port = plan, answer, latency, port
        self.tls = tls        # an ssl.SSLContext: https
        self.targets = set()  # of the requests' first lines
        self.events = []      # (time, key, fault or None), as requests come
        self.attempts = {}    # key: the number of the latest one
        self.finished = {}    # key: answers sent whole
        self.requests = {}    # key: the request
        self.authorizations = set()
        self.now = self.most = 0  # requests at the same time
        self.not_before = {}  # key: the time before which the endpoint asked not to come again
        self.too_early = []

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        started = threading.Event()

        def run():
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=1024, ssl=self.tls))
            self.port = self.server.sockets[0].getsockname()[1]
            started.set()
            self.loop.run_forever()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        started.wait()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_):
        async def end():
            self.server.close()
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def serve(self, reader, writer):
        try:
            while await self.one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)}
        self.targets.add(head.split(" ")[1])
        body = await reader.readexactly(int(fields["content-length"]))
        key, request = key_of(body), json.loads(body)
        self.authorizations.add(fields.get("authorization"))
        self.requests[key] = request
        attempt = self.attempts[key] = self.attempts.get(key, -1) + 1
        now = time.time()
        if now < self.not_before.get(key, 0):
            self.too_early.append((key, self.not_before[key] - now))
        fault = self.plan(request, attempt)
        self.events.append((now, key, fault))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if fault:
                await self.fault(fault, request, key, writer)
                return False
            await asyncio.sleep(self.latency)
            self.finished[key] = self.finished.get(key, 0) + 1
            self.send(writer, 200, json.dumps(reply_of(request, self.answer)).encode())
        finally:
            self.now -= 1
        await writer.drain()
        return True

    def send(self, writer, status, body, headers="", length=None):
        length = len(body) if length is None else length
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body)

    async def fault(self, fault, request, key, writer):
        whole = json.dumps(reply_of(request, self.answer)).encode()
        said = json.dumps({"error": {"message": f"the endpoint's fault {fault}", "type": "test"}}).encode()
        half = len(whole) // 2
        if fault == "429-after":
            self.not_before[key] = time.time() + 2
            self.send(writer, 429, said, "Retry-After: 2\r\n")
        elif fault == "429-date":  # whole seconds: a date that is at least RETRY_AFTER away
            then = int(time.time() + RETRY_AFTER) + 1
            self.not_before[key] = then - 1  # the client's clock is read in whole seconds, too
            self.send(writer, 429, said, f"Retry-After: {email.utils.formatdate(then, usegmt=True)}\r\n")
        elif fault == "401":
            token = next(iter(self.authorizations - {None}), "nobody")
            self.send(writer, 401, json.dumps({"error": {"message": f"Incorrect API key provided: {token}"}}).encode())
        elif fault in ("401-cut", "echo-200"):  # the key stands where a message is cut
            token = next(iter(self.authorizations - {None}), "nobody")
            self.send(writer, 401 if fault == "401-cut" else 200, json.dumps({"error": {"message": "x" * 278 + token}}).encode())
        elif fault == "307":
            self.send(writer, 307, b"", "Location: http://127.0.0.1:1/elsewhere\r\n")
        elif fault.isdigit():
            self.send(writer, int(fault), said)
        elif fault == "slow":
            await asyncio.sleep(30)
        elif fault == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "cut-header":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: appli")
        elif fault == "half":
            self.send(writer, 200, whole[:half], length=len(whole))
        elif fault == "half-chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + f"{len(whole):x}\r\n".encode() + whole[:half])
        elif fault == "short-length":
            self.send(writer, 200, whole, length=half)
        elif fault == "not-json":
            self.send(writer, 200, b"<html>Bad gateway</html>")
        elif fault == "broken-json":
            self.send(writer, 200, whole[:half])
        elif fault == "no-choices":
            self.send(writer, 200, json.dumps({**json.loads(whole), "choices": []}).encode())
        elif fault == "error-200":
            self.send(writer, 200, said)
        elif fault == "empty":
            self.send(writer, 200, b"")
        else:
            assert fault == "cut", fault
        if fault not in ("cut", "reset"):
            await writer.drain()
