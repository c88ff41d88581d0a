from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from gateway.config.load import BUILT_IN, Loaded, load, parse
from gateway.config.model import Config
from gateway.config.secret import Secret
from gateway.contract.errors import ConfigurationError
from gateway.store.address import RedisAddress

HASH = "sha256:" + "0123456789abcdef" * 4


def faults(text: str, folder: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        parse(text, place="turnout.toml", folder=folder, environ=environ or {})
    return str(refused.value).split("\n")


def fine(text: str, folder: Path, environ: dict[str, str] | None = None) -> Loaded:
    return parse(text, place="turnout.toml", folder=folder, environ=environ or {})


def test_without_a_file_everything_is_as_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={})
    assert loaded.config == Config()
    assert loaded.place == BUILT_IN
    assert loaded.store_path == tmp_path / "turnout-data/turnout.db"
    assert loaded.artifacts_path == tmp_path / "turnout-data/artifacts"
    assert set(loaded.policies.current().names) == {"cheapest", "fastest", "steadiest", "balanced", "local_only"}


def test_the_file_here_is_taken_and_a_named_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "turnout.toml").write_text("[server]\nport = 1001\n")
    other = tmp_path / "etc" / "other.toml"
    other.parent.mkdir()
    other.write_text('[server]\nport = 1002\n[store]\nurl = "sqlite:///x/y.db"\n')
    assert load(environ={}).config.server.port == 1001
    loaded = load(other, environ={})
    assert loaded.config.server.port == 1002
    assert loaded.store_path == tmp_path / "etc/x/y.db", "relative to the file, wherever we are started"
    relative = load(Path("etc/other.toml"), environ={})
    assert relative.store_path == tmp_path / "etc/x/y.db"
    assert relative.place == "etc/other.toml", "named as the user named it"


def test_a_hash_that_is_cut_is_no_secret_that_was_written_out(tmp_path: Path) -> None:
    [fault] = faults('[keys.app]\nhash = "sha256:…"\n', tmp_path)
    assert fault.startswith("turnout.toml:2: keys.app.hash: this is no hash of a key")


def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    assert fine('[store]\nurl = "sqlite:////var/t.db"\n', tmp_path).store_path == Path("/var/t.db")


def test_a_key_is_said_to_stand_on_its_line_and_a_default_on_none(tmp_path: Path) -> None:
    loaded = fine('[server]\nport = 1\n\n[artifacts]\npath = "x"\n', tmp_path)
    assert loaded.where("artifacts", "path") == "turnout.toml:5: artifacts.path"
    assert loaded.where("server", "host") == "turnout.toml:1: server.host"
    assert loaded.where("store", "url") == "turnout.toml: store.url"


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 1\r\nhots = 2\r\n")
    with pytest.raises(ConfigurationError, match=r"t\.toml:3: server\.hots: unknown key"):
        load(file, environ={})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 1", 'turnout.toml:1: port: unknown key "port"; it belongs in [server]'),
        ("[server]\nprot = 1", 'turnout.toml:2: server.prot: unknown key "prot"; did you mean "port"?'),
        ("[sever]\nport = 1", 'turnout.toml:1: sever: unknown key "sever"; did you mean "server"?'),
        (
            "[policies]\nzzz = 1",
            'turnout.toml:2: policies.zzz: unknown key "zzz"; known here: files, default',
        ),
        ('[server]\nport = "80"', 'turnout.toml:2: server.port: this is text in quotes ("…"); write a whole number'),
        (
            "[server]\nport = 70000",
            "turnout.toml:2: server.port: the number is out of its range; write a whole number <= 65535",
        ),
        ("[server]\nhost = 1", 'turnout.toml:2: server.host: this is a whole number; write text in quotes ("…")'),
        (
            "server = 1",
            "turnout.toml:1: server: this is a whole number, not a table; write [server] and its keys below",
        ),
        ("[[local]]", "turnout.toml:1: local: this is a list ([…]), not a table; write [local] and its keys below"),
        (
            '[webhooks]\nallow = ["a", 1]',
            'turnout.toml:2: webhooks.allow[1]: this is a whole number; write text in quotes ("…")',
        ),
        ('models = "x"', 'turnout.toml:1: models: this is text in quotes ("…"); write a list ([…])'),
        (
            "[webhooks]\nschedule_seconds = [0, -5]",
            "turnout.toml:2: webhooks.schedule_seconds[1]: out of range; write 0 to 2592000 seconds",
        ),
        (
            '[telemetry]\nlog_level = "verbose"',
            'turnout.toml:2: telemetry.log_level: "verbose" is not known; known here: debug, info, warning, error',
        ),
        ('[local]\ndevice = "cudaa"', 'turnout.toml:2: local.device: "cudaa" is not known; did you mean "cuda"?'),
        ("[local]\nthreads = -1", "turnout.toml:2: local.threads: it is negative; write 0 to leave it open"),
        (
            '[local]\nlisten = "localhost:1"',
            'turnout.toml:2: local.listen: "localhost:1" is no address; '
            'leave it empty for a Unix socket, or write "tcp://127.0.0.1:0"',
        ),
        (
            '[store]\nurl = "mysql://localhost"',
            'turnout.toml:2: store.url: no store lives there; write "sqlite:///PATH" for one process, or '
            '"redis://HOST:PORT/0" (rediss://, redis+cluster://) for many',
        ),
        (
            '[store]\nurl = "redis://user:hunter2@localhost"',
            "turnout.toml:2: store.url: there is a user or password in this address; "
            'write [store] username, and password = "env:NAME" or "file:PATH"',
        ),
        (
            '[store]\nurl = "redis://a,b"',
            "turnout.toml:2: store.url: a lone server has one address; "
            'write "redis+cluster://HOST:PORT,HOST:PORT" for a cluster',
        ),
        (
            '[store]\nurl = "redis+cluster://a:1/3"',
            "turnout.toml:2: store.url: a cluster has no databases; leave out /3",
        ),
        (
            '[store]\nurl = "redis://localhost/none"',
            "turnout.toml:2: store.url: this is no database of Redis; "
            'write its number behind the slash: "redis://HOST:PORT/0"',
        ),
        (
            '[store]\nurl = "redis://"',
            'turnout.toml:2: store.url: there is no host in this address; write "redis://HOST:PORT/0"',
        ),
        (
            '[store]\nurl = "redis://localhost?ssl=no"',
            "turnout.toml:2: store.url: this is more than an address; "
            "leave out what begins with ? or #: [store] has the rest",
        ),
        (
            '[store]\nurl = "redis://localhost"\npassword = "hunter2"',
            "turnout.toml:3: store.password: a secret is not written out here; "
            'write "env:NAME" or "file:PATH" and keep the secret there',
        ),
        (
            '[store]\ndurability = "wait:0"',
            'turnout.toml:2: store.durability: "wait:0" is not known; '
            'write "aof-always", "everysec", or "wait:N" with the number of replicas that confirm a write',
        ),
        (
            '[store]\nchecks = "wran"',
            'turnout.toml:2: store.checks: "wran" is not known; did you mean "warn"?',
        ),
        (
            '[store]\nprefix = "{a}"',
            'turnout.toml:2: store.prefix: "{a}" cannot begin a key; use letters, digits and . _ : -, at most 64',
        ),
        (
            "[server]\nworkers = 2",
            "turnout.toml:2: server.workers: a SQLite store is for one process; "
            'write workers = 1, or use Redis: url = "redis://HOST:PORT/0" in [store]',
        ),
        (
            '[store]\nurl = "sqlite:///:memory:"',
            'turnout.toml:2: store.url: no store lives there; write "sqlite:///PATH" with the path of a file',
        ),
        (
            '[server]\npublic_url = "turnout.example.com"',
            "turnout.toml:2: server.public_url: this is no address of a server; "
            'write it as "https://host" or "https://host/path"',
        ),
        (
            '[dashboard]\nbudget_per_hour = "twenty"',
            "turnout.toml:2: dashboard.budget_per_hour: 'twenty' is no amount of dollars such as \"0.05\"; "
            'write dollars, as "20.00"',
        ),
        (
            '[policies]\ndefault = "balancd"',
            'turnout.toml:2: policies.default: unknown policy "balancd"; did you mean "balanced"?',
        ),
    ],
)
def test_each_fault_is_one_line_with_file_line_place_and_remedy(text: str, line: str, tmp_path: Path) -> None:
    assert faults(text, tmp_path) == [line]


MODEL = """\
[providers.replicate]

[[models]]
name = "acme/up"
[[models.offers]]
provider = "replicate"
name = "theirs/up"
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            MODEL.replace('provider = "replicate"', 'provider = "replicat"'),
            'turnout.toml:6: models[0].offers[0].provider: unknown provider "replicat"; did you mean "replicate"? '
            "(a new one needs a section [providers.replicat])",
        ),
        (
            '[local]\nenabled = false\n[[models]]\nname = "a/b"\n[[models.offers]]\nprovider = "local"\nname = "a/b"\n',
            'turnout.toml:6: models[0].offers[0].provider: unknown provider "local"; set enabled = true in [local]',
        ),
        (
            '[[models]]\nname = "acme/up"\n',
            "turnout.toml:1: models[0].offers: the model has no offers; add [[models.offers]] with provider and name",
        ),
        (
            MODEL.replace('"acme/up"', '"acme"'),
            'turnout.toml:4: models[0].name: "acme" is no name of a model; '
            "write owner/name, each of letters, digits, and . _ -",
        ),
        (
            MODEL.replace('name = "theirs/up"\n', ""),
            'turnout.toml:5: models[0].offers[0].name: it is missing; add name = "…"',
        ),
        (
            MODEL + 'price = "0.01"\n',
            'turnout.toml:8: models[0].offers[0].price: this is text in quotes ("…"); '
            'write dollars per unit in quotes, as { per_second = "0.000725" }',
        ),
        (
            MODEL + 'price = { per_secnd = "0.01" }\n',
            'turnout.toml:8: models[0].offers[0].price.per_secnd: "per_secnd" is no unit of a price; '
            'did you mean "per_second"?',
        ),
        (
            MODEL + "price = { per_second = 0.01 }\n",
            "turnout.toml:8: models[0].offers[0].price: this is a number; "
            'write dollars per unit in quotes, as { per_second = "0.000725" }',
        ),
        (
            MODEL + 'price = { per_second = "1 cent" }\n',
            "turnout.toml:8: models[0].offers[0].price.per_second: '1 cent' is no amount of dollars such as \"0.05\"; "
            'write dollars per unit, as per_second = "0.000725"',
        ),
        (
            MODEL + 'price_tiers = [{ when = { audio = "yes" }, price = { per_image = "1" } }]\n',
            "turnout.toml:8: models[0].offers[0].price_tiers[0].when.audio: audio is true or false; write one of them",
        ),
        (
            MODEL + 'price_tiers = [{ when = { n = { above = 1 } }, price = { per_image = "1" } }]\n',
            "turnout.toml:8: models[0].offers[0].price_tiers[0].when.n: above = 1 is no bound; "
            "write a number for one of at_least, below",
        ),
        (
            MODEL + 'price_tiers = [{ when = {}, price = { per_image = "1" } }]\n',
            "turnout.toml:8: models[0].offers[0].price_tiers[0].when: it is empty; "
            "write when it holds, and what it costs then",
        ),
        (
            MODEL + 'price_tiers = [{ when = { n = 2 }, price = { per_imge = "1" } }]\n',
            'turnout.toml:8: models[0].offers[0].price_tiers[0].price.per_imge: "per_imge" is no unit of a price; '
            'did you mean "per_image"?',
        ),
        (
            MODEL + 'price_tiers = [{ wehn = 2, when = { n = 2 }, price = { per_image = "1" } }]\n',
            'turnout.toml:8: models[0].offers[0].price_tiers[0].wehn: unknown key "wehn"; did you mean "when"?',
        ),
        (
            MODEL + 'date = "last week"\n',
            'turnout.toml:8: models[0].offers[0].date: "last week" is no date; '
            'write it as "2026-08-21", or as much of it as is known',
        ),
        (
            MODEL + 'version = "v2"\n',
            "turnout.toml:8: models[0].offers[0].version: this is no version (64 hex digits); "
            "leave it out: it is derived from name and schema",
        ),
        (
            MODEL + MODEL.replace("[providers.replicate]", "").replace("acme/up", "Acme/Up"),
            'turnout.toml:11: models[1].name: "Acme/Up" is there already, in models[0]; '
            "put all offers of a model under one [[models]]",
        ),
        (
            MODEL.replace("[[models.offers]]", 'policy = "cheap"\n[[models.offers]]'),
            'turnout.toml:5: models[0].policy: unknown policy "cheap"; did you mean "cheapest"?',
        ),
        (
            "[providers.local]\n",
            'turnout.toml:1: providers.local: "local" is the local backend; '
            "configure it in [local], or use another name",
        ),
        (
            '[providers."a b"]\n',
            'turnout.toml:1: providers."a b": "a b" is no name; use letters, digits, _ and -, at most 64',
        ),
        (
            '[providers.cog]\nbase_url = "ftp://x"\n',
            "turnout.toml:2: providers.cog.base_url: this is no address of a server; "
            'write it as "https://host" or "https://host/path"',
        ),
        (
            '[providers.replicate]\ntoken = "env:TOKEN"\n',
            "turnout.toml:2: providers.replicate.token: environment variable TOKEN is not set; "
            "set TOKEN before starting, or change the reference",
        ),
    ],
)
def test_each_fault_of_models_and_providers_is_one_line_too(text: str, line: str, tmp_path: Path) -> None:
    assert faults(text, tmp_path) == [line]


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("[server]\nport = \n", "turnout.toml:2: ", "not TOML"),
        ("[server\n", "turnout.toml:1: ", "not TOML"),
        ("a = 1\na = 2\n", "turnout.toml:2: ", "not TOML"),
        ('a = 1\nb = """never\nclosed', "turnout.toml:3: ", "not TOML"),
    ],
)
def test_what_is_not_toml_is_said_with_its_line(text: str, where: str, said: str, tmp_path: Path) -> None:
    (line,) = faults(text, tmp_path)
    assert line.startswith(where + said)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="its tomllib has a limit of its own")
def test_brackets_without_end_are_a_fault_and_no_crash(tmp_path: Path) -> None:
    (line,) = faults("a = " + "[" * 50_000, tmp_path)
    assert line.startswith("turnout.toml: nested too deep")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    absent, loop = tmp_path / "absent.toml", tmp_path / "loop.toml"
    loop.symlink_to(loop)
    for file, said in (
        (absent, "it cannot be read (No such file or directory); name a file that is there with --config"),
        (loop, "it cannot be read (Too many levels of symbolic links); see its rights"),
        (tmp_path, f"it is a directory; name the file in it with --config, such as {tmp_path / 'turnout.toml'}"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            load(file, environ={})
        assert str(refused.value) == f"{file}: {said}"
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 5; save it as UTF-8"):
        load(tmp_path / "latin.toml", environ={})


def test_what_is_made_of_a_key_is_blamed_on_its_line(tmp_path: Path) -> None:
    loaded = parse('[store]\nurl = "sqlite:///a.db"\n', place="t.toml", folder=tmp_path, environ={})
    with (
        pytest.raises(ConfigurationError, match=r"\At\.toml:2: store\.url: a; b\nt\.toml:2: store\.url: c; d\Z"),
        loaded.blaming("store", "url"),
    ):
        raise ConfigurationError("a; b\nc; d")
    with pytest.raises(OSError, match="else"), loaded.blaming("store", "url"):
        raise OSError("else")


def test_all_faults_of_a_file_are_told_at_once_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = """\
[server]
prot = 1
host = 7
[keys.app]
hash = "secret"
scopes = ["predictons"]
[[models]]
name = "bad"
[[models.offers]]
provider = "nobody"
name = ""
price = { per_parsec = "1" }
[[models]]
description = "no name, no offers"
[policies]
default = "none"
files = ["absent.toml"]
"""
    found = faults(text, tmp_path)
    assert [re.sub(r"^turnout.toml:(\d+): ([^:]+):.*", r"\1 \2", line) for line in found[:-1]] == [
        "2 server.prot",
        "3 server.host",
        "5 keys.app.hash",
        "6 keys.app.scopes[0]",
        "8 models[0].name",
        "10 models[0].offers[0].provider",
        "11 models[0].offers[0].name",
        "12 models[0].offers[0].price.per_parsec",
        "13 models[1].name",
        "13 models[1].offers",
    ]
    assert found[-1].startswith(f"{tmp_path}/absent.toml: it cannot be read")
    assert len(found) == 11


# -- keys and secrets ------------------------------------------------------------------------------------------------


def test_credentials_of_several_parts_are_found_and_a_token_is_said_once(tmp_path: Path) -> None:
    text = """
[providers.bedrock.credentials]
access_key_id = "env:ID"
secret_access_key = "env:SECRET"
"""
    loaded = fine(text, tmp_path, {"ID": "AKIA", "SECRET": "s3"})
    assert loaded.secrets == {
        "providers.bedrock.credentials.access_key_id": Secret("AKIA"),
        "providers.bedrock.credentials.secret_access_key": Secret("s3"),
    }
    [gone] = faults(text, tmp_path, {"ID": "AKIA"})
    assert gone.startswith(
        "turnout.toml:4: providers.bedrock.credentials.secret_access_key: environment variable SECRET"
    )
    twice = '[providers.fal]\ntoken = "env:ID"\ncredentials = { token = "env:ID" }\n'
    assert faults(twice, tmp_path, {"ID": "a"}) == [
        "turnout.toml:2: providers.fal.token: credentials.token says it already; leave one of the two out"
    ]


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("images[*].url", True),
        ("images[0].url", True),
        ("video.url", True),
        ("[0].choices[0].tokens", True),
        ("[*].generated_text", True),
        ("[*]", True),
        ("a[0][*]", True),
        ("", True),
        ("images[x]", False),
        ("images[-1]", False),
        (".url", False),
        ("images.", False),
        ("a..b", False),
        ("images[0", False),
        ("images[0]url", False),
    ],
)
def test_a_path_into_an_output_is_keys_and_list_steps(path: str, fits: bool, tmp_path: Path) -> None:
    text = f"""
[[models]]
name = "acme/x"
[[models.offers]]
provider = "local"
name = "x"
output = {{ path = "{path}" }}
"""
    if fits:
        assert fine(text, tmp_path).config.models[0].offers[0].output.path == path
    else:
        [fault] = faults(text, tmp_path)
        assert fault.startswith("turnout.toml:7: models[0].offers[0].output.path: this is no path into an output")


def test_secrets_are_found_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(HASH + "\n")
    text = f"""
[keys.app]
hash = "{HASH.replace("0123", "aaaa")}"
[keys.ci]
hash = "file:key"
[webhooks]
secret = "env:HOOK"
[providers.replicate]
token = "env:TOKEN"
webhook_secret = "env:HOOK"
"""
    hook = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    loaded = fine(text, tmp_path, {"TOKEN": "r8_canary", "HOOK": hook})
    assert loaded.secrets == {
        "keys.app.hash": Secret(HASH.replace("0123", "aaaa")),
        "keys.ci.hash": Secret(HASH),
        "webhooks.secret": Secret(hook),
        "providers.replicate.credentials.token": Secret("r8_canary"),
        "providers.replicate.webhook_secret": Secret(hook),
    }
    assert sorted(loaded.secret_values) == sorted([hook, hook, "r8_canary"])
    assert "canary" not in repr(loaded)
    assert hook not in repr(loaded)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[keys.app]\nhash = "to_app_canary"\n', "a secret is not written out here"),
        ('[keys.app]\nhash = ""\n', "it is empty; `turnout keys new` makes a key"),
        ('[keys.app]\nhash = "env:H"\n', "this is no hash of a key"),
        ('[providers.replicate]\ntoken = "r8_canary"\n', 'a secret is not written out here; write "env:NAME" or'),
        ('[providers.replicate]\nwebhook_secret = "whsec_canary"\n', "a secret is not written out here"),
        ('[providers.replicate]\nbase_url = "https://me:canary@host"\n', "a user or password in this address"),
        ('[webhooks]\nsecret = "env:H"\n', "this is no webhook secret"),
        ('[webhooks]\nsecret = "file:absent"\n', "absent cannot be read (No such file or directory)"),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(text: str, said: str, tmp_path: Path) -> None:
    (line,) = faults(text, tmp_path, {"H": "whsec_canary"})
    assert said in line
    assert "canary" not in line


def test_the_same_key_under_two_names_is_refused(tmp_path: Path) -> None:
    (line,) = faults(f'[keys.a]\nhash = "{HASH}"\n[keys.b]\nhash = "{HASH}"\n', tmp_path)
    assert line.startswith("turnout.toml:4: keys.b.hash: the same key as [keys.a]")


# -- schemas and policies --------------------------------------------------------------------------------------------


def test_schemas_are_read_from_beside_the_file(tmp_path: Path) -> None:
    schema = {"Input": {"type": "object"}, "Output": {"type": "string"}}
    (tmp_path / "up.json").write_text(json.dumps(schema))
    text = MODEL.replace("[[models.offers]]", 'schema = "up.json"\n[[models.offers]]')
    assert fine(text, tmp_path).schemas == {"acme/up": schema}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is no schema of a model"),
        (b'{"properties": {}}', "is no schema of a model"),
    ],
)
def test_a_schema_that_is_none_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "up.json").write_bytes(content)
    (line,) = faults(MODEL.replace("[[models.offers]]", 'schema = "up.json"\n[[models.offers]]'), tmp_path)
    assert line.startswith(f"turnout.toml:5: models[0].schema: {tmp_path}/up.json {said}")


def test_policies_of_ops_stand_beside_the_presets_and_may_be_the_default(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ours.toml").write_text('[[policies]]\nname = "ours"\n[[policies]]\nname = "theirs"\n')
    loaded = fine('[policies]\nfiles = ["rules"]\ndefault = "ours"\n', tmp_path)
    assert {"ours", "theirs", "balanced"} <= set(loaded.policies.current().names)


def test_a_policy_that_a_key_names_must_exist_and_must_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f'[keys.app]\nhash = "{HASH}"\npolicy = "ours"\n[policies]\nfiles = ["p.toml"]\n'
    file = tmp_path / "p.toml"
    file.write_text('[[policies]]\nname = "other"\n')
    assert faults(text, tmp_path)[0].startswith('turnout.toml:3: keys.app.policy: unknown policy "ours"')
    file.write_text('[[policies]]\nname = "ours"\n')
    loaded = fine(text, tmp_path)
    file.write_text('[[policies]]\nname = "renamed"\n')
    loaded.policies.look()
    loaded.policies.look()
    assert "ours" in loaded.policies.current().names
    assert 'turnout.toml:3: keys.app.policy: unknown policy "ours"' in caplog.text


def test_a_store_in_redis_is_read_with_its_password(tmp_path: Path) -> None:
    text = """
        [server]
        workers = 4
        [store]
        url = "rediss://redis.internal:6390/3"
        username = "turnout"
        password = "env:REDIS_PASSWORD"
        durability = "wait:2"
        checks = "warn"
    """
    loaded = parse(text, place="turnout.toml", folder=tmp_path, environ={"REDIS_PASSWORD": "canary"})
    assert loaded.store.address == RedisAddress(nodes=(("redis.internal", 6390),), database=3, is_encrypted=True)
    assert (loaded.store.username, loaded.store.password, loaded.store.refuses) == ("turnout", "canary", False)
    assert loaded.store.durability.replicas == 2
    assert loaded.store_path is None
    assert "canary" in loaded.secret_values
    assert "canary" not in repr(loaded) + repr(loaded.store)


def test_a_cluster_is_named_by_some_of_its_nodes(tmp_path: Path) -> None:
    loaded = parse('[store]\nurl = "redis+cluster://a:7000,[::1]:7001,b"\n', place="x", folder=tmp_path, environ={})
    nodes = (("a", 7000), ("::1", 7001), ("b", 6379))
    assert loaded.store.address == RedisAddress(nodes=nodes, is_cluster=True)
    assert str(loaded.store.address) == "a:7000,[::1]:7001,b:6379"
