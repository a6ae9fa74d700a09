"""A scripted teacher: answers the prompts of `af_synth fas` and `has` (examples/synthesis/prompts) as a model would, by the prompt and the seed alone,
and small inputs for both programs."""
import hashlib
import json


def draw(request):
    return int(hashlib.sha256(json.dumps([request["messages"], request["seed"]]).encode()).hexdigest()[:12], 16)


def step(number, words):
    query = json.dumps({"name": "search", "arguments": {"query": [f"{words} {number}"]}})
    return f"<think>\nThe question has two parts; number {number} of the ways to begin is to look for {words}, then to compare.\n</think>\n<tool_call>\n{query}\n</tool_call>"


def year(case):
    return 1000 + case % 997


def policy(request):
    """One question in nine is not readable, one plan in seven calls a tool that does not exist, the judge rejects one in five, one answer in four is wrong."""
    prompt, number = request["messages"][0]["content"], draw(request)
    if prompt.startswith("You write questions"):
        case = number % 100003
        return "I cannot." if number % 9 == 0 else f"<question>Which year belongs to case {case}?</question>\n<answer>{year(case)}</answer>"
    if prompt.startswith("You judge the first step"):
        kinds = ["content_inconsistency", "search_necessity", "logic_discontinuity", "invalid_tool"]
        return f"<verdict>{kinds[number % 4] if number % 5 == 0 else 'keep'}</verdict>"
    if "Do only the first step" in prompt:
        return step(number % 1009, "the case").replace('"search"', '"telephone"' if number % 7 == 0 else '"search"')
    if prompt.startswith("Answer the question from what you know"):
        return "<think>\nI have to guess here.\n</think>\n<answer>1</answer>"
    if prompt.startswith("Below are a question"):
        case = int(prompt.split("belongs to case ")[1].split("?")[0])
        said = year(case) + (number % 4 == 0)
        return f"<think>\nCase {case} is well known, and its year stands in the books that everybody reads about such cases.\n</think>\n<answer>{said}</answer>"
    assert "Propose" in prompt, prompt[:200]
    count = int(prompt.split("Propose ")[1].split()[0])
    return "\n".join(f"<alternative>\n{step(number % 1000 + i, 'another way')}\n</alternative>" for i in range(count))


def documents(count):
    """JSON lines for `af_synth memory --documents`."""
    lines = []
    for i in range(count):
        name = f"Harbour {chr(65 + i % 26)}{i}"
        text = (f"{name} was opened in {1700 + 3 * i}. It has {i + 2} quays and lies on the river Nr {i // 3}. "
                f"The master of {name} since {1990 + i % 30} lives in house {7 * i} of its oldest street.")
        lines.append(json.dumps({"title": name, "text": text, "url": f"http://example.org/{i}", "date": "2024-05"}))
    return "\n".join(lines) + "\n"


def trajectories(count, responses=2):
    """JSON lines for `af_synth has --trajectories`: the responses hold special tokens and odd white space; half of the answers are right."""
    lines = []
    for i in range(count):
        messages = [{"role": "user", "content": f"How many quays has harbour {i}?"}]
        for k in range(responses):
            messages.append({"role": "assistant", "content": step(1000 * i + k, "quays")})
            messages.append({"role": "user", "content": f"<tool_response>\n  page {k} \u00e9 <|im_end|>\r\n\n of {i}\t</tool_response>"})
        messages.append({"role": "assistant", "content": f"<think>\nIt is said on page 1.\n</think>\n<answer>{i + i % 2}</answer>"})
        lines.append(json.dumps({"messages": messages, "answer": str(i)}, ensure_ascii=False))
    return "\n".join(lines) + "\n"
