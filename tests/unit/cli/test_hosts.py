"""kybern init, certs and join, as commands."""

from __future__ import annotations

import base64
import io
import stat
import tarfile
from pathlib import Path

import pytest
import yaml

from kybern.cli.main import run
from kybern.config.loading import load
from kybern.config.models import DockerRuntime, MasterConfig, NodeConfig, StoreConfig
from kybern.pki import check_files, identity_of_pem, utc_now


def init(folder: Path, *more: str) -> int:
    members = ["--member", "m1=192.168.1.11", "--member", "m2=192.168.1.12", "--member", "m3=192.168.1.13"]
    where = ["--dir", str(folder), "--data-dir", str(folder / "data")]
    return run(["init", "--name", "m1", "--address", "192.168.1.11", *members, *where, *more])


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The configuration folder of a first master."""
    folder = tmp_path / "m1"
    assert init(folder) == 0
    return folder


def test_init_writes_what_the_daemons_read(first: Path) -> None:
    store, master = load(first / "store.yaml", StoreConfig), load(first / "master.yaml", MasterConfig)
    assert store.name == master.name == "m1"
    for tls in (store.tls, master.tls, master.store_tls, master.client_tls):
        check_files(tls.cert, tls.key, tls.ca, utc_now())
    assert master.service_account_key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_identities_are_the_documented_ones(first: Path) -> None:
    def who(name: str, ca: str) -> tuple[str, tuple[str, ...]]:
        pki = first / "pki"
        identity = check_files(pki / f"{name}.crt", pki / f"{name}.key", pki / f"{ca}.crt", utc_now())
        return identity.name, identity.groups

    assert who("admin", "ca") == ("kubernetes-admin", ("system:masters",))
    assert who("master-client", "ca") == ("system:kybern:master:m1", ("kybern:masters",))
    assert who("store", "store-ca") == ("m1", ("kybern:store",))
    assert who("store-client", "store-ca") == ("m1", ("kybern:masters",))
    assert who("master", "ca")[1] == ()


def test_private_files_are_readable_by_their_owner_alone(first: Path) -> None:
    private = [*first.glob("pki/*.key"), first / "admin.kubeconfig"]
    assert len(private) == 9
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((first / "pki").stat().st_mode) == 0o700


def test_nothing_is_overwritten_without_force(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (first / "pki" / "ca.crt").read_bytes()
    (first / "admin.kubeconfig").unlink()
    assert init(first) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert (first / "pki" / "ca.crt").read_bytes() == before
    assert not (first / "admin.kubeconfig").exists()
    assert init(first, "--force") == 0
    assert (first / "pki" / "ca.crt").read_bytes() != before


def test_a_further_master_joins_with_its_bundle(first: Path, tmp_path: Path) -> None:
    bundle, second = tmp_path / "m2.tar", tmp_path / "m2"
    assert run(["certs", "master", "m2", "--out", str(bundle), "--dir", str(first)]) == 0
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert run(["join", "master", "--bundle", str(bundle), "--dir", str(second)]) == 0
    ours, theirs = load(second / "master.yaml", MasterConfig), load(first / "master.yaml", MasterConfig)
    assert (ours.name, ours.rest_address) == ("m2", "192.168.1.12:6443")
    assert ours.cluster == theirs.cluster
    # Tokens that one master signs are good on all of them.
    assert ours.service_account_key.read_bytes() == theirs.service_account_key.read_bytes()
    assert not (second / "pki" / "ca.key").exists()
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", "x", "--dir", str(second)]) == 1


def test_a_master_with_the_authorities_can_issue(first: Path, tmp_path: Path) -> None:
    bundle, second = tmp_path / "m2.tar", tmp_path / "m2"
    assert run(["certs", "master", "m2", "--out", str(bundle), "--dir", str(first), "--authority"]) == 0
    assert run(["join", "master", "--bundle", str(bundle), "--dir", str(second)]) == 0
    node = ["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(tmp_path / "n1.tar")]
    assert run([*node, "--dir", str(second)]) == 0


def test_a_node_joins_with_its_bundle(first: Path, tmp_path: Path) -> None:
    bundle, folder = tmp_path / "n1.tar", tmp_path / "n1"
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(bundle), "--dir", str(first)]) == 0
    options = ["--label", "disk=ssd", "--reserve", "memory=200Mi", "--docker", "unix:///run/x.sock"]
    assert run(["join", "node", "--bundle", str(bundle), "--dir", str(folder), *options]) == 0
    config = load(folder / "node.yaml", NodeConfig)
    identity = check_files(config.tls.cert, config.tls.key, config.tls.ca, utc_now())
    assert (identity.name, identity.groups) == ("system:node:n1", ("system:nodes",))
    assert config.runtime == DockerRuntime(endpoint="unix:///run/x.sock")
    assert (config.labels, config.reserved) == ({"disk": "ssd"}, {"memory": "200Mi"})
    # A node holds nothing that opens the store or issues certificates.
    assert {p.name for p in folder.glob("pki/*")} == {"ca.crt", "node.crt", "node.key"}


def test_a_master_can_be_a_node_too(first: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "m1.tar"
    assert run(["certs", "node", "m1", "--address", "192.168.1.11", "--out", str(bundle), "--dir", str(first)]) == 0
    assert run(["join", "node", "--bundle", str(bundle), "--dir", str(first)]) == 0
    assert load(first / "node.yaml", NodeConfig).name == "m1"
    assert load(first / "master.yaml", MasterConfig).name == "m1"


def test_a_node_of_another_cluster_does_not_mix_in(first: Path, tmp_path: Path) -> None:
    other, bundle = tmp_path / "other", tmp_path / "n1.tar"
    assert init(other) == 0
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(bundle), "--dir", str(other)]) == 0
    assert run(["join", "node", "--bundle", str(bundle), "--dir", str(first)]) == 1
    assert not (first / "node.yaml").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["certs", "master", "m9", "--out", "m9.tar"], "no master m9"),
        (["certs", "master", "m9", "--address", "m9", "--out", "m9.tar"], "--address: 'm9'"),
        (["certs", "master", "m9", "--address", "192.168.1.19", "--out", "absent/m9.tar"], "there is no folder absent"),
        (["certs", "node", "N1", "--address", "192.168.1.101", "--out", "n1.tar"], "not a name"),
        (["certs", "node", "n1", "--address", "10.96.0.7", "--out", "n1.tar"], "range of the services"),
        (["join", "node", "--bundle", "absent.tar"], "absent.tar"),
    ],
)
def test_errors_name_what_is_wrong(
    first: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(first.parent)
    before = (first / "cluster.yaml").read_bytes()
    assert run([*words, "--dir", str(first)]) == 1
    assert (first / "cluster.yaml").read_bytes() == before
    assert not (first.parent / "absent").exists()
    error = capsys.readouterr().err
    assert error.startswith("kybern: ")
    assert says in error
    assert list(first.parent.glob("*.tar")) == []


def test_the_wrong_kind_of_bundle_is_explained(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "n1.tar"
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(bundle), "--dir", str(first)]) == 0
    assert run(["join", "master", "--bundle", str(bundle), "--dir", str(tmp_path / "x")]) == 1
    assert f"kybern join node --bundle {bundle}" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../escape.key", "/abs.key", "pki/../../x.key", "pki/.hidden.key", "master.yaml"])
def test_a_bundle_cannot_write_where_it_likes(first: Path, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "n1.tar"
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(bundle), "--dir", str(first)]) == 0
    with tarfile.open(bundle, "a") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    assert run(["join", "node", "--bundle", str(bundle), "--dir", str(tmp_path / "n1")]) == 1
    assert not (tmp_path / "n1").exists()


def test_what_is_not_a_bundle_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all")
    assert run(["join", "node", "--bundle", str(tmp_path / "x.tar"), "--dir", str(tmp_path / "n1")]) == 1
    assert "not a bundle" in capsys.readouterr().err


def test_the_first_master_is_a_member_without_being_named_twice(tmp_path: Path) -> None:
    where = ["--dir", str(tmp_path / "e"), "--data-dir", str(tmp_path / "d")]
    assert run(["init", "--name", "a", "--address", "192.168.1.1", *where]) == 0
    assert yaml.safe_load((tmp_path / "e" / "cluster.yaml").read_text())["members"] == {"a": "192.168.1.1"}
    both = ["--name", "a", "--address", "192.168.1.1", "--member", "b=192.168.1.2"]
    assert run(["init", *both, *where, "--force"]) == 0
    assert list(yaml.safe_load((tmp_path / "e" / "cluster.yaml").read_text())["members"]) == ["a", "b"]
    wrong = ["--name", "a", "--address", "192.168.1.1", "--member", "a=192.168.1.2"]
    assert run(["init", *wrong, "--dir", str(tmp_path / "f")]) == 1


def test_wrong_usage_is_2_and_help_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init"]) == 2
    assert run(["init", "--help"]) == 0
    assert "--member" in capsys.readouterr().out
    assert run(["store", "snapshot", "restore", "--help"]) == 0
    # A docstring's lines are no lines of the help.
    assert "Members of the old group, and\n" not in "\n".join(map(str.rstrip, capsys.readouterr().out.splitlines()))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def changed(folder: Path, before: dict[str, bytes]) -> list[str]:
    return sorted(name for name, data in contents(folder).items() if before.get(name) != data)


def test_a_first_master_that_is_a_node_too_renews_what_is_its_own(first: Path, tmp_path: Path) -> None:
    bundle, where = tmp_path / "n1.tar", ["--dir", str(first)]
    assert run(["certs", "node", "m1", "--address", "192.168.1.11", "--out", str(bundle), *where]) == 0
    assert run(["join", "node", "--bundle", str(bundle), *where, "--data-dir", str(first / "data")]) == 0
    before = contents(first)
    assert run(["certs", "renew", *where]) == 0
    pairs = [
        f"pki/{n}.{e}"
        for n in ("admin", "master", "master-client", "node", "store", "store-client")
        for e in ("crt", "key")
    ]
    assert changed(first, before) == sorted([*pairs, "admin.kubeconfig"])
    store, master = load(first / "store.yaml", StoreConfig), load(first / "master.yaml", MasterConfig)
    node = load(first / "node.yaml", NodeConfig)
    for tls in (store.tls, master.tls, master.store_tls, master.client_tls, node.tls):
        was = identity_of_pem(before[str(tls.cert.relative_to(first))])
        assert check_files(tls.cert, tls.key, tls.ca, utc_now()) == was
    kubeconfig = yaml.safe_load((first / "admin.kubeconfig").read_text())
    data = kubeconfig["users"][0]["user"]["client-certificate-data"]
    assert base64.b64decode(data) == (first / "pki/admin.crt").read_bytes()


@pytest.mark.parametrize("kind", ["master", "node"])
def test_another_host_renews_from_a_bundle_that_is_issued_anew(first: Path, tmp_path: Path, kind: str) -> None:
    bundle, other = tmp_path / "x.tar", tmp_path / "x"
    issue = ["certs", kind, "m2", "--out", str(bundle), "--dir", str(first)]
    issue += ["--address", "192.168.1.12"] if kind == "node" else []
    assert run(issue) == 0
    where = ["--bundle", str(bundle), "--dir", str(other)]
    assert run(["join", kind, *where, "--data-dir", str(other / "data")]) == 0
    before = contents(other)
    assert run([*issue, "--force"]) == 0
    assert run(["certs", "renew", *where]) == 0
    names = ("master", "master-client", "store", "store-client") if kind == "master" else ("node",)
    assert changed(other, before) == sorted(f"pki/{n}.{e}" for n in names for e in ("crt", "key"))


def test_what_is_not_this_hosts_is_not_taken(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger, bundle = tmp_path / "stranger", tmp_path / "x.tar"
    assert init(stranger) == 0
    assert run(["certs", "master", "m2", "--out", str(bundle), "--dir", str(first)]) == 0
    before = contents(first)

    def refused(*words: str) -> None:
        capsys.readouterr()
        assert run(["certs", "renew", "--bundle", str(bundle), "--dir", str(first)]) == 1
        said = capsys.readouterr().err
        assert all(word in said for word in words), said
        assert contents(first) == before

    refused("was issued for the master m2", "this host is the master m1")
    assert (
        run(["certs", "node", "n1", "--address", "192.168.1.9", "--out", str(bundle), "--dir", str(first), "--force"])
        == 0
    )
    refused("was issued for the node n1", "this host is no node")
    assert run(["certs", "master", "m1", "--out", str(bundle), "--dir", str(stranger), "--force"]) == 0
    refused("is not that of whoever issued these certificates", "kybern join --force")
    (first / "pki/ca.key").unlink()
    before = contents(first)
    assert run(["certs", "renew", "--dir", str(first)]) == 1
    assert "cannot issue certificates" in capsys.readouterr().err
    assert contents(first) == before


def test_a_further_master_becomes_a_part_of_the_cluster(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, other = tmp_path / "m4.tar", tmp_path / "m4"
    issue = ["certs", "master", "m4", "--out", str(bundle), "--dir", str(first)]
    before = contents(first)
    for words, said in (
        ([], "the cluster has no master m4; it has m1, m2, m3"),
        (["--address", "192.168.1.13"], "two members have the same address"),
        (["--address", "10.96.0.9"], "lies in the range of the services"),
        (["--address", "m4.example"], "is not an IPv4 address"),
    ):
        assert run([*issue, *words]) == 1
        assert said in capsys.readouterr().err
        assert contents(first) == before
    bundle.write_text("")
    assert run([*issue, "--address", "192.168.1.14"]) == 1
    assert contents(first) == before
    assert run([*issue, "--address", "192.168.1.14", "--force"]) == 0
    assert changed(first, before) == ["cluster.yaml"]
    assert run(["join", "master", "--bundle", str(bundle), "--dir", str(other), "--data-dir", str(other / "d")]) == 0
    assert "kybern store join" in capsys.readouterr().out
    store, master = load(other / "store.yaml", StoreConfig), load(other / "master.yaml", MasterConfig)
    assert store.members["m4"] == store.peer_address == "192.168.1.14:2380"
    assert set(store.members) == {"m1", "m2", "m3", "m4"}
    assert master.store == [f"192.168.1.{n}:2379" for n in (14, 11, 12, 13)]
    # Once its member has begun, the host's own does too: with its disk lost it must not found a group without asking.
    begun = load(first / "store.yaml", StoreConfig).data_dir
    begun.mkdir(parents=True)
    (begun / "identity.json").touch()
    before = contents(first)
    assert run([*issue, "--address", "192.168.1.15", "--force"]) == 0
    assert changed(first, before) == ["cluster.yaml", "store.yaml"]
    store = load(first / "store.yaml", StoreConfig)
    assert (store.members["m4"], store.clients["m4"]) == ("192.168.1.15:2380", "192.168.1.15:2379")
    assert store.members["m1"] == store.peer_address
    assert run([*issue, "--address", "192.168.1.14", "--force"]) == 0
    # Those for whom bundles are issued from now on know of it.
    node, where = tmp_path / "n1.tar", ["--dir", str(tmp_path / "n1")]
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(node), "--dir", str(first)]) == 0
    assert run(["join", "node", "--bundle", str(node), *where, "--data-dir", str(tmp_path / "d")]) == 0
    assert "192.168.1.14:6444" in load(tmp_path / "n1" / "node.yaml", NodeConfig).masters
