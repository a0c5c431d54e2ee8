"""The NetworkPolicies of the chart."""

from typing import Any

import pytest

from tests.support.chart import FULLNAME, NAMESPACE, RELEASE, Manifest, one, render
from tests.support.chart_rendering import LABELS, coordinator

pytestmark = pytest.mark.helm


def network(name: str, selector: Manifest, **rules: Any) -> Manifest:
    """Describe a NetworkPolicy of the release."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{FULLNAME}-{name}", "namespace": NAMESPACE, "labels": LABELS},
        "spec": {"podSelector": selector, "policyTypes": ["Egress", "Ingress"], **rules},
    }


SANDBOXES = {
    "matchLabels": {"app.kubernetes.io/managed-by": "perstack-orch"},
    "matchExpressions": [{"key": "perstack.ai/sandbox", "operator": "Exists"}],
}
COORDINATORS = {
    "matchLabels": {"app.kubernetes.io/managed-by": "perstack-orch", "app.kubernetes.io/instance": RELEASE},
    "matchExpressions": [{"key": "perstack.ai/part", "operator": "In", "values": ["coordinator", "test"]}],
}
PORTS = [{"protocol": "TCP", "port": each} for each in (7443, 7444)]
BROKER = [{"from": [{"podSelector": SANDBOXES}, {"podSelector": COORDINATORS}], "ports": PORTS}]
ITSELF = {"to": [{"podSelector": COORDINATORS}], "ports": PORTS}
DNS = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def test_who_reaches_what() -> None:
    """Sandboxes and readers reach nothing; coordinators reach name servers, port 443, the API server and brokers.

    Only Sandboxes and coordinators reach a broker.
    """
    reader = {"matchLabels": {"app.kubernetes.io/managed-by": "perstack-orch", "perstack.ai/part": "reader"}}
    api = {"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}]}
    assert [each for each in render() if each["kind"] == "NetworkPolicy"] == [
        network("sandbox", SANDBOXES),
        network("reader", reader),
        network(
            "coordinator",
            COORDINATORS,
            ingress=BROKER,
            egress=[ITSELF, DNS, {"ports": [{"protocol": "TCP", "port": 443}]}, api],
        ),
    ]


def test_openshift_s_names_are_on_another_port() -> None:
    """A policy sees the port behind the Service of the name servers."""
    egress = one(render({"openshift": True}), "NetworkPolicy", f"{FULLNAME}-coordinator")["spec"]["egress"]
    assert egress[1]["ports"] == [
        *DNS["ports"],
        {"protocol": "UDP", "port": 5353},
        {"protocol": "TCP", "port": 5353},
    ]


def test_a_coordinator_s_way_out_can_be_made_narrower_and_wider() -> None:
    """An operator can set the API server's networks, a proxy's port, and additional rules."""
    own = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"protocol": "TCP", "port": 11434}]}
    policy = {"apiServerCIDRs": ["192.0.2.1/32", "fd00::1/128"], "apiServerPorts": [6443], "extraEgress": [own]}
    values = {"networkPolicy": policy, "proxy": {"url": "http://proxy.example:3128", "noProxy": ["a", "b"]}}
    objects = render(values)
    assert one(objects, "NetworkPolicy", f"{FULLNAME}-coordinator")["spec"]["egress"] == [
        ITSELF,
        DNS,
        {"ports": [{"protocol": "TCP", "port": 443}]},
        {
            "ports": [{"protocol": "TCP", "port": 6443}],
            "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}}],
        },
        {"ports": [{"protocol": "TCP", "port": 3128}]},
        own,
    ]
    assert coordinator(objects)["containers"][0]["env"][-3:] == [
        {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
        {"name": "PERSTACK_PROXY_URL", "value": "http://proxy.example:3128"},
        {"name": "NO_PROXY", "value": "a,b"},
    ]


@pytest.mark.parametrize(("url", "port"), [("http://p", 80), ("https://p", 443), ("http://[fd00::1]:8080", 8080)])
def test_the_port_of_a_proxy_is_found(url: str, port: int) -> None:
    """The port is found also if the URL leaves it out."""
    egress = one(render({"proxy": {"url": url}}), "NetworkPolicy", f"{FULLNAME}-coordinator")["spec"]["egress"]
    assert egress[-1] == {"ports": [{"protocol": "TCP", "port": port}]}
