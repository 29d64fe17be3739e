"""Reads an OTLP request in JSON with OpenTelemetry's own messages, strictly, and prints what it understood."""

import json
import sys

from google.protobuf.json_format import MessageToDict, Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

request = Parse(sys.stdin.read(), ExportMetricsServiceRequest(), ignore_unknown_fields=False)
metrics = {}
for resource in request.resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            metrics[metric.name] = {"kind": metric.WhichOneof("data"), "metric": MessageToDict(metric)}
json.dump(metrics, sys.stdout)
