"""Configuration: defaults, files, overrides, command lines, and one readable error for everything else."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sem.command_line import Parser
from sem.config import (
    SECTIONS,
    ModelConfig,
    SEMConfig,
    add_config_arguments,
    config_from_arguments,
    config_from_cli,
)
from sem.ptycho.training.settings import NetworkConfig
from sem.settings import setting_infos

CONFIGS = Path(__file__).parents[1] / "configs"
SETTINGS = [info for kind in SECTIONS.values() for info in setting_infos(kind)]

MAX_AGGRESSION = {
    "model": {"hidden_dim": 256, "num_layers": 8, "vocab_size": 32768, "max_seq_length": 2048},
    "encoder": {
        "sdr_sparsity": 32,
        "sdr_candidates": 128,
        "sinkhorn_epsilon": 0.05,
        "sinkhorn_max_iter": 50,
        "sinkhorn_tol": 1e-3,
    },
    "spinor": {"block_size": 8, "state_dim": 128, "mimo_groups": 16, "d_conv": 4},
    "propagator": {
        "cayley_dt": 0.01,
        "cg_max_iter": 50,
        "cg_tol": 1e-5,
        "kerr": 0.01,
        "laplacian_sparsity": 8,
        "pit_enabled": True,
        "pit_num_bins": 32,
        "pit_strength_init": 0.01,
    },
    "training": {
        "batch_size": 16,
        "micro_batch_size": 2,
        "dtype": "float32",
        "precision_mode": "selective-bf16",
        "learning_rate": 1.2e-3,
        "weight_decay": 0.1,
        "warmup_steps": 1000,
        "max_steps": 100_000,
        "gradient_clip": 1.0,
        "scheduler": "wsd",
        "decay_steps": 10_000,
        "lr_min_ratio": 0.1,
    },
}


def message_of(values: dict, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ValueError) as caught:
        SEMConfig.from_dict(values, overrides)
    return str(caught.value)


def test_max_aggression_holds_the_published_values() -> None:
    config = SEMConfig.from_yaml(CONFIGS / "max_aggression.yaml").to_dict()
    for section, values in MAX_AGGRESSION.items():
        assert {key: config[section][key] for key in values} == values


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load_and_keep_their_runs_apart(path: Path) -> None:
    config = SEMConfig.from_yaml(path)
    assert config.training.output_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_ablations_change_the_small_configuration(path: Path) -> None:
    assert SEMConfig.from_yaml([CONFIGS / "tiny.yaml", path]) != SEMConfig.from_yaml(CONFIGS / "tiny.yaml")


def test_configurations_of_networks_load_and_their_arms_differ() -> None:
    base = NetworkConfig.from_yaml(CONFIGS / "ptycho/scan32.yaml")
    for path in sorted((CONFIGS / "ptycho").glob("*.yaml")):
        arms = yaml.safe_load(path.read_text()).get("arms", {})
        configs = [base.with_overrides(*overrides).to_dict() for overrides in arms.values()]
        assert all(one != other for k, one in enumerate(configs) for other in configs[:k]), path.name


def test_later_files_win_over_earlier_ones_and_options_over_both(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{name}.yaml" for name in ("one", "two", "three"))
    one.write_text("model:\n  hidden_dim: 64\n  num_layers: 3\ntraining:\n  max_minutes: 5\n")
    two.write_text("model:\n  num_layers: 5\nspinor:\ntraining:\n  max_minutes: null\n")
    three.write_text("")
    config = config_from_cli([one, two, three], ["model.vocab_size=300"])
    assert (config.model.hidden_dim, config.model.num_layers, config.model.vocab_size) == (64, 5, 300)
    assert config.training.max_minutes is None
    with pytest.raises(ValueError, match=r"one.yaml, .*two.yaml: model.num_layers = 0: expected"):
        two.write_text("model: {num_layers: 0}")
        config_from_cli([one, two])


def test_saved_config_reads_back_equal(tmp_path: Path) -> None:
    config = config_from_cli(CONFIGS / "tiny.yaml", ["data.paths=[a b, 'c*.txt']", "generation.prompt=né: [x"])
    config.save(tmp_path / "config.yaml")
    assert SEMConfig.from_yaml(tmp_path / "config.yaml") == config
    assert config.data.paths == ("a b", "c*.txt")
    assert config.generation.prompt == "né: [x"


def test_to_dict_holds_only_plain_values() -> None:
    values = SEMConfig().to_dict()
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    assert SEMConfig.from_dict(values) == SEMConfig()


def test_configs_are_immutable_and_overrides_return_a_copy() -> None:
    config = SEMConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.training.max_steps = 3
    assert config.with_overrides("training.max_steps=3").training.max_steps == 3
    assert config.training.max_steps == 100_000


def test_row_length_follows_the_model_unless_given() -> None:
    config = SEMConfig()
    assert config.seq_length == config.model.max_seq_length
    assert config.with_overrides("data.seq_length=17").seq_length == 17


@pytest.mark.parametrize(
    ("key", "given_value", "expected"),
    [
        ("training.learning_rate", "1e-5", 1e-5),
        ("training.gradient_clip", 2, 2.0),
        ("training.max_minutes", None, None),
        ("propagator.pit_enabled", False, False),
        ("data.paths", "one.txt", ("one.txt",)),
        ("data.paths", ["a", "b"], ("a", "b")),
        ("training.device", "cuda:1", "cuda:1"),
    ],
)
def test_accepted_values(key: str, given_value: object, expected: object) -> None:
    section, name = key.split(".")
    value = getattr(getattr(SEMConfig.from_dict({section: {name: given_value}}), section), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.hidden_dim", 256.0, "an integer >= 2"),
        ("model.hidden_dim", "256", "an integer >= 2"),
        ("training.max_steps", True, "an integer >= 1"),
        ("training.max_steps", None, "an integer >= 1"),
        ("training.learning_rate", False, "a number > 0"),
        ("training.learning_rate", "fast", "a number > 0"),
        ("training.learning_rate", math.nan, "a number > 0"),
        ("training.max_minutes", math.inf, "a number > 0 or null"),
        ("propagator.cg_tol", 0, "a number > 0 and < 1"),
        ("propagator.cg_tol", -1e-5, "a number > 0 and < 1"),
        ("encoder.sinkhorn_tol", 0.0, "a number > 0"),
        ("encoder.sdr_sparsity", 1, "an integer >= 2"),
        ("generation.top_p", 1.5, "a number > 0 and <= 1"),
        ("generation.top_p", 0, "a number > 0 and <= 1"),
        ("training.compile", 1, "true or false"),
        ("training.compile", "yes", "true or false"),
        ("training.scheduler", "linear", "one of constant, cosine, warmup_cosine, wsd, exponential, plateau"),
        ("training.dtype", "float16", "one of float32"),
        ("training.device", "gpu", "text matching"),
        ("training.output_dir", "", "text matching"),
        ("generation.prompt", 3, "text"),
        ("data.paths", [1], "a list of texts"),
        ("data.paths", {"a": 1}, "a list of texts"),
        ("data.validation_share", 1, "a number > 0 and < 1"),
    ],
)
def test_wrong_types_and_impossible_values_are_named(key: str, value: object, expected: str) -> None:
    section, name = key.split(".")
    message = message_of({section: {name: value}})
    assert message.startswith(f"{key} = {value!r}: expected {expected}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"model": {"hidden_dim": 250}, "spinor": {"rotation": True}},
            ("model.hidden_dim = 250", "spinor.block_size = 8"),
        ),
        ({"model": {"hidden_dim": 40}}, ("model.hidden_dim = 40", "spinor.mimo_groups = 16")),
        ({"encoder": {"sdr_sparsity": 200}}, ("encoder.sdr_sparsity = 200", "sdr_candidates = 128")),
        ({"training": {"batch_size": 3}}, ("training.batch_size = 3", "micro_batch_size = 2")),
        ({"data": {"seq_length": 4096}}, ("data.seq_length = 4096", "model.max_seq_length = 2048")),
        ({"model": {"vocab_size": 256}}, ("model.vocab_size = 256", "260", "'bytes'")),
        ({"propagator": {"laplacian_sparsity": 256}}, ("laplacian_sparsity = 256", "hidden_dim = 256")),
    ],
)
def test_values_that_do_not_fit_each_other(values: dict, parts: tuple[str, ...]) -> None:
    message = message_of(values)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"training": {"max_stpes": 5}},
            "training.max_stpes = 5: unknown key; did you mean training.max_steps?",
        ),
        (
            {"training": {"hidden_dim": 5}},
            "training.hidden_dim = 5: unknown key; did you mean model.hidden_dim?",
        ),
        ({"trainnig": {"max_steps": 5}}, "unknown key; did you mean training?"),
        ({"model": {"zzz": 1}}, "known are hidden_dim, num_layers, vocab_size, max_seq_length"),
        ({"model": [1]}, "model = [1]: expected a mapping of settings"),
        ([1], "expected a mapping of sections, got [1]"),
    ],
)
def test_unknown_keys_get_the_nearest_known_one(values: dict, expected: str) -> None:
    assert expected in message_of(values)


def test_all_problems_come_at_once_one_line_each() -> None:
    lines = message_of({"training": {"lr": 1, "max_steps": 0}, "generation": {"top_p": 2}}, ("data.x",)).split("\n")
    assert [line.split(" ")[0] for line in lines] == [
        "training.lr",
        "'data.x':",
        "training.max_steps",
        "generation.top_p",
    ]


def test_sections_check_themselves() -> None:
    with pytest.raises(ValueError, match="model.num_layers = 0: expected an integer >= 1"):
        ModelConfig(num_layers=0)
    with pytest.raises(ValueError, match="model = .*: expected a ModelConfig"):
        SEMConfig(model={"num_layers": 2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {hidden_dim: 64\n", "not valid YAML"),
        ("- a\n", "expected a mapping of sections"),
        ("model:\n  hidden_dim: 64\n  hidden_dim: 128\n", "line 3: key 'hidden_dim' is given twice"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="bad.yaml: ") as caught:
        SEMConfig.from_yaml(path)
    assert expected in str(caught.value)


def test_missing_file_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.yaml: cannot be read"):
        SEMConfig.from_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "empty.yaml").write_text("model:\n")
    assert SEMConfig.from_yaml(tmp_path / "empty.yaml") == SEMConfig()


def test_overrides_win_in_order_and_read_each_type() -> None:
    config = config_from_cli(
        CONFIGS / "tiny.yaml",
        [
            "training.max_steps=7",
            "training.max_steps=1_000",
            "training.max_minutes=null",
            "training.compile=True",
            "training.learning_rate=1e-4",
            "data.paths=[ab]*.txt",
            "generation.prompt=null",
        ],
    )
    assert config.training.max_steps == 1000
    assert config.training.max_minutes is None
    assert config.training.compile is True
    assert config.training.learning_rate == 1e-4
    assert config.data.paths == ("[ab]*.txt",)
    assert config.generation.prompt == "null"


@pytest.mark.parametrize("override", ["training.max_steps=1.5", "training.max_steps=", "training.max_minutes=1:30"])
def test_overrides_of_a_wrong_type_are_named(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(ValueError, match=rf"{key} = .*{value}.*: expected"):
        config_from_cli(None, [override])


@given(st.sampled_from(SETTINGS), st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_any_value_is_either_kept_in_range_or_refused_by_name(info, value) -> None:
    try:
        converted = info.convert(value)
    except ValueError as error:
        assert str(error).startswith(f"{info.key} = ")
    else:
        assert info.convert(converted) == converted


def test_command_line() -> None:
    parser = Parser("sem train", "Train.")
    add_config_arguments(parser)
    arguments = ["--config", str(CONFIGS / "tiny.yaml"), "--training.max_steps", "100"]
    arguments += [
        "--data.paths",
        "a b",
        "\N{GRINNING FACE}",
        "--generation.prompt",
        "null: [x",
        "--training.learning_rate=1e-5",
    ]
    config = config_from_arguments(parser.parse(arguments))
    assert config.model.hidden_dim == SEMConfig.from_yaml(CONFIGS / "tiny.yaml").model.hidden_dim
    assert config.training.max_steps == 100
    assert config.training.learning_rate == 1e-5
    assert config.data.paths == ("a b", "\N{GRINNING FACE}")
    assert config.generation.prompt == "null: [x"
    with pytest.raises(ValueError, match=r"generation.top_p = 1.5: expected a number > 0 and <= 1"):
        config_from_arguments(parser.parse(["--generation.top_p", "1.5"]))


OLD_AND_NEW = [info for info in SETTINGS if info.former_key is not None]


@pytest.mark.parametrize("info", OLD_AND_NEW, ids=lambda info: info.former_key)
def test_an_old_name_is_read_in_files_overrides_and_saved_configs(info, tmp_path: Path) -> None:
    section, old = info.former_key.split(".")
    saved = SEMConfig().with_overrides(f"{info.key}=0.25").to_dict()
    saved[section] = {old if name == info.name else name: value for name, value in saved[section].items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    for config in (
        SEMConfig.from_yaml(tmp_path / "config.yaml"),
        SEMConfig.from_dict({section: {old: 0.25}}),
        SEMConfig().with_overrides(f"{info.former_key}=0.25"),
        SEMConfig.from_dict({section: {info.name: 0.5}}, [f"{info.former_key}=0.25"]),
        SEMConfig.from_dict({section: {old: 0.5}}, [f"{info.key}=0.25"]),
    ):
        assert config == SEMConfig().with_overrides(f"{info.key}=0.25")
        assert old not in config.to_dict()[section]


@pytest.mark.parametrize("info", OLD_AND_NEW, ids=lambda info: info.former_key)
def test_an_old_name_beside_the_new_one_is_refused(info) -> None:
    section, old = info.former_key.split(".")
    message = f"{info.former_key} = {{}}: expected none beside {info.key} = {{}}, they are the same setting"
    assert message_of({section: {info.name: 0.5, old: 0.25}}) == message.format(0.25, 0.5)
    assert message_of({}, (f"{info.key}=0.5", f"{info.former_key}=0.25")) == message.format("'0.25'", "'0.5'")


def test_an_old_name_on_the_command_line() -> None:
    parser = Parser("sem train", "Train.")
    add_config_arguments(parser)
    arguments = ["--propagator.nonlinear_alpha", "0.25"]
    assert config_from_arguments(parser.parse(arguments)).propagator.kerr == 0.25
    with pytest.raises(ValueError, match=r"nonlinear_alpha = '0.25': expected none beside propagator.kerr = '0.5'"):
        config_from_arguments(parser.parse([*arguments, "--propagator.kerr=0.5"]))
    assert "nonlinear_alpha" not in parser.format_help()


def test_command_line_help_lists_every_setting() -> None:
    parser = Parser("sem train", "Train.")
    add_config_arguments(parser)
    text = parser.format_help()
    assert all(f"--{info.key} {info.word}" in text for info in SETTINGS)
    assert all(f"\n{section}: " in text for section in SEMConfig.sections())
    words = " ".join(text.split())
    assert "--training.ema_decay NUMBER share of the averaged parameters kept" in words
    assert words.count("default: ") == len(SETTINGS)


def test_unknown_options_are_explained() -> None:
    parser = Parser("sem train", "Train.")
    add_config_arguments(parser)
    with pytest.raises(ValueError, match="^training.max_stepz: unknown key; did you mean training.max_steps?"):
        parser.parse(["--training.max_stepz", "5", "some.file"])
    with pytest.raises(ValueError, match="^training.hidden_dim = '5': unknown key; did you mean model.hidden_dim?"):
        parser.parse(["--training.hidden_dim=5"])
    with pytest.raises(ValueError, match="^--max_steps: unknown option; did you mean --training.max_steps?"):
        parser.parse(["--max_steps", "5"])


def test_importing_the_config_needs_no_torch_nor_yaml() -> None:
    code = "import sys, sem.config; print([name for name in ('torch', 'yaml', 'numpy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\nmodel: *a\n", "line 2: expected every value written out, got an alias"),
        ("model:\n  hidden_dim: !!int ''\n", "not valid YAML"),
        ("model: " + "[" * 5000, "not valid YAML"),
        ("# " + "x" * 2_000_000, "expected settings, got more than"),
    ],
)
def test_hostile_yaml_is_one_line(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        SEMConfig.from_yaml(path)
    assert len(str(caught.value)) < 1000
