"""What holds for every command of ``sem``: its help, wrong words, its output's reader, and Ctrl-C."""

import io
import os
import signal
import subprocess
import sys

import pytest

from sem.cli import SEM, main
from sem.command_line import Command, Parser, guarded, perform


def paths(words=(), command=SEM):
    yield words
    for name, other in command.subcommands.items():
        yield from paths((*words, name), other)


PATHS = [*paths()]
HELPS = """
import contextlib, io, sys
from sem.cli import main

for words in {paths}:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        try:
            status = main([*words, "--help"])
        except SystemExit as ending:
            status = ending.code
    heavy = ("torch", "numpy", "yaml", "matplotlib", "h5py", "transformers", "fastapi", "uvicorn")
    wrong = [name for name in heavy if name in sys.modules]
    if status or wrong or len(shown.getvalue()) < 80:
        sys.exit(f"sem {{' '.join(words)}} --help: status {{status}}, loads {{wrong}}, {{shown.getvalue()}}")
print(len(sys.modules))
"""


def test_every_help_answers_without_loading_what_takes_seconds():
    assert len(PATHS) > 30 and ("trace", "record", "cayley") in PATHS and ("bench", "step") in PATHS
    done = subprocess.run(
        [sys.executable, "-c", HELPS.format(paths=PATHS)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450  # rich, which the table of nanoBragg's flags is printed with, is most of them


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "sem trian: no such command; did you mean train?"),
        (["ptycho", "simulat"], "sem ptycho simulat: no such subcommand; did you mean simulate?"),
        (["train", "--nothing"], "--nothing: unknown option; see sem train --help"),
        (["train", "--resum", "x"], "--resum: unknown option; did you mean --resume?"),
        (["train", "--max_steps=3"], "--max_steps: unknown option; did you mean --training.max_steps?"),
        (["train", "somewhere"], "somewhere: expected no such argument; see sem train --help"),
        (["train", "--training.max_stepz", "3"], "training.max_stepz: unknown key; did you mean training.max_steps?"),
        (["generate", "--lenght", "3"], "--lenght: unknown option; did you mean --length?"),
        (["generate"], "sem generate: the following arguments are required: checkpoint; see sem generate --help"),
        (["check", "--steps", "few"], "sem check: --steps = 'few': expected an integer; see sem check --help"),
        (["bench", "--repeats", "3"], "sem bench: --repeats: expected at least 7, got 3; see sem bench --help"),
        (
            ["bench", "--device", "cude"],
            "sem bench: --device = 'cude': expected one of cpu, cuda; did you mean cuda?; see sem bench --help",
        ),
        (["trace", "compare", "a", "b", "--mark", "x"], "--mark: unknown option; did you mean --markdown?"),
        (["diffraction", "compare", "a", "b", "--peeks", "3"], "--peeks: unknown option; did you mean --peaks?"),
        (["tokenizer", "train", "--vocab", "3"], "--vocab: unknown option; did you mean --vocab_size?"),
    ],
)
def test_a_wrong_word_is_one_sentence_with_the_nearest_name(words, message, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == f"sem: {message}\n" and captured.out == ""


def test_values_that_look_like_options_are_values():
    parser = Parser("sem walk", "Walk.")
    parser.add_argument("place", nargs="?")
    parser.add_argument("--by", type=float)
    parser.add_argument("--say")
    for number in ("-1.5", "-1e-3", "-.5E2", "-inf"):
        assert parser.parse(["--by", number]).by == float(number)
    with pytest.raises(ValueError, match="^--say: a value that begins with - goes behind =: --say=-word$"):
        parser.parse(["--say", "-word"])
    assert parser.parse(["--say", "-a word with spaces"]).say == "-a word with spaces"
    assert parser.parse(["--say=--by"]).say == "--by"
    assert parser.parse(["--", "--say"]).place == "--say"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sem {sys.modules['sem'].__version__}\n"


def test_a_shell_completes_commands_options_and_choices(tmp_path):
    pytest.importorskip("argcomplete", reason="pip install argcomplete")

    def offered(line):
        answer = tmp_path / "answer"
        asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
        environment = os.environ | asked | {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
        done = subprocess.run([sys.executable, "-m", "sem"], env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return {word.strip() for word in answer.read_text().splitlines()}

    assert offered("sem tr") == {"train", "trace"}
    assert offered("sem train --training.max_st") == {"--training.max_steps"}
    assert offered("sem train --encoder.kind t") == {"transport"}
    assert {"simulate", "train", "sweep"} <= offered("sem ptycho ")


def test_no_color_is_heard(tmp_path, monkeypatch, capsys):
    for name, text in {"a": "x = 1.0 2.0\n", "b": "x = 1.0 3.0\n"}.items():
        (tmp_path / name).write_text(text)

    def printed():
        assert main(["trace", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
        return capsys.readouterr().out

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in printed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in printed()


def started(words, **more):
    environment = os.environ | more.pop("environment", {})
    return subprocess.Popen([sys.executable, "-m", "sem", *words], env=environment, stderr=subprocess.PIPE, **more)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["diffraction", "simulate", "-help"]])
def test_a_reader_who_has_had_enough_ends_a_command_in_silence(words):
    reading, writing = os.pipe()
    os.close(reading)
    child = started(words, stdout=writing)
    os.close(writing)
    assert child.communicate(timeout=60)[1] == b""
    assert child.returncode == 1


def test_letters_that_the_output_cannot_encode_are_spelled_out():
    code = "from sem.command_line import guarded; guarded(lambda: print('5 \\xb5m, \\u2713'))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"5 \\xb5m, \\u2713\n", b"")


def test_errors_of_a_command_are_one_line_and_a_bug_shows_where_it_is(capsys):
    def failing(error):
        def run():
            raise error

        return run

    for error, status, line in (
        (ValueError("steps = 0: expected more"), 2, "sem: steps = 0: expected more\n"),
        (FileNotFoundError(2, "No such file", "a.pt"), 1, "sem: a.pt: No such file\n"),
        (MemoryError(), 1, "sem: not enough memory\n"),
        (KeyboardInterrupt(), 130, "\nsem: stopped by Ctrl-C\n"),
    ):
        assert guarded(failing(error)) == status
        assert capsys.readouterr().err == line
    assert guarded(failing(AssertionError("never"))) == 1
    told = capsys.readouterr().err
    assert "in run" in told and told.endswith("please report it with the lines above and what sem info prints\n")
    with pytest.raises(ValueError, match="once"):
        guarded(failing(ValueError("once")), debug=True)


class Pressing(io.StringIO):
    """A terminal whose user presses Ctrl-C at the first words that have ``text`` in them."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def write(self, text):
        count = super().write(text)
        if self.text and self.text in self.getvalue():
            self.text = ""
            signal.raise_signal(signal.SIGINT)
        return count

    def isatty(self):
        return True


@pytest.fixture
def interruptible():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_a_tokenizer_reads_is_one_line(tmp_path, monkeypatch, interruptible):
    for number in range(300):
        (tmp_path / f"{number}.txt").write_text(f"words and more words of {number}\n" * 20)
    terminal = Pressing("read 100 documents")
    monkeypatch.setattr(sys, "stderr", terminal)
    words = ["--data.paths", str(tmp_path), "--vocab_size", "270", "--output", str(tmp_path / "t.json")]
    assert main(["tokenizer", "train", *words]) == 130
    assert terminal.text == "" and terminal.getvalue().endswith("\nsem: stopped by Ctrl-C\n")
    assert "Traceback" not in terminal.getvalue() and not (tmp_path / "t.json").exists()


def test_a_group_names_its_subcommands_and_a_command_may_be_both():
    seen = []

    def run(options):
        seen.append(options.times)
        return 0

    def add(parser):
        parser.add_argument("--times", type=int, default=1)

    both = Command(help="walk", add_arguments=add, run=run, subcommands={"back": Command(help="back", run=lambda _: 7)})
    assert perform(("sem", "walk"), both, ["--times", "3"]) == 0 and seen == [3]
    assert perform(("sem", "walk"), both, ["back"]) == 7
