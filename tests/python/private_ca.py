"""Lets clients that trust certifi's file alone (uamqp) trust the authority in SSL_CERT_FILE too, in this process only.

The file in the environment of the SDKs stays what it is: other tests read it. Import this before any SDK.
"""

import atexit
import os
import tempfile

import certifi


def _both():
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as both:
        for name in [certifi.where(), os.environ["SSL_CERT_FILE"]]:
            with open(name, encoding="ascii") as part:
                both.write(part.read() + "\n")
    atexit.register(os.unlink, both.name)
    return both.name


if "SSL_CERT_FILE" in os.environ:
    _NAME = _both()
    certifi.where = lambda: _NAME
