"""Nodes that do not answer, told from those that do by real sockets."""

import socket

from orchestrator.elastic import silent


def test_silent_is_who_takes_no_connection_and_is_not_known_to_be_dead():
    with socket.create_server(("127.0.0.1", 0)) as here, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        ports = {"here": here.getsockname()[1], "gone": closed.getsockname()[1]}
        nodes = [
            {"NodeID": name, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
            for name, port in ports.items()
        ]
        dead = {"NodeID": "dead", "NodeManagerAddress": "", "NodeManagerPort": 0, "Alive": False}
        assert silent([*({**n, "Alive": True} for n in nodes), dead]) == {"gone"}
