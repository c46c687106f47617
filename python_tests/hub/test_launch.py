import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_hub import JOB_ID, TOKEN
from huggingface_hub import HfApi, constants

from sem.cli import main
from sem.config import SEMConfig
from sem.hub.job import Job, build_job
from sem.huggingface import SILENCE, HubError, hub_errors, huggingface_hub

ROOT = Path(__file__).parents[2]
L40S = str(ROOT / "configs/l40s.yaml")
SECRET = "swordfish-7c1f"
SOURCE = "https://${GIT_KEY}@example.org/sem.tar.gz"
LAUNCH = (
    "--launch.hub_repo=me/waves",
    f"--launch.source={SOURCE}",
    "--launch.secrets",
    "HF_TOKEN",
    "GIT_KEY",
    "--config",
    L40S,
)
CONFIG = SEMConfig.from_yaml(
    L40S, ["launch.hub_repo=me/waves", f"launch.source={SOURCE}", "launch.secrets=[HF_TOKEN, GIT_KEY]"]
)


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("GIT_KEY", SECRET)


def launch(*more):
    return main(["launch", *LAUNCH, *more])


def no_secret_in(*texts):
    return not any(value in text for value in (SECRET, TOKEN) for text in texts)


def test_dry_run_is_what_is_sent_with_secrets_masked(hub, capsys):
    assert launch("--dry-run") == 0
    shown = capsys.readouterr().out
    assert hub.requests == [] and no_secret_in(shown)
    assert launch() == 0
    assert no_secret_in(capsys.readouterr().out)
    ((namespace, sent),) = hub.jobs
    shown = yaml.safe_load(shown)
    assert namespace == "me" and shown["namespace"] is None
    assert shown["timeout"] == "24h" and sent["timeoutSeconds"] == 24 * 3600
    assert set(shown["secrets"]) == set(sent["secrets"]) and set(shown["secrets"].values()) == {"********"}
    assert sent["secrets"] == {"HF_TOKEN": TOKEN, "GIT_KEY": SECRET}
    assert (shown["image"], shown["env"]) == (sent["dockerImage"], sent["environment"])
    assert (shown["flavor"], shown["command"]) == (sent["flavor"], sent["command"])


def test_dry_run_needs_neither_token_nor_network_nor_secrets(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("GIT_KEY")
    assert launch("--dry-run") == 0
    assert "GIT_KEY: '********'" in capsys.readouterr().out


def test_the_configuration_that_travels_is_the_one_that_was_checked(tmp_path):
    job = build_job(CONFIG)
    (tmp_path / "job.yaml").write_text(job.env["SEM_CONFIG"])
    assert SEMConfig.from_yaml(tmp_path / "job.yaml") == CONFIG
    assert json.loads(job.env["SEM_CONFIG"])["training"]["precision_mode"] == "selective-bf16"
    assert "\n" not in job.command[2]
    assert no_secret_in(repr(job))


def test_settings_decide_the_job():
    def job(*overrides) -> Job:
        return build_job(CONFIG.with_overrides(*overrides))

    assert job("launch.flavor=a100x4", "training.devices=4").command[2].count("torchrun --standalone") == 1
    assert "torchrun" not in job("training.engine=lightning", "training.devices=4").command[2]
    assert job("training.engine=lightning").env["SEM_REQUIREMENT"] == f"sem-torch[hub,lightning] @ {SOURCE}"
    assert job("launch.source=/opt/sem").env["SEM_REQUIREMENT"] == "/opt/sem[hub]"
    assert "git" not in job().command[2]
    assert "install -y -qq git" in job("launch.source=git+https://example.org/sem").command[2]
    assert "'runs/a; b'" in job("training.output_dir=runs/a; b").command[2]
    other = job("launch.namespace=waves-inc", "launch.timeout=90m", "launch.image=debian")
    assert (other.namespace, other.timeout, other.image) == ("waves-inc", "90m", "debian")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--launch.flavor=quantum", "launch.flavor = 'quantum': expected one of those that huggingface_hub"),
        ("--launch.timeout=soon", "launch.timeout = 'soon'"),
        ("--launch.timeout=0h", "launch.timeout = '0h'"),
        ("--launch.hub_repo=null", "launch.hub_repo = None: expected owner/name"),
        ("--launch.source=null", "launch.source = None: expected what pip installs"),
        (f"--launch.source=https://me:{SECRET}@example.org/sem", "launch.source: expected no password in it"),
        ("--launch.source=https://${OTHER}@example.org/sem", "launch.source: expected OTHER among launch.secrets"),
        (f"--launch.secrets=HF_TOKEN={SECRET}", "launch.secrets: expected names"),
        (f"--launch.secrets={SECRET}", "launch.secrets: expected names"),
        ("--launch.secrets=GIT_KEY", "launch.secrets: expected HF_TOKEN among them"),
        ("--data.paths=notes", "data.paths = ['notes']: expected none"),
        (f"--data.dataset={ROOT}", "data.dataset = "),
        ("--training.num_nodes=2", "training.num_nodes = 2: expected 1"),
    ],
)
def test_what_a_job_cannot_have_is_refused_before_anything_is_sent(hub, capsys, option, words):
    assert launch(option) == 2
    error = capsys.readouterr().err
    assert words in error and no_secret_in(error)
    assert hub.requests == []


def test_resume_and_overwrite_exclude_each_other(hub, capsys):
    assert launch("--resume", "--overwrite") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert hub.requests == []


def test_missing_secret_is_named(hub, monkeypatch, capsys):
    monkeypatch.delenv("GIT_KEY")
    assert launch() == 2
    assert "GIT_KEY is not set" in capsys.readouterr().err
    assert hub.requests == []


def test_without_a_token_how_to_log_in_is_said(hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert launch() == 1
    error = capsys.readouterr().err
    assert "hf auth login" in error and "HF_TOKEN" in error
    assert hub.requests == []


def test_login_on_disk_serves_as_the_secret(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text(TOKEN)
    assert launch() == 0
    assert hub.jobs[0][1]["secrets"]["HF_TOKEN"] == TOKEN


@pytest.mark.parametrize(
    ("status", "words"), [(401, "hf auth login"), (402, "billing"), (403, "token needs"), (500, "try again later")]
)
def test_refusals_are_one_line_without_secrets(hub, capsys, status, words):
    hub.failures["POST /api/jobs/me"] = (status, f"no, {SECRET}!")
    assert launch("--launch.namespace=me") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"sem: the job was not started: the hub answered {status} (no, ********!); ")
    assert words in error and error.count("\n") == 1 and no_secret_in(error)


def test_bad_token_and_unreachable_hub_are_one_line(hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert launch() == 1
    error = capsys.readouterr().err
    assert "401" in error and "hf auth login" in error and "hf_expired" not in error
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert launch() == 1
    error = capsys.readouterr().err
    assert "cannot be reached" in error and error.count("\n") == 1


def test_a_repository_with_a_run_is_neither_mixed_nor_overwritten_unasked(hub, capsys):
    hub.repos["me/waves"] = {"README.md": b"mine", "checkpoints/step_00000007.pt": b"weights"}
    assert launch() == 2
    assert "--overwrite" in capsys.readouterr().err
    assert hub.jobs == []
    assert launch("--resume") == 0
    assert "checkpoints/step_00000007.pt" in hub.repos["me/waves"]
    assert launch("--overwrite") == 0
    assert hub.repos["me/waves"] == {"README.md": b"mine"}
    assert len(hub.jobs) == 2


def test_follow_streams_the_log_and_reports_the_end(hub, capsys):
    hub.log = ["step 1", f"oops {SECRET}"]
    assert launch("--follow") == 0
    output = capsys.readouterr().out
    assert f"job {JOB_ID}: {hub.url}/jobs/me/{JOB_ID}" in output
    assert "step 1\noops ********\n" in output
    assert f"job {JOB_ID}: COMPLETED" in output
    hub.stage = "ERROR"
    assert launch("--follow") == 1


def test_interrupted_follow_leaves_the_job(hub, monkeypatch, capsys):
    def interrupted(*_, **__):
        yield "step 1"
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "fetch_job_logs", interrupted)
    assert launch("--follow") == 0
    output = capsys.readouterr().out
    assert f"hf jobs logs --follow --namespace me {JOB_ID}" in output
    assert f"hf jobs cancel --namespace me {JOB_ID}" in output
    assert not any("cancel" in request for request in hub.requests)


def test_an_answer_that_is_no_json_is_one_line_and_a_silent_hub_is_not_waited_for():
    with pytest.raises(HubError, match="asking: the hub's answer is no JSON .*try again later"), hub_errors("asking"):
        json.loads("<html>")
    assert huggingface_hub().get_session().timeout.read == SILENCE


def test_a_hub_that_never_answers_ends_in_one_line(hub, monkeypatch, capsys):
    monkeypatch.setattr("sem.huggingface.PATIENCE", 0.3)
    hub.awake.clear()
    assert launch() == 1
    assert "the hub cannot be reached (no answer within 0.3 s; try again later)" in capsys.readouterr().err
    assert not hub.jobs


def test_missing_library_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert launch("--dry-run") == 1
    assert "pip install 'sem-torch[hub]'" in capsys.readouterr().err


def test_the_command_that_is_sent_trains_and_a_restarted_job_continues(hub, tmp_path):
    overrides = [
        *("model.hidden_dim=16", "model.num_layers=1", "model.max_seq_length=16", "encoder.sdr_candidates=8"),
        *("encoder.sdr_sparsity=4", "encoder.projection_dim=8", "spinor.state_dim=4", "spinor.mimo_groups=2"),
        *("propagator.laplacian_sparsity=2", "training.batch_size=2", "training.eval_batches=1"),
        *("training.num_threads=1", "training.final_eval_batches=1", "generation.max_new_tokens=4"),
        *("training.max_steps=2", "training.output_dir=runs/job", "training.loggers=[csv]"),
        *("launch.hub_repo=me/waves", "launch.source=/opt/sem"),
    ]
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("python", f'exec {sys.executable} "$@"'), ("pip", 'cp "$3" installed.txt')):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)

    def run(machine, *more):
        """The job as it is sent, on a machine whose disk is empty."""
        job = build_job(SEMConfig().with_overrides(*overrides, *more))
        (tmp_path / machine).mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            **job.env,
            "HF_TOKEN": TOKEN,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / machine / "hf"),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            job.command, cwd=tmp_path / machine, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "done after step 2" in run("first")
    assert (tmp_path / "first/installed.txt").read_text() == "/opt/sem[hub]\n"
    kept = hub.repos["me/waves"]
    assert {"config.yaml", "metrics.csv", "final.json", "checkpoints/step_00000002.pt"} <= set(kept)
    assert hub.private["me/waves"]
    output = run("second", "training.max_steps=3")
    assert "fetched the run after step_00000002" in output and "continuing after step 2" in output
    steps = [line.split(b",")[0] for line in hub.repos["me/waves"]["metrics.csv"].splitlines()]
    assert steps == [b"step", b"1", b"2", b"3"]
