"""How a program of this project starts, and how it ends: with its result, or with one sentence.

Nothing here decides a result, so no stage in dvc.yaml depends on this file.
"""

import errno
import os
import sys

# Import only what Python has already loaded: any other module could be a file of that name in the working folder.
# ruff: noqa: PTH109, PTH113, PTH118, PTH208
from importlib.machinery import PathFinder, all_suffixes

INTERRUPTED = "interrupted; type the same command to go on."
OWN = {"peftqa", "stages", "experiments", "benchmarks", "tests", "test"}


def start() -> None:
    """Call this before the imports that take time. It ends a program that cannot work here.

    From now on Ctrl-C ends the program with a sentence. If DVC ends, the stages that it started end too.
    """
    try:
        for path, name in hidden_modules():
            sys.exit(f"error: {path} hides the module {name}, which Python or a library needs; rename it or move it.")
    except OSError as error:
        sys.exit(f"error: the working folder cannot be read ({error.strerror}); change to another one.")
    if sys.flags.optimize > 1:
        sys.exit("error: PYTHONOPTIMIZE=2 or -OO removes docstrings that the libraries need; unset it.")
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs of a shell ignore Ctrl-C
        signal.signal(signal.SIGINT, end_at_once)
    if "DVC_STAGE" in os.environ:
        end_with_parent()
        if os.getsid(os.getppid()) != os.getsid(0):  # an orphan's new parent is in another session
            sys.exit("error: the DVC that started this stage has ended.")


def end_at_once(*_: object) -> None:
    """A handler for Ctrl-C that waits for nothing: no thread, no `finally`."""
    import signal

    say(INTERRUPTED)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def hidden_modules():
    """Path and name of each module in the working folder that Python would take instead of an installed one."""
    here = os.path.realpath(os.getcwd())
    others = [folder for folder in sys.path if os.path.realpath(folder) != here]
    if len(others) == len(sys.path):
        return
    for entry in sorted(os.listdir(here)):
        name = entry.partition(".")[0]
        is_module = entry.endswith(tuple(all_suffixes())) or os.path.isfile(f"{entry}/__init__.py")
        if is_module and name not in OWN and name.isidentifier() and PathFinder.find_spec(name, others):
            yield os.path.join(here, entry), name


def end_with_parent() -> None:
    """Let Linux kill this process when its parent ends: a stage must not write while the next `dvc repro` runs."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG in <linux/prctl.h>


def run(main) -> None:
    """Call `main()` and end the program: with its result, or with one sentence and exit code 1.

    A UserError, an error of the system (a full disk, a missing right) and Ctrl-C become one sentence on standard error.
    After Ctrl-C the process ends by that signal, as a shell, make and DVC expect. If the reader of standard output has
    gone, it ends by SIGPIPE. Any other exception is a mistake of this project and keeps its traceback.
    """
    start()
    import signal

    from peftqa.errors import UserError, one_line

    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # so that `main` can clean up
    if sys.stdout is None:
        sys.exit("error: standard output is closed; send it to a terminal or a file.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal that does not know β
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        end_at_once()
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
    except Exception as error:
        sentence = error if isinstance(error, UserError) else explain(error)
        if sentence is None:
            raise
        say(one_line(sentence))
        sys.exit(1)


def explain(error: Exception) -> str | None:
    """A sentence for an error of the system: what is wrong, where, and what to do. None for any other error."""
    import re
    import shutil

    # Libraries written in Rust (safetensors, tokenizers) give the system's error as a number in their text.
    number = re.search(r"\(os error (\d+)\)", str(error))
    code = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
    if code is None and shutil.disk_usage(".").free < 2**16:
        code = errno.ENOSPC  # torch then says only "iostream error"
    if code is None:
        return str(error) if isinstance(error, OSError) else None
    where = getattr(error, "filename", None) or f"standard output, or a file below {os.getcwd()}"
    return f"{where}: {os.strerror(code)}; mend this and run the same command again."


def say(sentence: str) -> None:
    """Print an error to standard error, or if that is closed, to standard output. What cannot be written is dropped."""
    for stream, text in ((sys.stderr or sys.stdout, f"error: {sentence}\n"), (sys.stdout, "")):
        try:
            stream.write(text)
            stream.flush()
        except (OSError, RuntimeError):  # a full disk, or Ctrl-C during a write
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else Python would write again at exit
