from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunedeck.core.env.check import check_files
from tunedeck.core.env.compare import differences, explain, to_json
from tunedeck.core.env.excerpt import Excerpts
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.resolve import ResolvedProfile, resolve_profile
from tunedeck.core.errors import UsageError
from tunedeck.core.origins import Origin, Sourced
from tunedeck.core.plan import SecretRef
from tunedeck.core.secrets import MASK, holds_secret, is_secret_name, mask_text

from .conftest import Load

CANARY = "canary-7f3a9c"


def everything(profile: ResolvedProfile) -> str:
    """All that a resolved profile could ever be shown or stored as."""
    shown = {key: to_json(sourced) for key, sourced in explain(profile).items()}
    return repr(profile) + repr(dict(profile.origins)) + json.dumps(shown) + str(profile.values)


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "client_secret", "DB_PASSWORD", "X_PASSWD_2", "AWS_CREDENTIAL"],
)
def test_names_that_hold_a_telling_word_are_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["TOKENIZERS_PARALLELISM", "MONKEY", "KEYBOARD", "HF_HOME", "secrets", "image_pull_secrets"],
)
def test_names_that_only_contain_its_letters_are_not(name: str) -> None:
    assert not is_secret_name(name)


def test_secrets_are_kept_by_name_and_their_values_are_nowhere(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "MY_HF_TOKEN", "PLAIN", "FALLBACK_KEY", "CLOUD_SECRET"):
        monkeypatch.setenv(name, CANARY)
    profile = resolve_profile(
        load(
            """
            [base]
            executor = "dgxcloud"
            client_secret = "${oc.env:CLOUD_SECRET,''}"
            env_vars = { HF_TOKEN = "${oc.env:MY_HF_TOKEN}" }
            [kid]
            extends = "base"
            secrets = ["PLAIN"]
            [kid.env_vars]
            HF_TOKEN = "${oc.env:HF_TOKEN,''}"
            API_KEY = "${oc.env:FIRST_KEY,${oc.env:FALLBACK_KEY,''}}"
            HIDDEN = "${oc.env:HF_TOKEN}"
            OPEN = "open"
            """
        ),
        "kid",
    )
    assert profile.secrets == (
        SecretRef("API_KEY", "FALLBACK_KEY"),
        SecretRef("HF_TOKEN", "HF_TOKEN"),
        SecretRef("HIDDEN", "HF_TOKEN"),
        SecretRef("PLAIN", "PLAIN"),
    )
    assert profile.env_vars == {"OPEN": "open"}
    assert profile.values["client_secret"] == "${oc.env:CLOUD_SECRET}"
    assert CANARY not in everything(profile)
    assert explain(profile)["env_vars.HF_TOKEN"].value == MASK
    assert explain(profile)["client_secret"].value == MASK


def test_a_table_of_secrets_names_what_the_service_has(load: Load) -> None:
    text = """
    [a]
    executor = "lepton"
    secrets = { HF_TOKEN = "hf/token" }
    env_vars = { HF_TOKEN = "${oc.env:HF_TOKEN,''}" }
    """
    profile = resolve_profile(load(text), "a")
    assert profile.secrets == (SecretRef("HF_TOKEN", "hf/token", remote=True),)
    assert profile.values["secrets"] == {"HF_TOKEN": "hf/token"}


@pytest.mark.parametrize(
    "line",
    [
        f'env_vars = {{ WANDB_API_KEY = "{CANARY}" }}',
        f'env_vars = {{ WANDB_API_KEY = "${{oc.env:NOT_SET,{CANARY}}}" }}',
        f'env_vars = {{ PLAIN = "{CANARY}" }}\nsecrets = ["PLAIN"]',
        f'client_secret = "{CANARY}"',
        f'custom_spec = {{ deep = {{ api_key = "{CANARY}" }} }}',
        f'env_vars.API_TOKEN = """\n{CANARY}\n  {CANARY}-2\n"""',
    ],
)
def test_a_secret_in_clear_is_dropped_found_and_never_shown(load: Load, line: str) -> None:
    files = load(f'[a]\nexecutor = "dgxcloud"\n{line}\n[b]\nextends = "a"\nnodes = 2\n')
    profile = resolve_profile(files, "b")
    assert CANARY not in everything(profile)
    findings = check_files(files.found)
    (found,) = [finding for finding in findings if "in clear" in finding.message]
    assert found.severity == "error"
    assert found.profile == "a"
    excerpts = Excerpts()
    shown = "".join(line for finding in findings for line in excerpts.show(finding.place))
    assert CANARY not in shown
    assert CANARY not in json.dumps([finding.to_json() for finding in findings])


def test_a_secret_that_was_overridden_is_masked_too(load: Load) -> None:
    files = load(
        f"""
        [a]
        executor = "local"
        env_vars = {{ API_KEY = "{CANARY}", PLAIN = "{CANARY}" }}
        [b]
        extends = "a"
        secrets = ["PLAIN"]
        env_vars = {{ API_KEY = "${{oc.env:API_KEY}}", PLAIN = "${{oc.env:PLAIN}}" }}
        """
    )
    assert CANARY not in everything(resolve_profile(files, "b"))


@pytest.mark.parametrize(
    "line",
    [
        'startup_commands = ["login --token ${oc.env:HF_TOKEN}"]',
        'workspace = "/w/${oc.env:HF_TOKEN}"',
        'env_vars = { HF_TOKEN = "${oc.env:HF_TOKEN}", COPY = "${env_vars.HF_TOKEN}" }',
        'env_vars = { HEADER = "Bearer ${oc.env:HF_TOKEN}" }',
        'env_vars = { HF_TOKEN = "x-${oc.env:HF_TOKEN}" }',
        'host = "${oc.env:${which}}"\nworkspace = "HF_TOKEN"',
        f'startup_commands = ["export API_KEY={CANARY}"]',
        'run_command = "curl https://me:s3cret@host/x"',
        'env_vars = { PLAIN = "hf_abcdefghijklmnopqrstuvwxyz" }',
    ],
)
def test_what_would_let_a_secret_through_is_refused_with_its_place(
    load: Load, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    with pytest.raises(UsageError) as caught:
        resolve_profile(load(f'[a]\nexecutor = "slurm"\n{line}'), "a")
    assert caught.value.place is not None
    assert caught.value.place.line == 3
    assert caught.value.fix
    for text in (CANARY, "s3cret", "hf_abcdefghijklmnopqrstuvwxyz"):
        assert text not in str(caught.value) + caught.value.fix


def test_a_secret_typed_on_the_command_line_is_refused(load: Load) -> None:
    typed = Origin("command line", text=f"run.env.env_vars.API_KEY={CANARY}")
    with pytest.raises(UsageError, match="in clear") as caught:
        resolve_profile(
            load(""), "local", command_line={"env_vars.API_KEY": Sourced(CANARY, typed)}
        )
    assert CANARY not in str(caught.value) + caught.value.fix


def test_a_placeholder_for_a_secret_is_a_placeholder_and_no_secret(load: Load) -> None:
    files = load('[a]\nexecutor = "local"\nenv_vars = { API_KEY = "<your-key>" }')
    (finding,) = [f for f in check_files(files.found) if f.severity == "error"]
    assert "placeholder" in finding.message


def test_shell_references_to_secrets_are_no_secrets() -> None:
    assert not holds_secret("export HF_TOKEN=$HF_TOKEN && login --token $HF_TOKEN")
    assert not holds_secret('API_KEY="${API_KEY}" run')
    assert not holds_secret("echo key: value; TOKENIZERS_PARALLELISM=false run")
    assert holds_secret("API_KEY=abcd run")


def test_masking_keeps_references_and_hides_the_rest() -> None:
    assert (
        mask_text("HF_TOKEN = \"${oc.env:HF_TOKEN,''}\"") == "HF_TOKEN = \"${oc.env:HF_TOKEN,''}\""
    )
    assert mask_text('a_key = "x"  # why') == f'a_key = "{MASK}"  # why'
    assert mask_text("'my-token'='x', b = 1") == f"'my-token'='{MASK}', b = 1"
    assert mask_text("nodes = 2") == "nodes = 2"


def test_profiles_that_read_a_secret_from_elsewhere_differ_without_showing_it(load: Load) -> None:
    files = load(
        """
        [a]
        executor = "local"
        env_vars = { HF_TOKEN = "${oc.env:ONE_TOKEN}" }
        [b]
        executor = "local"
        env_vars = { HF_TOKEN = "${oc.env:OTHER_TOKEN}" }
        """
    )
    (one,) = differences(resolve_profile(files, "a"), resolve_profile(files, "b"))
    assert one.key == "env_vars.HF_TOKEN"
    assert one.a is not None
    assert one.a.value == MASK


def test_an_excerpt_never_shows_a_secret_of_a_file_that_does_not_parse(tmp_path: Path) -> None:
    path = tmp_path / "env.toml"
    path.write_text(f'[a]\nAPI_KEY = "{CANARY}" oops\n')
    (finding,) = check_files(FoundFiles((path,), ""))
    assert finding.place.line == 2
    assert CANARY not in "".join(Excerpts().show(finding.place))
