"""Reads manifests, holds each against Kubernetes' own schema without mercy, and prints them as JSON: strictly.py VERSION"""

import json
import sys

import kubernetes_validate
import yaml

resources = [resource for resource in yaml.safe_load_all(sys.stdin) if resource]
for resource in resources:
    name = f"{resource.get('kind')} {resource.get('metadata', {}).get('name')}"
    try:
        kubernetes_validate.validate(resource, sys.argv[1], strict=True)
    except kubernetes_validate.ValidationError as fault:
        sys.exit(f"{name}: {'.'.join(map(str, fault.path))}: {fault.message}")
    except kubernetes_validate.SchemaNotFoundError as fault:
        sys.exit(f"{name}: no cluster knows {fault}")
json.dump(resources, sys.stdout)
