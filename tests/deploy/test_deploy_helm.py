"""The Helm chart: linted, rendered by a real helm, and every document checked against Kubernetes.

What no test here shows: the chart running in a cluster.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deploy_report import Report

from services.common.settings import Settings

pytestmark = pytest.mark.deploy

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "lesionlens"
KUBERNETES = "1.37"

# Sets of values that a site may give, by name.
ALTERED: dict[str, dict[str, Any]] = {
    "defaults": {},
    "outside services": {
        "redis": {"enabled": False},
        "connections": {
            "redisUrl": "rediss://:secret@redis.example.org:6380/0",
            "ledgerUrl": "postgresql+psycopg://lens:secret@db.example.org/lens",
        },
        "state": {"accessMode": "ReadWriteMany", "storageClass": "nfs"},
        "settings": {"blobs_url": "s3://lens/blobs", "max_body_mb": 1_000_000},
        "inference": {
            "replicas": 3,
            "service": {"type": "LoadBalancer", "port": 8080, "grpc": {"port": 8081}},
        },
        "worker": {"replicas": 8},
    },
    "a site's own": {
        "images": {
            "inference": {"repository": "registry.example.org:5000/lens/inference", "tag": "9"},
            "pullSecrets": ["registry-login"],
            "pullPolicy": "Always",
        },
        "bundle": {"existingClaim": "models", "subPath": "liver/2026-11"},
        "state": {"existingClaim": "lens-state"},
        "connections": {"existingSecret": "lens-connections"},
        "inference": {
            "service": {"grpc": {"enabled": False}},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "ai", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "worker": {"replicas": 0, "nodeSelector": {"disk": "ssd"}},
        "redis": {"storageClass": "fast", "size": "5Gi"},
        "networkPolicy": {"enabled": False},
    },
}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"worker": {"replicas": "two"}}, "/worker/replicas"),
    ({"inference": {"replicas": 0}}, "/inference/replicas"),
    ({"inference": {"service": {"port": 70000}}}, "/inference/service/port"),
    ({"inference": {"service": {"grpc": {"port": 0}}}}, "/inference/service/grpc/port"),
    ({"inference": {"service": {"grpc": {"on": True}}}}, "/inference/service/grpc"),
    ({"wroker": {"replicas": 2}}, "wroker"),
    ({"settings": {"max_body": 5}}, "max_body"),
    ({"state": {"accessMode": "ReadWriteMost"}}, "/state/accessMode"),
    ({"state": {"size": "20 GB"}}, "/state/size"),
    ({"bundle": {"existingClaim": ""}}, "/bundle/existingClaim"),
    ({"bundle": {"subPath": "../up"}}, "/bundle/subPath"),
    ({"images": {"redis": {"tag": ""}}}, "/images/redis/tag"),
    ({"connections": {"redisUrl": "http://redis"}}, "/connections/redisUrl"),
    ({"connections": {"ledgerUrl": "sqlite:///x"}}, "/connections/ledgerUrl"),
    # What the schema cannot say, the templates do.
    ({"inference": {"service": {"grpc": {"port": 3000}}}}, "inference.service.grpc.port: must"),
    ({"redis": {"enabled": False}}, "connections.redisUrl: needed"),
    ({"state": {"accessMode": "ReadWriteMany"}}, "connections.ledgerUrl: needed"),
    (
        {"connections": {"existingSecret": "s", "redisUrl": "redis://r:6379/0"}},
        "not both",
    ),
]


@pytest.fixture
def run(helm: Path, tmp_path: Path) -> Any:
    """Runs helm with values; its home is a folder of the test's."""

    def run(*arguments: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return subprocess.run(
            [helm, *arguments, "--values", file],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )

    return run


def _documents(run: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    done = run("template", "lens", str(CHART), "--namespace", "liver", values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _one(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def _pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds = ("Deployment", "StatefulSet")
    return {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]
        for d in documents
        if d["kind"] in kinds
    }


@pytest.mark.parametrize("name", ALTERED)
def test_lint_strict(run: Any, name: str) -> None:
    done = run("lint", "--strict", str(CHART), values=ALTERED[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_document_is_valid(run: Any, deploy_report: Report) -> None:
    errors = []
    for name, values in ALTERED.items():
        documents = _documents(run, values)
        assert len(documents) >= 5
        for document in documents:
            try:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as error:
                errors.append(f"{name}: {document['kind']}: {error}")
    deploy_report.add(helm_errors=len(errors), kubernetes=KUBERNETES)
    assert not errors


def test_validator_refuses_an_unknown_field(run: Any) -> None:
    """The check above can fail: a field that Kubernetes does not know is found."""
    deployment = _one(_documents(run, {}), "Deployment", "lens-worker")
    deployment["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize(("values", "where"), REFUSED, ids=lambda v: str(v)[:60])
def test_wrong_values_are_refused(run: Any, values: dict[str, Any], where: str) -> None:
    done = run("template", "lens", str(CHART), values=values)
    assert done.returncode != 0
    assert where in done.stderr


def test_probes_and_limits(run: Any) -> None:
    documents = _documents(run, {})
    inference = _pods(documents)["lens-inference"]["containers"][0]
    assert inference["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert inference["readinessProbe"]["httpGet"]["path"] == "/readyz"
    worker = _pods(documents)["lens-worker"]["containers"][0]
    assert "services.explain.canary" in worker["livenessProbe"]["exec"]["command"]
    for name, pod in _pods(documents).items():
        container = pod["containers"][0]
        assert container["resources"]["limits"]["memory"], name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name
        assert pod["automountServiceAccountToken"] is False, name


@pytest.mark.parametrize("name", ALTERED)
def test_names_that_refer_to_others_exist(run: Any, name: str) -> None:
    """Config maps, secrets and claims that pods name are in the chart, or named in the values."""
    values = ALTERED[name]
    documents = _documents(run, values)
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    given = {
        (
            "PersistentVolumeClaim",
            values.get("bundle", {}).get("existingClaim", "lesionlens-bundle"),
        ),
        ("PersistentVolumeClaim", values.get("state", {}).get("existingClaim")),
        ("Secret", values.get("connections", {}).get("existingSecret")),
    }
    for pod in _pods(documents).values():
        for source in pod["containers"][0].get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    assert (kind, source[key]["name"]) in there | given
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in there | given


def test_services_select_the_pods(run: Any) -> None:
    documents = _documents(run, {})
    for name in ("lens-inference", "lens-redis"):
        kind = "StatefulSet" if name == "lens-redis" else "Deployment"
        labels = _one(documents, kind, name)["spec"]["template"]["metadata"]["labels"]
        selector = _one(documents, "Service", name)["spec"]["selector"]
        assert selector.items() <= labels.items()


def test_the_service_reaches_both_doors(run: Any) -> None:
    """Service, container and setting name the same ports; without gRPC all three leave it out."""
    for name, outside in (("defaults", 3001), ("outside services", 8081), ("a site's own", None)):
        documents = _documents(run, ALTERED[name])
        ports = _one(documents, "Service", "lens-inference")["spec"]["ports"]
        inside = _pods(documents)["lens-inference"]["containers"][0]["ports"]
        given = {p["name"]: p["containerPort"] for p in inside}
        setting = _one(documents, "ConfigMap", "lens-settings")["data"]["LESIONLENS_GRPC_PORT"]
        assert {p["targetPort"] for p in ports} == set(given)
        assert given.get("grpc", 0) == int(setting)
        assert {p["name"]: p["port"] for p in ports}.get("grpc") == outside


def test_settings_are_read_by_the_services(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that the chart sets is a setting, with the value that was given."""
    values = {"settings": {"max_body_mb": 1_000_000, "blobs_url": "s3://lens/blobs"}}
    documents = _documents(run, values)
    data = _one(documents, "ConfigMap", "lens-settings")["data"]
    data |= _one(documents, "Secret", "lens-connections")["stringData"]
    for name, value in data.items():
        assert name.removeprefix("LESIONLENS_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.max_body_mb == 1_000_000
    assert settings.blobs == "s3://lens/blobs"
    assert settings.redis == "redis://lens-redis:6379/0"
    assert settings.inference == "http://lens-inference:3000"


def test_defaults_are_those_of_the_services() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]
    fields = Settings.model_fields
    assert defaults == {name: fields[name].default for name in defaults}


def test_pods_that_share_a_volume_share_a_node(run: Any) -> None:
    documents = _documents(run, {})
    for name in ("lens-inference", "lens-worker"):
        (term,) = _pods(documents)[name]["affinity"]["podAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        labels = _one(documents, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    for pod in _pods(_documents(run, ALTERED["outside services"])).values():
        assert "affinity" not in pod


def test_replicas_share_no_metrics(run: Any) -> None:
    """Metrics are files named by process ids, which replicas have in common."""
    documents = _documents(run, {})
    data = _one(documents, "ConfigMap", "lens-settings")["data"]
    own = f"{data['LESIONLENS_HOME']}/front-{data['LESIONLENS_PORT']}"
    mounts = _pods(documents)["lens-inference"]["containers"][0]["volumeMounts"]
    assert [m["name"] for m in mounts if m["mountPath"] == own] == ["tmp"]


def test_passwords_stay_out_of_the_config_map(run: Any) -> None:
    documents = _documents(run, ALTERED["outside services"])
    for document in documents:
        if document["kind"] != "Secret":
            assert "secret@" not in yaml.safe_dump(document)
    secret = _one(documents, "Secret", "lens-connections")["stringData"]
    assert secret["LESIONLENS_LEDGER_URL"].startswith("postgresql+psycopg://")
