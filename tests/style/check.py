#!/usr/bin/env python3
"""The structure that reading the code relies on: folders are layers, each library enters in one file, nothing hidden.

Run at the root of a checkout. It first breaks each rule in a copy that it makes up and must find every break."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks  # noqa: E402

LAYERS = {  # folder: folders it may include
    "core": {"core"},
    "parallel": {"parallel", "core"},
    "data": {"data", "core"},
    "models": {"models", "parallel", "core"},
    "launch": {"launch", "models", "parallel", "data", "core"},
}
WRAPPERS = {  # a third-party header enters in these files only
    r"mpi\.h": {"parallel/comm_mpi.cc"},
    r"nccl\.h": {"parallel/comm_nccl.cc"},
    r"cblas\.h": {"core/ops/matmul_cblas.cc"},
    r"cublas.*\.h": {"core/ops/matmul_cuda.cc"},
    r"cudnn.*\.h": {"core/ops/attention_cuda.cc"},
    r"hdf5\.h|H5.*\.h": {"data/hdf5_file.cc"},
    r"yaml-cpp/.*": {"launch/config_yaml.cc"},
    r"nlohmann/.*": {"data/json.cc"},
    r"utf8proc\.h": {"data/unicode.cc"},
    r"zlib\.h": {"data/gzip_stream.cc"},
    r"zstd.*\.h": {"data/zstd_stream.cc"},
    r"xxhash\.h": {"data/hash.cc"},
    r"curl/.*": {"data/synthesis/http_client.cc"},
    r"sqlite3.*\.h": {"data/synthesis/database.cc"},
    r"cuda.*\.h": {"core/kernel.h"},
}
TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "LICENSE", "tests", "examples", *LAYERS}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def problems_of(path: str, text: str) -> list[str]:
    """What is wrong with one source file; `path` is relative to the root."""
    found = []
    folder = path.split("/")[0]
    code = re.sub(r"//[^\n]*", "", text)
    for bracket, header in INCLUDE.findall(code):
        target = header.split("/")[0]
        if bracket == '"' and folder in LAYERS:
            if "/" not in header:
                found.append(f'{path}: #include "{header}" is not relative to the root')
            elif target not in LAYERS[folder]:
                found.append(f"{path}: layer {folder} includes {header}; it may include {', '.join(sorted(LAYERS[folder]))}")
        for pattern, files in WRAPPERS.items():
            if re.fullmatch(pattern, header) and path not in files and folder in LAYERS:
                found.append(f"{path}: <{header}> enters in {' and '.join(sorted(files))} only")
    if folder not in LAYERS:
        return found
    if path.endswith(".h") and "#pragma once" not in text:
        found.append(f"{path}: no #pragma once")
    if path not in ("core/kernel.h", "core/simd.h") and re.search(r"^\s*#\s*(if|ifdef|ifndef|elif)\b", code, re.M):
        found.append(f"{path}: a conditional of the preprocessor; these stand in core/kernel.h (device) and core/simd.h (vector unit)")
    if folder != "launch" and re.search(r"\bgetenv\b", code):
        found.append(f"{path}: getenv below launch; parallelism and settings are passed, never looked up")
    if re.search(r"\bthread_local\b", code):
        found.append(f"{path}: thread_local state is hidden from the caller")
    if re.search(r"\b(TODO|FIXME|XXX)\b|not implemented", text):
        found.append(f"{path}: unfinished by its own words")
    if re.search(r"\busing namespace\b", code) and path.endswith(".h"):
        found.append(f"{path}: using namespace in a header")
    return found


BROKEN = {  # each of these must be found
    "core/a.cc": '#include "models/qwen3.h"\n',
    "data/b.cc": '#include "parallel/linear.h"\n',
    "models/c.cc": '#include "data/json.h"\n',
    "parallel/d.cc": '#include "models/moe.h"\n',
    "core/e.cc": '#include "tensor.h"\n',
    "launch/f.cc": "#include <hdf5.h>\n",
    "data/g.cc": "#include <nlohmann/json.hpp>\n",
    "core/h.h": "int x;\n",
    "core/i.cc": "#ifdef __CUDACC__\n#endif\n",
    "models/j.cc": 'const char* a = getenv("A");\n',
    "core/k.cc": "thread_local int calls;\n",
    "launch/l.cc": "// TO" + "DO later\n",
    "core/m.h": "#pragma once\nusing namespace af;\n",
}


TYPE = re.compile(r"^(?:template <[^>\n]*>\n?\s*)?(?:class|struct|enum class) (\w+)(?![\w:<])[^;{]*\{", re.M)


def repeated_types(sources: dict[str, str]) -> list[str]:
    """Types of namespace af that two files define: the linker keeps one of their functions for both."""
    files = {}
    for path, text in sources.items():
        if path.split("/")[0] in LAYERS:
            shared = re.sub(r"^namespace \{$.*?^\}  // namespace$", "", text, flags=re.M | re.S)
            for name in TYPE.findall(shared):
                files.setdefault(name, []).append(path)
    return [f"{' and '.join(paths)}: each defines a type {name}; one needs another name, or a namespace without one" for name, paths in files.items() if len(set(paths)) > 1]


def main() -> int:
    check = Checks()
    twice = {"core/a.h": "namespace af {\nstruct Twice {\n};\n}\n", "data/b.cc": "namespace af {\nclass Twice : public A {\n};\n}\n"}
    apart = {"core/a.h": twice["core/a.h"], "data/b.cc": "namespace af {\nnamespace {\nclass Twice {\n};\n}  // namespace\nstruct Twice::Part {\n};\n}\n"}
    check("a type that two files define is found, and no other", len(repeated_types(twice)) == 1 and not repeated_types(apart))
    for path, text in BROKEN.items():
        check(f"what is wrong with {path} is found", problems_of(path, text), repr(text))
    root = pathlib.Path(".")
    sources = {}
    for folder in [*LAYERS, "tests", "examples"]:
        files = [p for p in sorted((root / folder).rglob("*")) if p.suffix in (".h", ".cc")]
        texts = {p.as_posix(): p.read_text(encoding="utf-8") for p in files}
        sources.update(texts)
        found = [problem for path, text in texts.items() for problem in problems_of(path, text)]
        check(folder, not found, "\n".join(found))
    repeated = repeated_types(sources)
    check("a type is defined once", not repeated, "\n".join(repeated))
    strangers = sorted(p.name for p in root.iterdir() if not p.name.startswith(".") and p.name not in TOP_LEVEL | {"build", "runs"})
    check(f"at the top level are {', '.join(sorted(TOP_LEVEL))} alone", not strangers, ", ".join(strangers))
    without = [p.as_posix() for p in (root / "examples").iterdir() if p.is_dir() and not (p / "README.md").exists()]
    check("every example has a README.md", not without, ", ".join(without))
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
