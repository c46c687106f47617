import io
import sys
from dataclasses import replace

import pytest

from sem.masking import MASK, MaskingStream, add_secrets, known_secrets, masked, masking

SECRET = "hf_S3cr3tS3cr3tS3cr3tS3cr3t"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "my_token", "GITHUB_TOKEN_2"]
)
def test_variables_that_say_they_are_secret(monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    assert SECRET in known_secrets()
    assert masked(f"denied for Bearer {SECRET}.") == f"denied for Bearer {MASK}."


@pytest.mark.parametrize(
    ("name", "value"), [("TOKENIZERS_PARALLELISM", "true" * 4), ("MY_TOKEN", "short"), ("KEYBOARD", "qwertzuiop")]
)
def test_other_variables(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert value not in known_secrets()


def test_the_longest_goes_first():
    add_secrets(["secret-one", "secret-one-and-more"])
    assert masked("secret-one-and-more secret-one") == f"{MASK} {MASK}"


def test_what_becomes_known_later_is_masked_too():
    written = io.StringIO()
    stream = MaskingStream(written)
    print("said before: later-secret", file=stream)
    add_secrets(["later-secret"])
    print("said after: later-secret", file=stream)
    stream.writelines(["later-secret"])
    assert written.getvalue() == f"said before: later-secret\nsaid after: {MASK}\n{MASK}"


def test_streams_come_back():
    before = sys.stdout
    with masking():
        assert sys.stdout is not before
    assert sys.stdout is before


def test_a_bug_shows_its_traceback_and_no_secret(monkeypatch, capsys):
    from sem import cli

    monkeypatch.setenv("HF_TOKEN", SECRET)

    def fail(options):
        raise KeyError(f"no entry for {SECRET}")

    monkeypatch.setitem(cli.COMMANDS, "info", replace(cli.COMMANDS["info"], run=fail))
    assert cli.main(["info"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "this is a bug; please report it" in said
    assert MASK in said and SECRET not in said
