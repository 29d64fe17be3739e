"""Reads a page of figures from standard input with Prometheus' own parser, and prints what it understood as JSON."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    # The parser takes the end off the names of counters.
    whole = f"{family.name}_total"
    is_cut = family.type == "counter" and all(sample.name == whole for sample in family.samples)
    name = whole if is_cut else family.name
    if name in families:
        sys.exit(f"`{name}` is there twice")
    samples = [
        {"name": sample.name, "labels": sample.labels, "value": None if sample.value != sample.value else sample.value}
        for sample in family.samples
    ]
    families[name] = {"type": family.type, "help": family.documentation, "samples": samples}
json.dump(families, sys.stdout)
