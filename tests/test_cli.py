"""The command line: what each command prints; wrong input exits 2 with one line and leaves nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.io import savemat

from hsssl.cli import main
from hsssl.option_values import option_text, option_value
from hsssl.readers import read

SMALL = ["--encoder-options", "dim", "16", "hidden", "32", "channels", "32", "--batch-size", "32"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cube.mat (three materials in stripes), labels.npy, and a finished run on that cube."""
    folder = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat([[1, 2, 3]], 48, axis=0), 16, axis=1)
    spectra = rng.integers(500, 3000, (4, 10))
    values = spectra[truth] + rng.integers(0, 40, (48, 48, 10))
    savemat(folder / "cube.mat", {"cube": values.astype(np.uint16)})
    np.save(folder / "labels.npy", truth)
    words = ["pretrain", str(folder / "cube.mat"), "--out", str(folder / "run"), "--steps", "5"]
    assert main([*words, "--wavelengths", "450:900", *SMALL]) == 0
    return folder


@pytest.fixture
def scene(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(finished, tmp_path / "scene"))


@pytest.fixture
def run(scene: Path) -> str:
    """The run in that copy."""
    return str(scene / "run")


def refused(capsys, words: list[str]) -> str:
    """Run, want exit 2 and one line on stderr, and return the line."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("hsssl: ")
    return said.err


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


def test_whole_way_by_commands(scene, run, capsys):
    cube, labels = str(scene / "cube.mat"), str(scene / "labels.npy")
    nm = ["--wavelengths", "450:900"]
    assert main(["embed", run, cube, "--out", str(scene / "f.tif"), *nm]) == 0
    assert read(scene / "f.tif").values.shape == (48, 48, 16 * 5)
    assert main(["classify", run, cube, "--labels", labels, "--out", str(scene / "map.tif"), *nm]) == 0
    assert (read(scene / "map.tif").values[:, :, 0] == np.load(labels)).mean() > 0.9
    capsys.readouterr()
    words = ["evaluate", run, cube, "--labels", labels, "--split", "random", "--seeds", "2", *nm]
    assert main(words) == 0
    assert "position alone" in capsys.readouterr().out
    assert main([*words, "--json", "--classifier", "knn"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {row["seed"] for row in record["rows"]} == {0, 1}


def test_fixed_split_takes_two_label_maps(scene, run, capsys):
    truth = np.load(scene / "labels.npy")
    train = np.where(np.arange(48)[:, None] < 20, truth, 0)
    np.save(scene / "train.npy", train)
    np.save(scene / "test.npy", truth - train)
    words = ["evaluate", run, str(scene / "cube.mat"), "--wavelengths", "450:900", "--split", "fixed"]
    words += ["--labels", str(scene / "train.npy")]
    assert main([*words, "--test-labels", str(scene / "test.npy")]) == 0
    assert "fixed" in capsys.readouterr().out
    assert "--test-labels" in refused(capsys, words)


def test_info(scene, capsys):
    assert main(["info", str(scene / "cube.mat")]) == 0
    assert "48 rows x 48 cols x 10 bands" in capsys.readouterr().out
    assert main(["info", str(scene / "cube.mat"), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize(("command", "names"), [("methods", ["byol", "simclr"]), ("encoders", ["spectral_"])])
def test_lists(command, names, capsys):
    assert main([command]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names)


def test_help_says_units_and_defaults():
    done = subprocess.run(
        [sys.executable, "-m", "hsssl", "pretrain", "--help"], capture_output=True, text=True, check=True
    )
    text = " ".join(done.stdout.replace("│", " ").split())
    assert "Side of the patches in pixels" in text
    assert "(default: 2000)" in text
    assert "--wavelengths" in text


def test_config_file_gives_settings_and_options_win(scene, tmp_path, run):
    config = {"settings": {"method": "simclr", "steps": 3, "windows": [1, 3], "batch_size": 16}}
    config["settings"]["views"] = {"jitter": 2, "turn": False}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "configured"
    words = ["pretrain", "--config", str(tmp_path / "run.yaml"), str(scene / "cube.mat"), "--out", str(out)]
    assert main([*words, "--steps", "2", *SMALL[:-2]]) == 0
    settings = yaml.safe_load((out / "config.yaml").read_text())["settings"]
    assert (settings["method"], settings["steps"], settings["windows"]) == ("simclr", 2, [1, 3])
    assert (settings["views"]["jitter"], settings["views"]["turn"], settings["batch_size"]) == (2, False, 16)
    again = tmp_path / "again"
    words = ["pretrain", str(scene / "cube.mat"), "--out", str(again), "--config", str(out / "config.yaml")]
    assert main(words) == 0
    assert yaml.safe_load((again / "config.yaml").read_text())["settings"] == settings


@pytest.mark.parametrize(
    ("method", "options"),
    [("pcl", {"clusters": [20, 30], "temperature": 1e-05}), ("mae", {"mask": None, "neighbour": False})],
)
def test_a_run_starts_and_resumes_by_its_own_config(scene, tmp_path, method, options):
    cube, nm = str(scene / "cube.mat"), ["--wavelengths", "450:900"]
    settings = {"method": method, "steps": 2, "batch_size": 16, "method_options": options}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    first, again = tmp_path / "first", tmp_path / "again"
    words = ["pretrain", cube, *nm, "--out"]
    assert main([*words, str(first), "--config", str(tmp_path / "run.yaml")]) == 0
    assert main([*words, str(again), f"--config={first / 'config.yaml'}"]) == 0
    assert main([*words, str(first), f"--config={first / 'config.yaml'}", "--resume"]) == 0
    records = [yaml.safe_load((out / "config.yaml").read_text())["settings"] for out in (first, again)]
    assert records[0] == records[1]
    assert records[0]["method_options"] == options


@pytest.mark.parametrize(
    "value", [20, -4, 1e-05, True, False, None, "little", "a b", [20, 30], [0.5, None, "x"], {"a": [1, "2"]}]
)
def test_an_option_is_the_text_it_is_written_as(value):
    assert option_value(option_text(value)) == value
    assert type(option_value(option_text(value))) is type(value)


def test_options_are_given_as_people_write_them():
    given = {
        "1e-3": 0.001,
        "False": False,
        "~": None,
        "[a, 1e-3, no]": ["a", 0.001, "no"],
        "['20']": ["20"],
        "[20": "[20",
    }
    assert {text: option_value(text) for text in given} == given


def test_resume_of_a_finished_run_exits_0(scene, run):
    words = ["pretrain", str(scene / "cube.mat"), "--out", run, "--steps", "5", "--wavelengths", "450:900"]
    before = {f: f.stat().st_mtime_ns for f in Path(run).rglob("*")}
    assert main([*words, *SMALL, "--resume"]) == 0
    assert {f: f.stat().st_mtime_ns for f in Path(run).rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain", "CUBE", "--out", "OUT", "--steps", "0"], "steps must be at least 1, got 0"),
        (["pretrain", "CUBE", "--out", "OUT", "--steps", "-3"], "steps must be at least 1, got -3"),
        (["pretrain", "CUBE", "--out", "OUT", "--steps", "many"], "--steps"),
        (["pretrain", "CUBE", "--out", "OUT", "--method", "bylo"], "did you mean byol"),
        (["pretrain", "CUBE", "--out", "OUT", "--encoder", "spectral"], "did you mean spectral"),
        (["pretrain", "CUBE", "--out", "OUT", "--patch-size", "99"], "larger than the scene of 48 x 48"),
        (["pretrain", "CUBE", "--out", "OUT", "--encoder-options", "dim", "-4"], "at least 1, got -4"),
        (
            [
                "pretrain",
                "CUBE",
                "--out",
                "OUT",
                "--method",
                "simclr",
                "--method-options",
                "temperature",
                "a",
            ],
            "method simclr: `temperature` must be a finite number, got 'a'; its default is 0.1",
        ),
        (
            ["pretrain", "CUBE", "--out", "OUT", "--method", "pcl", "--method-options", "clusters", "[20,"],
            "`clusters` must be a list, each entry a whole number, at least 0, got '[20,'",
        ),
        (
            ["unmix", "CUBE", "--endmembers", "3", "--out", "OUT", "--seed", "-1"],
            "seed must be a whole number",
        ),
        (["pretrain", "absent.mat", "--out", "OUT"], "absent.mat: no such file"),
        (["pretrain", "indian_pinse", "--out", "OUT"], "did you mean indian_pines"),
        (["pretrain", "two.mat", "--out", "OUT"], "--variable"),
        (["pretrain", "flat.mat", "--out", "OUT"], "no variable has three dimensions"),
        (["pretrain", "CUBE", "--out", "OUT", "--wavelengths", "450:x"], "450:x"),
        (["pretrain", "CUBE", "--out", "RUN"], "is not empty; pass --resume"),
        (["pretrain", "CUBE", "--out", "RUN", "--resume", "--steps", "7"], "made with"),
        (["pretrain", "--out", "OUT"], "at least one cube"),
        (["pretrain", "CUBE", "--out", "OUT", "--stepz", "3"], "did you mean --steps"),
        (["pretrain", "CUBE", "--out", "OUT", "--config", "absent.yaml"], "absent.yaml"),
        (["pretrain", "CUBE", "--out", "OUT", "--config=absent.yaml"], "absent.yaml"),
        (["pretrain", "CUBE", "--out", "OUT", "--config"], "--config: give the path"),
        (["pretrain", "CUBE", "--out", "OUT", "--config="], "--config: give the path"),
        (["pretrain", "CUBE", "--out", "OUT", "--config", "labels.npy"], "labels.npy: not readable as YAML"),
        (["pretran"], "Available subcommands"),
        (["embed", "absent", "CUBE", "--out", "OUT"], "no trained encoder here"),
        (["embed", "RUN", "CUBE", "--out", "OUT"], "give --wavelengths"),
        (["embed", "RUN", "CUBE", "--out", "CUBE"], ".mat is no ENVI image; end it in .tif"),
        (["evaluate", "RUN", "CUBE", "--wavelengths", "450:900"], "give --labels"),
        (
            ["evaluate", "RUN", "CUBE", "--wavelengths", "450:900", "--labels", "small.npy"],
            "the label map has shape (3, 3), the cube (48, 48)",
        ),
        (
            [
                *["evaluate", "RUN", "CUBE", "--wavelengths", "450:900", "--labels", "labels.npy"],
                *["--split", "random", "--per-class", "5000"],
            ],
            "class 1 has 768",
        ),
        (
            [
                *["evaluate", "RUN", "CUBE", "--wavelengths", "450:900", "--labels", "labels.npy"],
                *["--per-class", "0"],
            ],
            "per_class must be at least 1 training pixel a class, got 0",
        ),
        (
            [
                *["finetune", "RUN", "CUBE", "--wavelengths", "450:900", "--labels", "labels.npy"],
                *["--per-class", "0"],
            ],
            "per_class must be at least 1",
        ),
        (
            [
                "evaluate",
                "RUN",
                "CUBE",
                "--wavelengths",
                "450:900",
                "--labels",
                "labels.npy",
                "--guard",
                "90",
            ],
            "guard",
        ),
        (
            ["evaluate", "RUN", "CUBE", "--wavelengths", "450:900", "--labels", "labels.npy", "--seeds", "0"],
            "seeds",
        ),
        (
            ["classify", "RUN", "CUBE", "--wavelengths", "450:900", "--out", "OUT", "--labels", "small.npy"],
            "shape",
        ),
    ],
)
def test_wrong_input_exits_2_with_one_line_and_leaves_nothing(
    scene, run, capsys, monkeypatch, words, message
):
    savemat(scene / "two.mat", {"a": np.ones((4, 5, 6)), "b": np.ones((4, 5, 6))})
    savemat(scene / "flat.mat", {"a": np.ones((4, 5))})
    np.save(scene / "small.npy", np.ones((3, 3), dtype=int))
    monkeypatch.chdir(scene)
    before = files(scene)
    names = {"CUBE": "cube.mat", "OUT": "new", "RUN": run}
    assert message in refused(capsys, [names.get(word, word) for word in words])
    assert files(scene) == before


def test_truncated_checkpoint_exits_2(scene, run, capsys):
    checkpoint = Path(run) / "checkpoint" / "state.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    words = ["pretrain", str(scene / "cube.mat"), "--out", run, "--steps", "5", "--wavelengths", "450:900"]
    assert "damaged or truncated" in refused(capsys, [*words, *SMALL, "--resume"])


def test_full_disk_exits_2_and_leaves_no_half_file(scene, run, capsys, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    words = ["embed", run, str(scene / "cube.mat"), "--wavelengths", "450:900", "--out", str(scene / "f.tif")]
    before = files(scene)
    assert "No space left on device" in refused(capsys, words)
    assert files(scene) == before


def test_our_own_faults_exit_1_in_one_line(capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a\nbug")

    monkeypatch.setattr("hsssl.open_cube", broken)
    assert main(["info", "x"]) == 1
    assert capsys.readouterr().err == "hsssl: RuntimeError: a bug (HSSSL_DEBUG=1 shows where)\n"


def test_reader_options_reach_the_reader(tmp_path, capsys):
    savemat(tmp_path / "list.mat", {"V": np.ones((4, 30))})
    words = ["info", str(tmp_path / "list.mat"), "--json"]
    assert "give rows and cols" in refused(capsys, words)
    assert main([*words, "--reader-options", "rows", "6", "cols", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 6
    assert "read_mat takes no byte_order" in refused(
        capsys, [*words, "--reader-options", "byte_order", "little"]
    )
