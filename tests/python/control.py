"""The program's end of the control line: commands in, answers and events out, as JSON lines.

Over standard input and output, or over TCP when ``HOLM_E2E_CONTROL`` holds ``host:port`` (then the first line is
``{"event": "hello", "name": ...}``). Standard output carries nothing else: what SDKs print goes to standard error.
"""

import json
import os
import socket
import sys
import threading


class Control:
    def __init__(self, name):
        self._lock = threading.Lock()
        address = os.environ.get("HOLM_E2E_CONTROL")
        if address:
            host, port = address.rsplit(":", 1)
            connection = socket.create_connection((host, int(port)), timeout=60)
            connection.settimeout(None)
            self._input = connection.makefile("r", encoding="utf-8")
            self._output = connection.makefile("w", encoding="utf-8")
            self.event("hello", name=name)
        else:
            self._input = sys.stdin
            self._output = sys.stdout
            sys.stdout = sys.stderr

    def event(self, event, /, **members):
        self._write({"event": event, **members})

    def serve(self, commands):
        """Runs commands until the line ends; ``commands`` maps a name to a function of the command's object."""
        for line in self._input:
            command = json.loads(line)
            try:
                action = commands[command["do"]]
                answer = {"ok": action(command)}
            except Exception as error:  # whatever the SDK raises is what the test wants to see
                answer = {"error": {"type": type(error).__name__, "message": explain(error)}}
            self._write({"id": command["id"], **answer})

    def _write(self, value):
        text = json.dumps(value, default=repr)
        with self._lock:
            self._output.write(text + "\n")
            self._output.flush()


def explain(error):
    """The error and what caused it, outermost first."""
    parts = []
    while error is not None and len(parts) < 8:
        parts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return " <- ".join(parts)
