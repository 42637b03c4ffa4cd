"""What a network plugin makes of NetworkPolicies: rules of the node's packet filter.

A connection that a pod begins has to be allowed on both of its ends, where a policy selects the pod
at that end. The node itself is not concerned, as with other plugins: probes and port-forwards pass.
Of the API it knows what the chart uses: labels, addresses, ports that are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.kubernetes.api import Object

CHAIN = "POLICIES"
_NAME = "kubernetes.io/metadata.name"  # a label that every namespace has, from 1.21


# Which address of a packet is the pod's own, which the other's, and what a rule calls the others.
_ENDS = {"Egress": ("-s", "-d", "to"), "Ingress": ("-d", "-s", "from")}


def packet_filter(policies: list[Object], pods: list[Object], namespaces: list[Object]) -> str:
    """For `iptables-restore --noflush`; FORWARD and INPUT begin with a jump to CHAIN."""
    names = [each["metadata"]["name"] for each in namespaces]
    places = {
        name: _labels(each) | {_NAME: name} for name, each in zip(names, namespaces, strict=True)
    }
    there = [pod for pod in pods if "podIP" in pod.get("status", {})]
    chains = [CHAIN]
    rules = [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    for number, pod in enumerate(there):
        mine = [policy["spec"] for policy in policies if _selects(policy, pod)]
        for direction, (own, other, _) in _ENDS.items():
            specs = [spec for spec in mine if direction in spec["policyTypes"]]
            if specs:
                chains.append(chain := f"{direction}-{number}")
                rules.append(f"-A {CHAIN} {own} {pod['status']['podIP']} -j {chain}")
                allowed = _allowed(direction, specs, pod["metadata"]["namespace"], there, places)
                rules += [f"-A {chain} {other} {each} -j RETURN" for each in allowed]
                rules.append(f"-A {chain} -j REJECT --reject-with icmp-admin-prohibited")
    heads = [f":{chain} - [0:0]" for chain in chains]
    return "\n".join(["*filter", *heads, *rules, "COMMIT", ""])


def _allowed(
    direction: str,
    specs: list[Object],
    namespace: str,
    pods: list[Object],
    places: dict[str, dict[str, str]],
) -> Iterator[str]:
    """Address and port of each other end."""
    for spec in specs:
        for rule in spec.get(direction.lower(), []):
            ports = [
                f"-p {p['protocol'].lower()} --dport {p['port']}" for p in rule.get("ports", [])
            ]
            for peer in rule[_ENDS[direction][2]]:
                for address in _addresses(peer, namespace, pods, places):
                    yield from (f"{address} {port}" for port in ports or [""])


def _addresses(
    peer: Object, namespace: str, pods: list[Object], places: dict[str, dict[str, str]]
) -> list[str]:
    if "ipBlock" in peer:
        return [peer["ipBlock"]["cidr"]]
    near = peer.get("namespaceSelector", {"matchLabels": {_NAME: namespace}})
    return [
        pod["status"]["podIP"]
        for pod in pods
        if _matches(near, places[pod["metadata"]["namespace"]])
        and _matches(peer.get("podSelector", {}), _labels(pod))
    ]


def _selects(policy: Object, pod: Object) -> bool:
    is_there = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return is_there and _matches(policy["spec"]["podSelector"], _labels(pod))


def _labels(of: Object) -> dict[str, str]:
    return dict(of["metadata"].get("labels", {}))


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In", each
        if labels.get(each["key"]) not in each["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
