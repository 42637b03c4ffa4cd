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


def packet_filter(policies: list[Object], pods: list[Object], namespaces: list[Object]) -> str:
    """For `iptables-restore --noflush`; FORWARD and INPUT begin with a jump to CHAIN."""
    labels = {each["metadata"]["name"]: _labels(each) for each in namespaces}
    for name, of in labels.items():
        of[_NAME] = name
    there = [pod for pod in pods if "podIP" in pod.get("status", {})]
    chains, rules = [CHAIN], [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    for number, pod in enumerate(there):
        mine = [policy for policy in policies if _selects(policy, pod)]
        for direction, own, other in (("Egress", "-s", "-d"), ("Ingress", "-d", "-s")):
            of = [each["spec"] for each in mine if direction in each["spec"]["policyTypes"]]
            if not of:
                continue
            chain = f"{direction}-{number}"
            chains.append(chain)
            rules.append(f"-A {CHAIN} {own} {pod['status']['podIP']} -j {chain}")
            for spec in of:
                for allowed in spec.get(direction.lower(), []):
                    for address in _peers(allowed, direction, pod, there, labels):
                        ports = [
                            f"-p {p['protocol'].lower()} --dport {p['port']}"
                            for p in allowed.get("ports", [])
                        ]
                        rules += [
                            f"-A {chain} {other} {address} {port} -j RETURN"
                            for port in ports or [""]
                        ]
            rules.append(f"-A {chain} -j REJECT --reject-with icmp-admin-prohibited")
    heads = [f":{chain} - [0:0]" for chain in chains]
    return "\n".join(["*filter", *heads, *rules, "COMMIT", ""])


def _peers(
    allowed: Object,
    direction: str,
    pod: Object,
    pods: list[Object],
    namespaces: dict[str, dict[str, str]],
) -> Iterator[str]:
    """The addresses that a rule names."""
    for peer in allowed["to" if direction == "Egress" else "from"]:
        if "ipBlock" in peer:
            yield peer["ipBlock"]["cidr"]
            continue
        for other in pods:
            place = other["metadata"]["namespace"]
            if "namespaceSelector" in peer:
                is_there = _matches(peer["namespaceSelector"], namespaces[place])
            else:
                is_there = place == pod["metadata"]["namespace"]
            if is_there and _matches(peer.get("podSelector", {}), _labels(other)):
                yield other["status"]["podIP"]


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
    return selector.get("matchLabels", {}).items() <= labels.items()
