"""A back end on the unmodified Python SDK: reads and changes a twin and calls methods of the device in `device.py`.

    pip install azure-iot-hub six
    export REQUESTS_CA_BUNDLE=hub/ca.pem                   # the hub's authority, if it has made its own
    export HOLM_HUB="$(holm hub connection-string --data hub)"
    python back_end.py DEVICE
"""

import os
import sys
import time

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

device = sys.argv[1]
registry = IoTHubRegistryManager.from_connection_string(os.environ["HOLM_HUB"])

twin = registry.get_twin(device)
print("reported", twin.properties.reported)

wanted = 0.5
registry.update_twin(device, Twin(properties=TwinProperties(desired={"interval": wanted})))
deadline = time.monotonic() + 30
while registry.get_twin(device).properties.reported.get("interval") != wanted:
    if time.monotonic() > deadline:
        sys.exit(f"`{device}` did not report the interval {wanted}; is device.py running?")
    time.sleep(0.1)
print("the device works with the interval", wanted)

for name in ("status", "stop"):
    result = registry.invoke_device_method(device, CloudToDeviceMethod(method_name=name, payload={}))
    print(name, "answered", result.status, result.payload)
