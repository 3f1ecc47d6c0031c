"""Manifests: right by the schemas that ship in packages, closed to the outside, without privileges or secrets."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sketchscale import __version__
from tests.deploy.artefacts import (
    DEPLOY,
    KEEPALIVE,
    MANIFESTS,
    Document,
    all_documents,
    all_pods,
    documents,
    environment_of,
    of_kind,
    pod_templates,
    ray_specs,
)

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="absent: pip install kubernetes-validate")
jsonschema = pytest.importorskip("jsonschema", reason="absent: pip install jsonschema")

PLAIN = {"Namespace", "ServiceAccount", "NetworkPolicy", "ConfigMap"}
PODS = pytest.mark.parametrize("pod", [pod for _, pod in all_pods()], ids=[name for name, _ in all_pods()])
NAMES_OF_PODS = {name for name, _ in all_pods()}

# KubeRay's schema ships in no package: its fields that we use, read from its Go types (apis/ray/v1, v1.5.1).
KUBERAY = {
    "RayCluster": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "RayJob": {
        "entrypoint",
        "backoffLimit",
        "activeDeadlineSeconds",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
        "submitterPodTemplate",
    },
    "head": {"serviceType", "rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def as_pod(spec: Document) -> Document:
    """A pod of its own, as the schemas know it."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


def check_plain(document: Document) -> None:
    """Raises when the object is not as Kubernetes 1.37 has it, misspelt fields included."""
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_every_kind_is_one_that_is_checked_here() -> None:
    assert {document["kind"] for document in all_documents()} == {*PLAIN, "RayCluster", "RayJob", "DaskJob"}
    assert len(NAMES_OF_PODS) == len(all_pods()) == 2 + 3 + 3


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_plain_objects_are_right(kind: str) -> None:
    for document in of_kind(kind):
        check_plain(document)


@PODS
def test_pods_are_right(pod: Document) -> None:
    check_plain(as_pod(pod))


def test_a_misspelt_field_of_a_pod_is_seen() -> None:
    pod = copy.deepcopy(all_pods()[0][1])
    pod["containers"][0]["resourcs"] = pod["containers"][0].pop("resources")
    with pytest.raises(kubernetes_validate.ValidationError, match="resourcs"):
        check_plain(as_pod(pod))


@pytest.mark.parametrize("document", [*of_kind("RayCluster"), *of_kind("RayJob")], ids=lambda d: d["kind"])
def test_ray_objects_have_fields_that_kuberay_knows(document: Document) -> None:
    assert document["apiVersion"] == "ray.io/v1"
    assert set(document["spec"]) <= KUBERAY[document["kind"]]
    spec = ray_specs(document)
    assert set(spec) <= KUBERAY["RayCluster"]
    assert set(spec["headGroupSpec"]) <= KUBERAY["head"]
    for group in spec["workerGroupSpecs"]:
        assert set(group) <= KUBERAY["worker"]
        assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay wants strings"


def test_ray_asks_for_its_token_and_is_the_version_that_is_tested() -> None:
    constraints = (DEPLOY / "constraints.txt").read_text().splitlines()
    for document in [*of_kind("RayCluster"), *of_kind("RayJob")]:
        spec = ray_specs(document)
        assert spec["authOptions"] == {"mode": "token"}
        assert f"ray=={spec['rayVersion']}" in constraints


def test_the_cluster_of_a_job_is_the_cluster_that_stays() -> None:
    (cluster,), (job,) = of_kind("RayCluster"), of_kind("RayJob")
    assert ray_specs(job) == ray_specs(cluster), "edit both"
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"]


def dask_schema() -> Document:
    """Of a DaskJob, from the operator's package; fields that it does not list are refused."""
    found = importlib.util.find_spec("dask_kubernetes")
    if found is None or not found.submodule_search_locations:
        pytest.skip("dask-kubernetes is absent: pip install --no-deps dask-kubernetes")
    folder = Path(found.submodule_search_locations[0])
    (crd,) = folder.glob("operator/deployment/helm/*/crds/daskjob.yaml")
    (definition,) = documents(crd)
    (version,) = definition["spec"]["versions"]
    assert version["name"] == "v1"
    schema: Document = version["schema"]["openAPIV3Schema"]
    close(schema["properties"]["spec"])
    return schema


def close(schema: Any) -> None:
    """Refuse what a schema does not list."""
    if isinstance(schema, list):
        for item in schema:
            close(item)
    elif isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for item in schema.values():
            close(item)


def test_the_dask_job_is_as_its_operator_has_it() -> None:
    (job,) = of_kind("DaskJob")
    schema = dask_schema()
    assert job["apiVersion"] == "kubernetes.dask.org/v1"
    jsonschema.validate(job, schema)
    wrong = copy.deepcopy(job)
    wrong["spec"]["cluster"]["spec"]["worker"]["replica"] = 4
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(wrong, schema)


def test_the_scheduler_answers_under_the_name_that_its_operator_gives() -> None:
    (job,) = of_kind("DaskJob")
    service = job["spec"]["cluster"]["spec"]["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == job["metadata"]["name"]
    check_plain({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": service})


@PODS
def test_pods_have_no_privileges(pod: Document) -> None:
    security = pod["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    assert pod["serviceAccountName"] == "sketchscale"
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not [port for port in container.get("ports", []) if "hostPort" in port]


@PODS
def test_pods_have_limits_room_to_write_and_an_image_of_this_version(pod: Document) -> None:
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {environment_of(container)["HOME"], "/tmp"} <= paths
        assert container["image"].endswith(f":{__version__}")


@PODS
def test_every_process_keeps_its_links_alive_and_reports_to_nobody(pod: Document) -> None:
    for container in pod["containers"]:
        found = environment_of(container)
        assert found.items() >= {**KEEPALIVE, "RAY_USAGE_STATS_ENABLED": "0"}.items()
        assert found["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] == "30s"


def test_gpu_workers_run_on_spot_nodes_and_nothing_else_does() -> None:
    for name, pod in all_pods():
        gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert bool(gpus) == name.endswith(("/spot-gpu", "/worker")), name
        assert bool(gpus) == ("nodeSelector" in pod) == bool(pod.get("tolerations")), name


def test_no_manifest_opens_a_port_or_holds_a_secret() -> None:
    assert not of_kind("Ingress")
    for document in all_documents():
        text = str(document)
        assert not [word for word in ("LoadBalancer", "NodePort", "AWS_", "Secret") if word in text]
        assert document["metadata"].get("namespace", "sketchscale") == "sketchscale"
    for document in [*of_kind("RayCluster"), *of_kind("RayJob")]:
        head = ray_specs(document)["headGroupSpec"]
        assert head["serviceType"] == "ClusterIP"
        assert not head.get("enableIngress")
    (job,) = of_kind("DaskJob")
    assert job["spec"]["cluster"]["spec"]["scheduler"]["service"]["type"] == "ClusterIP"


def admits(policy: Document, namespace: str, labels: dict[str, str], port: int) -> bool:
    """Whether the policy lets a pod in to a TCP port; rules as in Kubernetes' documentation of NetworkPolicy."""
    return any(
        any(_matches(peer, namespace, labels) for peer in rule.get("from", [{"namespaceSelector": {}}]))
        and ("ports" not in rule or any(entry.get("port") == port for entry in rule["ports"]))
        for rule in policy["spec"].get("ingress", [])
    )


def _matches(peer: Document, namespace: str, labels: dict[str, str]) -> bool:
    if "ipBlock" in peer:
        return True
    spaces = peer.get("namespaceSelector")
    here = (
        namespace == "sketchscale" if spaces is None else _selects(spaces, {"kubernetes.io/metadata.name": namespace})
    )
    return here and _selects(peer.get("podSelector", {}), labels)


def _selects(selector: Document, labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def test_the_network_is_closed_but_inside() -> None:
    (policy,) = of_kind("NetworkPolicy")
    assert policy["spec"]["podSelector"] == {}, "every pod"
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    ports = (6379, 8265, 8786, 8787, 10001)
    operator = {"app.kubernetes.io/name": "kuberay-operator"}
    assert all(admits(policy, "sketchscale", {"any": "pod"}, port) for port in ports)
    assert not any(admits(policy, "default", {"app": "browser"}, port) for port in ports)
    assert not any(admits(policy, "default", operator, port) for port in ports), "a label is not enough"
    assert [port for port in ports if admits(policy, "kuberay-operator", operator, port)] == [8265]


def test_what_leaves_goes_to_the_cluster_to_names_and_to_https() -> None:
    (policy,) = of_kind("NetworkPolicy")
    inside, names, bucket = policy["spec"]["egress"]
    assert inside == {"to": [{"podSelector": {}}]}
    assert {port["port"] for port in names["ports"]} == {53}
    assert "169.254.0.0/16" in bucket["to"][0]["ipBlock"]["except"], "the node's own role stays out of reach"
    assert {port["port"] for port in bucket["ports"]} == {443}


def test_the_bucket_is_reached_by_the_account() -> None:
    (account,) = of_kind("ServiceAccount")
    assert any("role" in key for key in account["metadata"]["annotations"])
    assert account["automountServiceAccountToken"] is False
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def opened(policy: Document) -> None:
    policy["spec"]["ingress"].append({})


def by_label_alone(policy: Document) -> None:
    policy["spec"]["ingress"][1]["from"][0]["namespaceSelector"] = {}


@pytest.mark.parametrize("hole", [opened, by_label_alone])
def test_a_hole_in_the_policy_is_seen(hole: Callable[[Document], None]) -> None:
    policy = copy.deepcopy(of_kind("NetworkPolicy")[0])
    hole(policy)
    operator = {"app.kubernetes.io/name": "kuberay-operator"}
    assert admits(policy, "default", operator, 8265)


def test_every_manifest_is_looked_at() -> None:
    for path in MANIFESTS:
        assert documents(path)
    assert all(pod_templates(document) for document in all_documents() if document["kind"] not in PLAIN)
