"""Python programs in processes of their own, without the seconds that each would take to import torch.

`run_python` takes what `python` takes. Its processes are forked from a server, which is started once, has imported libraries
alone, and runs without `site`, so that it knows nothing of this project. The Hugging Face libraries are not among what it has
imported: they read the environment when they are imported, and each process has one of its own.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path


# bitsandbytes is not among them: it may start CUDA, which a forked process cannot use then.
LIBRARIES = """
import fsspec, functorch.compile, jinja2, numpy, pandas, PIL.Image, pyarrow.parquet, regex, safetensors.torch, scipy.stats
import sklearn.feature_extraction.text, sklearn.isotonic, sklearn.linear_model, sklearn.metrics, tokenizers, tqdm, yaml
import torch._dynamo.repro.after_dynamo, torch._inductor.compile_fx, torch.distributed.elastic.agent.server.api
import torch.distributed.checkpoint, torch.distributed.tensor.parallel
"""
# Runs in the server; what is below the loop, in each process that is forked from it.
SERVER = """
import gc, json, os, runpy, sys, tempfile, types

gc.disable()  # nothing that is imported goes away again
LIBRARIES
libraries = sys.path[1:]
early = {"dataset_scripts", "evaluate", "huggingface_hub", "modeling_icd", "transformers"} & sys.modules.keys()
assert not early, f"what is to be imported by each process is here: {early}"
gc.freeze()
for line in iter(sys.stdin.buffer.readline, b""):
    request = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

gc.enable()
os.environ.clear()
os.environ.update(request["environment"])
os.chdir(request["cwd"])
for number, path in enumerate(request["streams"]):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(file, number)
    os.close(file)
tempfile.tempdir = None
option, *sys.argv[:] = request["arguments"]
given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
sys.path[:] = ["" if option == "-c" else os.getcwd(), *filter(None, given), *libraries]
if option == "-m":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    program, sys.argv[0] = sys.argv[0], option
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(program, "<string>", "exec"), vars(main))
""".replace("LIBRARIES", LIBRARIES)


class ForkServer:
    """The server, while it is needed."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="own-processes-")
        environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-S", "-c", SERVER], env=environment, text=True, **pipes)

    def run(self, arguments: list[str], cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        streams = [os.devnull, *(os.path.join(self.folder.name, name) for name in ("stdout", "stderr"))]
        request = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment), "streams": streams}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline()
        assert status, "the server of processes has ended, and said why on its standard error"
        printed = [Path(path).read_text() for path in streams[1:]]
        for path in streams[1:]:
            os.remove(path)
        return subprocess.CompletedProcess(arguments, int(status), *printed)

    def end(self) -> None:
        self.process.communicate()
        self.folder.cleanup()


_servers: list[ForkServer] = []


def run_python(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `python -c PROGRAM` or `python -m MODULE` does with arguments, in the folder `cwd`.

    It finds what lies in that folder, what `PYTHONPATH` names, and the installed packages, but not a project that is installed in
    place. `environment` is added to that of the tests.
    """
    if not _servers:
        _servers.append(ForkServer())
    return _servers[0].run([str(word) for word in arguments], cwd, {**os.environ, **(environment or {})})


def end_server() -> None:
    while _servers:
        _servers.pop().end()
