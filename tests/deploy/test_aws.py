"""The file of Ray's cluster launcher: by Ray's schema, and its machines by the shapes of EC2's own interface."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest

from sketchscale import __version__
from tests.deploy.artefacts import DEPLOY, KEEPALIVE, Document, documents

jsonschema = pytest.importorskip("jsonschema", reason="absent: pip install jsonschema")


@pytest.fixture(scope="module")
def cluster() -> Document:
    return documents(DEPLOY / "aws" / "ray-cluster.yaml")[0]


@pytest.fixture(scope="module")
def schema() -> Document:
    found = importlib.util.find_spec("ray")
    if found is None or not found.submodule_search_locations:
        pytest.skip("ray is absent: pip install 'sketchscale[ray]'")
    path = Path(found.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    read: Document = json.loads(path.read_text())
    return read


def test_it_is_as_ray_has_it(cluster: Document, schema: Document) -> None:
    jsonschema.validate(cluster, schema)


def test_a_misspelt_key_is_seen(cluster: Document, schema: Document) -> None:
    wrong = copy.deepcopy(cluster)
    wrong["max_worker"] = wrong.pop("max_workers")
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(wrong, schema)


def test_machines_are_as_ec2_has_them(cluster: Document) -> None:
    session = pytest.importorskip("botocore.session", reason="botocore is absent: pip install 'sketchscale[s3]'")
    validate = pytest.importorskip("botocore.validate").ParamValidator().validate
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node in cluster["available_node_types"].values():
        request = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        assert not validate(request, shape).has_errors(), validate(request, shape).generate_report()
    assert validate({**request, "InstanceMarketOption": {}}, shape).has_errors()


def test_the_head_stays_and_workers_are_spot(cluster: Document) -> None:
    head, workers = (cluster["available_node_types"][name]["node_config"] for name in ("head", "spot_gpu"))
    assert cluster["head_node_type"] == "head"
    assert "InstanceMarketOptions" not in head
    assert workers["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert cluster["available_node_types"]["head"]["resources"] == {"CPU": 0}, "tasks stay off the driver's machine"
    assert cluster["available_node_types"]["spot_gpu"]["min_workers"] > 0, "a GPU asked for where none is, is an error"


def test_credentials_are_roles_and_ports_are_closed(cluster: Document) -> None:
    for node in cluster["available_node_types"].values():
        assert set(node["node_config"]["IamInstanceProfile"]) == {"Name"}
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert node["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
        assert "SecurityGroupIds" not in node["node_config"], "Ray's own group: ssh alone"
    assert "AWS_" not in str(cluster)
    assert "security_group" not in cluster["provider"]


def test_every_ray_process_is_closed_kept_alive_and_silent(cluster: Document) -> None:
    given = {option.removeprefix("--env ") for option in cluster["docker"]["run_options"]}
    wanted = {**KEEPALIVE, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    assert {f"{name}={value}" for name, value in wanted.items()} <= given
    assert cluster["file_mounts"] == {"/home/sketchscale/.ray/auth_token": "~/.ray/auth_token"}
    (head,) = [line for line in cluster["head_start_ray_commands"] if line.startswith("ray start")]
    assert "--include-dashboard=false" in head
    assert cluster["docker"]["image"].endswith(f"sketchscale-cuda:{__version__}")
